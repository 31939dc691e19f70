//! stress-ng, dumped again and again at random instants, each time killed, restored and run on.

use crate::support::{Room, isolated_for, wait};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);

/// How often a load is dumped, in the absence of `SNAP_STRESS_DUMPS`.
const DUMPS: u32 = 15;

fn dumps() -> u32 {
    std::env::var("SNAP_STRESS_DUMPS").map_or(DUMPS, |count| count.parse().expect("SNAP_STRESS_DUMPS is a number"))
}

/// Instants that differ from run to run, and are told when something fails.
fn random_millis(below: u64) -> u64 {
    let mut bytes = [0; 8];
    let file = File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    file.expect("/dev/urandom");
    u64::from_le_bytes(bytes) % below
}

fn stressed(room: &Room, load: &str, options: &[&str]) {
    let log = File::create(room.path("log")).expect("a log");
    #[allow(
        clippy::zombie_processes,
        reason = "reaped by its pid, under which a restore brings it back as another child"
    )]
    let child = Command::new("stress-ng")
        .args([load, "2", "--timeout", "0", "--metrics-brief", "--temp-path"])
        .arg(room.path(""))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("dup"))
        .stderr(log)
        .process_group(0)
        .spawn()
        .expect("stress-ng");
    let pid = child.id() as i32;
    let (mut dumped, mut refused) = (0, 0);
    while dumped < dumps() {
        // The instant is what is tested.
        std::thread::sleep(Duration::from_millis(5 + random_millis(60)));
        let image = room.path("stress.snap");
        let dump = room.snap(["dump", "--kill", &pid.to_string(), "-o"]).arg(&image).args(options).run();
        match dump.code {
            Some(0) => dumped += 1,
            // A vfork parent waits for its child, which does not stop for long.
            Some(3) if dump.stderr.contains("vfork") && refused < 3 * dumps() => {
                refused += 1;
                continue;
            }
            _ => panic!("after {dumped} dumps: {dump}"),
        }
        wait::gone(pid);
        wait::alone();
        let restore = room.snap(["restore", "--detach", "--files", "truncate"]).arg(&image).run();
        assert_eq!(restore.code, Some(0), "after {dumped} dumps: {restore}");
    }
    eprintln!("{load}: {dumped} dumps, {refused} refused");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("kill");
    let end = wait::gone_within(pid, Duration::from_secs(60));
    let log = std::fs::read_to_string(room.path("log")).expect("the log");
    assert!(matches!(end, Some(WaitStatus::Exited(_, 0))), "{load}: ended with {end:?}\n{log}");
    assert!(log.contains("successful run completed"), "{load}: {log}");
    wait::alone();
}

#[test]
fn processes_that_fork_and_end() {
    isolated_for(LIMIT, |room| stressed(room, "--fork", &[]));
}

#[test]
fn processes_that_talk_through_pipes() {
    isolated_for(LIMIT, |room| stressed(room, "--pipe", &[]));
}

#[test]
fn threads_that_come_and_go() {
    isolated_for(LIMIT, |room| stressed(room, "--pthread", &[]));
}

#[test]
fn requests_of_linux_aio() {
    // Whatever is in flight is waited for.
    isolated_for(LIMIT, |room| stressed(room, "--aiol", &["--timeout", "60"]));
}
