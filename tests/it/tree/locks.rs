//! Locks among processes of a tree, and between them and others.

use super::{channel, end, survives};
use crate::support::{facts, isolated, wait};
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

#[test]
fn locks_and_leases_are_held_by_their_owners_and_waited_for() {
    isolated(|room| survives(room, room.victim("locks", &[channel()]), &[]));
}

#[test]
fn a_lock_that_somebody_else_has_now_is_an_error_before_anything_runs() {
    isolated(|room| {
        let mut victim = room.victim("locks", &[channel()]);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        wait::alone();
        let restore = || room.snap(["restore", "--detach"]).arg(&image).run();
        let open = |name: &str| File::options().read(true).write(true).open(victim.path(name)).expect("a file");
        let ours = format!("that pid {} (", std::process::id());

        let held =
            Flock::lock(open("own"), FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno).expect("a lock");
        let run = restore().expect(3).says("/own").says(&ours).says("has taken meanwhile");
        assert!(!run.stderr.contains("/whole") && facts::state(victim.pid()).is_none(), "{run}");
        drop(held);

        let records = open("records");
        let range = |start, len| libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: start,
            l_len: len,
            l_pid: 0,
        };
        fcntl(&records, FcntlArg::F_SETLK(&range(15, 1))).expect("a lock");
        let run = restore().expect(3).says("/records").says(&ours);
        assert_eq!(facts::state(victim.pid()), None, "{run}");
        drop(records);

        // Shared locks do not exclude one another.
        let shared =
            Flock::lock(open("own"), FlockArg::LockSharedNonblock).map_err(|(_, errno)| errno).expect("a lock");
        restore().expect(0);
        drop(shared);
        victim.check();
        victim.ask("final");
        end(&mut victim);
    });
}

#[test]
fn a_lease_that_is_being_broken_is_refused_until_that_is_over() {
    const LEASES: &str = "import fcntl, signal, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open('leased', 'w')
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
open('ready', 'w')
time.sleep(1000)";
    isolated(|room| {
        let mut python = Command::new("python3");
        python.args(["-c", LEASES]).current_dir(room.path("")).stdin(Stdio::null()).stdout(Stdio::null());
        let mut python = python.stderr(Stdio::null()).spawn().expect("python");
        let pid = python.id() as i32;
        wait::until("the lease", || room.path("ready").exists().then_some(()));
        room.dump(pid, "before.snap", &[]);
        let opened = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(room.path("leased"));
        assert_eq!(opened.err().and_then(|error| error.raw_os_error()), Some(libc::EWOULDBLOCK));
        let run = room.snap(["dump", &pid.to_string(), "-o", "x.snap"]).run().expect(3);
        assert!(run.stderr.contains("its lease is being broken") && !room.path("x.snap").exists(), "{run}");
        python.kill().expect("kill");
        python.wait().expect("wait");
    });
}
