//! Exam 25: a target that uses most of the memory it may have is dumped without having it twice.

use crate::roundtrip::cgroup::Group;
use crate::support::snap::BINARY;
use crate::support::{Victim, isolated, require, require_root, victim};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;

/// Bounds the memory of a cgroup. `None` where nothing bounds it.
fn bound(group: &Group, bytes: u64) -> Option<PathBuf> {
    let names = ["memory.limit_in_bytes", "memory.max"];
    let files = group.places().iter().flat_map(|place| names.map(|name| place.join(name)));
    let mut bounded = files.filter(|file| fs::write(file, bytes.to_string()).is_ok());
    bounded.next().and_then(|file| Some(file.parent()?.to_path_buf()))
}

/// Processes that the kernel has killed because the memory of the cgroup was used up.
fn killed(place: &Path) -> String {
    let read = |name: &str| fs::read_to_string(place.join(name)).unwrap_or_default();
    let text = read("memory.oom_control") + &read("memory.events");
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap_or("unknown").to_owned()
}

/// The program writes to all of its memory all the time: a copy of it would soon take as much once more.
#[test]
fn exam_25_a_program_that_fills_its_cgroup_is_dumped_without_having_its_memory_twice() {
    isolated(|room| {
        require_root!("to make cgroups");
        let group = Group::new("much");
        let bounded = bound(&group, 192 * MIB + 96 * MIB);
        require!(bounded.is_some(), "no cgroup bounds memory");
        let place = bounded.expect("a cgroup");
        // Memory is charged to the cgroup in which it was made.
        let mut command = Command::new("/bin/sh");
        let directory = Victim::directory_in(room, "churn");
        let start = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", place.display());
        command.args(["-c", &start, "sh"]).arg(victim::program("churn")).arg(&directory).args(["much", "192"]);
        let mut victim = Victim::start_command(command, directory);
        for turn in 0..3 {
            room.dump(victim.pid(), &format!("{turn}.snap"), &[]);
            victim.check();
            assert_eq!(killed(&place), "0", "dump {turn}");
        }
        room.dump_and_kill(&mut victim, "last.snap");
        assert_eq!(room.restore(&room.path("last.snap"), &[]), victim.pid());
        victim.check();
        victim.end();
    });
}

/// Private memory of `snap` itself is bounded to a fraction of that of the target.
#[test]
fn exam_25_snap_itself_needs_little_memory() {
    isolated(|room| {
        let mut victim = room.victim("ballast", &["512"]);
        let wrapper = ["prlimit", "--data=100663296"];
        let pid = victim.pid().to_string();
        for (fate, more) in
            [("--leave-running", &[][..]), ("--leave-running", &["--compress", "zstd"]), ("--kill", &[])]
        {
            let dump = room.snap(["dump", fate, &pid, "-o", "x.snap"]).args(more);
            dump.through(&wrapper, Path::new(BINARY)).run().expect(0);
            if fate == "--leave-running" {
                victim.check();
            }
        }
        victim.killed();
        assert_eq!(room.restore(&room.path("x.snap"), &[]), victim.pid());
        victim.check();
        victim.end();
    });
}
