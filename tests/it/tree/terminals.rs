//! Terminals both of whose ends are in the tree.

use crate::support::{Victim, isolated, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Command;

fn holder(room: &crate::support::Room) -> Victim {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scripts/terminal.py");
    let directory = Victim::directory_in(room, "terminal.py");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).arg(&directory);
    Victim::start_command(command, directory)
}

/// Kills the holder; a terminal that loses its master hangs up, which ends the programs.
fn end(victim: &mut Victim) {
    let _ = kill(Pid::from_raw(victim.pid()), Signal::SIGKILL);
    victim.end();
    wait::alone();
}

#[test]
fn vim_with_unsaved_text_less_and_top_are_driven_on_with_keys() {
    isolated(|room| {
        let mut victim = holder(room);
        victim.check();
        let first = room.dump(victim.pid(), "first.snap", &[]);
        victim.check();
        let second = room.dump(victim.pid(), "second.snap", &["--kill"]);
        victim.killed();
        wait::alone();
        assert_eq!(room.restore(&second, &[]), victim.pid());
        victim.check();
        victim.ask("save");
        victim.ask("end");
        end(&mut victim);

        std::fs::remove_file(victim.path("text")).expect("the text that vim has saved");
        assert_eq!(room.restore(&first, &["--files", "ignore"]), victim.pid());
        victim.check();
        victim.ask("save");
        end(&mut victim);
    });
}
