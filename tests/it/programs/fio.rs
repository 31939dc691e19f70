//! fio: four threads with a context of Linux AIO each, in which requests are in flight nearly always, and which look whether they read what they have written.

use crate::support::{Room, isolated_for, wait};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);
const THREADS: &str = "4";
/// What it says of a thread that has found nothing wrong.
const SOUND: &str = "err= 0:";
/// Its exit code when it was interrupted.
const INTERRUPTED: i32 = 128;

#[allow(clippy::zombie_processes, reason = "reaped by its pid, under which a restore brings it back")]
fn start(room: &Room) -> i32 {
    // Requests that go through the page cache are done when they are submitted.
    let direct =
        File::options().create(true).truncate(true).write(true).custom_flags(libc::O_DIRECT).open(room.path("probe"));
    let log = File::create(room.path("log")).expect("a log");
    let mut command = Command::new("fio");
    command.args([
        "--name=work",
        "--ioengine=libaio",
        "--iodepth=16",
        "--thread",
        "--rw=randrw",
        "--bs=4k",
        "--size=4m",
    ]);
    command.args(["--verify=crc32c", "--loops=100000", &format!("--numjobs={THREADS}")]);
    command
        .arg(format!("--direct={}", u8::from(direct.is_ok())))
        .arg(format!("--directory={}", room.path("").display()));
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("dup")).stderr(log).process_group(0);
    let pid = command.current_dir(room.path("")).spawn().expect("fio").id() as i32;
    let contexts = || {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("its mappings");
        (maps.matches("/[aio]").count().to_string() == THREADS).then_some(())
    };
    wait::until("a context of each thread", contexts);
    pid
}

#[test]
fn exam_1_threads_with_requests_in_flight_go_on_after_dumps_and_after_kill_and_restore() {
    isolated_for(LIMIT, |room| {
        let pid = start(room);
        for _ in 0..3 {
            room.dump(pid, "living.snap", &["--timeout", "60"]);
            let image = room.dump(pid, "killed.snap", &["--kill", "--timeout", "60"]);
            wait::gone(pid);
            assert_eq!(room.restore(&image, &["--files", "truncate"]), pid);
        }
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("kill");
        let end = wait::gone_within(pid, Duration::from_secs(60));
        let log = std::fs::read_to_string(room.path("log")).expect("the log");
        assert!(matches!(end, Some(WaitStatus::Exited(_, INTERRUPTED))), "ended with {end:?}: {log}");
        assert_eq!(log.matches(SOUND).count().to_string(), THREADS, "{log}");
        wait::alone();
    });
}
