//! `snap dump`: what becomes of the target, of the image, and how it is told.

use crate::support::{Facts, Room, Victim, isolated, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

fn unharmed(victim: &Victim, before: &Facts, when: &str) {
    before.assert_same(&Facts::of(victim.pid()), when);
    victim.check();
}

#[test]
fn an_image_has_the_default_name_and_is_private() {
    isolated(|room| {
        let victim = room.victim("c-dynamic", &[]);
        let name = format!("snap-{}.snap", victim.pid());
        let run = room.snap(["dump", &victim.pid().to_string()]).run().expect(0);
        assert_eq!(room.images(), [name.as_str()], "{run}");
        let mode = fs::metadata(room.path(&name)).expect("the image").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        for word in ["2 threads", "resident", "written", "zero", "pause", "total", &name] {
            assert!(run.stdout.contains(word), "the summary lacks `{word}`: {run}");
        }
        victim.check();
    });
}

#[test]
fn exam_23_a_program_that_was_dumped_works_as_before() {
    isolated(|room| {
        let faults = |victim: &Victim| -> u64 {
            victim.ask("round").split(' ').next_back().and_then(|word| word.parse().ok()).expect("a number")
        };
        for arguments in [&["8"][..], &["8", "huge"]] {
            let mut victim = room.victim("toil", arguments);
            faults(&victim);
            assert_eq!(faults(&victim), 0, "all that a round needs is there");
            let before = Facts::of(victim.pid());
            room.dump(victim.pid(), "x.snap", &[]);
            // What it writes to first it shared with the copy that the dump has made.
            faults(&victim);
            assert_eq!(faults(&victim), 0, "{arguments:?}: a round of work has page faults after a dump");
            before.assert_same(&Facts::of(victim.pid()), "after a dump and two rounds of work");
            victim.end();
            wait::alone();
        }
    });
}

#[test]
fn the_summary_as_json() {
    isolated(|room| {
        let victim = room.victim("threads", &["5"]);
        let run = room.snap(["dump", "--json", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(0);
        let summary = run.json();
        assert_eq!(summary["schema"], "snap.dump/1");
        assert_eq!(summary["pid"], victim.pid());
        assert_eq!(summary["threads"], 6);
        assert_eq!(summary["after"], "running");
        let size = fs::metadata(room.path("x.snap")).expect("the image").len();
        assert_eq!(summary["image_bytes"], size);
        assert!(summary["pause_ns"].as_u64().is_some_and(|pause| pause > 0));
        assert!(summary["total_ns"].as_u64() > summary["pause_ns"].as_u64());
    });
}

#[test]
fn kill_waits_for_a_parent_that_is_on_its_way_to_reap() {
    /// Three times what one may take that sleeps.
    const BUSY: Duration = Duration::from_millis(60);
    isolated(|room| {
        let is_waited_for = || {
            let mut victim = room.victim("sleeper", &[]);
            let run = room.snap(["dump", "--kill", &victim.pid().to_string(), "-o", "x.snap"]).spawn();
            // We never sleep meanwhile.
            while victim.state() != Some('Z') {
                std::hint::spin_loop();
            }
            let dead = Instant::now();
            while dead.elapsed() < BUSY {
                std::hint::spin_loop();
            }
            victim.killed();
            !run.finish().expect(0).stdout.contains("stays taken")
        };
        // On a busy machine even a second may be too little.
        assert!((0..8).any(|_| is_waited_for()), "no time was enough");
    });
}

#[test]
fn kill_names_the_pid_that_its_parent_has_not_reaped() {
    isolated(|room| {
        let mut victim = room.victim("c-dynamic", &[]);
        let run = room.snap(["dump", "--kill", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(0);
        assert_eq!(victim.state(), Some('Z'), "we are its parent and have not reaped it");
        assert!(format!("{}{}", run.stdout, run.stderr).contains(&format!("pid {} is dead", victim.pid())), "{run}");
        victim.killed();
    });
}

#[test]
fn an_old_image_is_replaced_whole() {
    isolated(|room| {
        let victim = room.victim("c-dynamic", &[]);
        fs::write(room.path("x.snap"), "something else").expect("a file");
        room.dump(victim.pid(), "x.snap", &[]);
        room.snap(["inspect", "x.snap"]).run().expect(0);
    });
}

#[test]
fn compressed_images_restore() {
    isolated(|room| {
        let mut victim = room.victim("ballast", &["16"]);
        for method in ["none", "zstd", "zstd:9", "zstd:-3"] {
            let image = room.dump(victim.pid(), "x.snap", &["--kill", "--compress", method]);
            victim.killed();
            room.restore(&image, &[]);
            victim.check();
        }
    });
}

/// A file system of 256 KiB.
fn tiny(room: &Room) -> PathBuf {
    let place = room.path("tiny");
    fs::create_dir(&place).expect("a directory");
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tiny"]).arg(&place).status();
    assert!(status.expect("mount").success(), "mounting a tmpfs");
    place
}

#[test]
fn a_full_disk_leaves_no_image_and_the_target_running() {
    isolated(|room| {
        let victim = room.victim("ballast", &["8"]);
        victim.check();
        let before = Facts::of(victim.pid());
        let place = tiny(room);
        let fates = ["--leave-running", "--kill", "--leave-stopped"];
        for (fate, copiers) in fates.into_iter().flat_map(|fate| [(fate, "always"), (fate, "never")]) {
            let dump = room.snap(["dump", fate, &victim.pid().to_string(), "-o"]).arg(place.join("x.snap"));
            let run = dump.env("SNAP_COPIERS", copiers).run();
            assert_eq!(run.code, Some(1), "{run}");
            assert!(run.stderr.contains("x.snap") && run.stderr.contains("No space left"), "{run}");
            assert_eq!(fs::read_dir(&place).expect("the disk").count(), 0, "{fate}: something is left: {run}");
            unharmed(&victim, &before, fate);
        }
        assert!(Command::new("umount").arg(&place).status().expect("umount").success());
    });
}

#[test]
fn a_directory_that_does_not_exist_is_named() {
    isolated(|room| {
        let victim = room.victim("c-dynamic", &[]);
        let before = Facts::of(victim.pid());
        room.snap(["dump", &victim.pid().to_string(), "-o", "nowhere/x.snap"]).run().expect(1).says("nowhere");
        unharmed(&victim, &before, "a dump into nowhere");
    });
}

/// A dump that writes into a pipe which nobody reads stands still, so what ends it is not a matter of luck.
fn stuck(room: &Room, victim: &Victim, more: &[&str]) -> (crate::support::snap::Running, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let output = fs::File::from(std::os::fd::OwnedFd::from(writer));
    let run = room.snap(["dump", &victim.pid().to_string(), "-o", "-"]).args(more).stdout(output).spawn();
    let full = || {
        let mut waiting = 0i32;
        // SAFETY: FIONREAD writes one int.
        let result = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&reader), libc::FIONREAD, &raw mut waiting) };
        (result == 0 && waiting >= 32768).then_some(())
    };
    wait::until("the pipe to be full", full);
    (run, reader)
}

#[test]
fn an_interrupt_leaves_the_target_running() {
    isolated(|room| {
        let victim = room.victim("ballast", &["8"]);
        victim.check();
        let before = Facts::of(victim.pid());
        for (signal, fate) in [(Signal::SIGINT, "--leave-running"), (Signal::SIGTERM, "--kill")] {
            let (run, _reader) = stuck(room, &victim, &[fate]);
            kill(Pid::from_raw(run.pid()), signal).expect("kill");
            run.finish().expect(130);
            unharmed(&victim, &before, "an interrupted dump");
        }
    });
}

#[test]
fn a_timeout_leaves_the_target_running() {
    isolated(|room| {
        let victim = room.victim("ballast", &["8"]);
        victim.check();
        let before = Facts::of(victim.pid());
        for fate in ["--leave-running", "--kill"] {
            let (run, _reader) = stuck(room, &victim, &[fate, "--timeout", "1"]);
            run.finish().expect(124);
            unharmed(&victim, &before, "a dump that timed out");
        }
    });
}

#[test]
fn interrupts_at_many_instants_leave_a_whole_image_or_none() {
    isolated(|room| {
        let victim = room.victim("ballast", &["16"]);
        victim.check();
        let before = Facts::of(victim.pid());
        for turn in 0..40u64 {
            let run = room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).spawn();
            // The instant is what is tested.
            std::thread::sleep(Duration::from_micros(turn * 700));
            let _ = kill(Pid::from_raw(run.pid()), Signal::SIGINT);
            let output = run.finish();
            match (output.code, output.signal) {
                (Some(0), _) => drop(room.snap(["inspect", "x.snap"]).run().expect(0)),
                // Before its handler stands, SIGINT ends it as it ends every program.
                (Some(130), _) | (None, Some(2)) => assert_eq!(room.images(), [""; 0], "{output}"),
                _ => panic!("{output}"),
            }
            let _ = fs::remove_file(room.path("x.snap"));
            unharmed(&victim, &before, "an interrupted dump");
        }
    });
}
