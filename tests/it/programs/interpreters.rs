//! python3, bash, perl, node.

use crate::support::{Room, Victim, isolated};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Command;

/// An interpreter of Debian running a script of `fixtures/scripts`.
pub fn script(room: &Room, interpreter: &str, name: &str) -> Victim {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scripts").join(name);
    let directory = Victim::directory_in(room, name);
    let mut command = Command::new(interpreter);
    command.arg(script).arg(&directory);
    Victim::start_command(command, directory)
}

/// What an interpreter does to its heap and its open files between two looks.
pub const RESTLESS: &[&str] = &["map ", "fd ", "task "];

#[test]
fn python_with_eight_threads_and_an_ordered_log() {
    isolated(|room| room.survives_but(script(room, "/usr/bin/python3", "threads.py"), RESTLESS));
}

#[test]
fn python_with_thirty_threads_and_messages_in_a_queue() {
    isolated(|room| {
        let victim = script(room, "/usr/bin/python3", "mqueue.py");
        for point in ["gathered", "exchanging", "exchanged"].repeat(3) {
            let dump = room.snap(["dump", &victim.pid().to_string(), "-o", "died.snap"]);
            let died = dump.env("SNAP_FAULT", point).run();
            assert_eq!(died.signal, Some(Signal::SIGKILL as i32), "{point}: not reached: {died}");
            victim.check();
        }
        room.survives_but(victim, RESTLESS);
    });
}

#[test]
fn perl_with_an_alarm_and_a_file_half_read() {
    isolated(|room| room.survives_but(script(room, "/usr/bin/perl", "state.pl"), RESTLESS));
}

#[test]
fn bash_with_traps_in_a_loop() {
    isolated(|room| room.survives_but(script(room, "/bin/bash", "loop.sh"), RESTLESS));
}

#[test]
fn traps_of_bash_fire_after_a_restore() {
    isolated(|room| {
        let mut victim = script(room, "/bin/bash", "loop.sh");
        let pid = Pid::from_raw(victim.pid());
        kill(pid, Signal::SIGUSR1).expect("kill");
        assert_eq!(victim.ask("trapped"), "1");
        let image = room.dump_and_kill(&mut victim, "bash.snap");
        room.restore(&image, &[]);
        assert_eq!(victim.ask("trapped"), "1");
        kill(pid, Signal::SIGUSR1).expect("kill");
        assert_eq!(victim.ask("trapped"), "2");
        kill(pid, Signal::SIGTERM).expect("kill");
        let end = crate::support::wait::gone(victim.pid());
        assert!(matches!(end, Some(nix::sys::wait::WaitStatus::Exited(_, 3))), "{end:?}");
    });
}

#[test]
fn node_with_timers() {
    isolated(|room| room.survives_but(script(room, "/usr/bin/node", "timers.js"), RESTLESS));
}
