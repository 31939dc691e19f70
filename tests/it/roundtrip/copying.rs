//! Memory that threads of ours copy into the image: it is what it would be if we had read and written it, and they are not used where they must not be.

use crate::support::snap::Output;
use crate::support::{Facts, Room, Victim, isolated, require, require_cpu, require_root};
use snap::image::Image;
use snap::image::model::address::{PAGE_SIZE, PageRange};
use snap::image::model::memory::ContentOwner;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// What is said of memory that was copied so.
const COPIED: &str = "bytes were copied by threads in its memory";
/// And of memory that was not.
const NOT_COPIED: &str = "no threads can copy its memory";

fn dump(room: &Room, victim: &Victim, image: &str, copiers: &str, more: &[&str]) -> Output {
    let dump = room.snap(["-vv", "dump", &victim.pid().to_string(), "-o", image]).args(more);
    dump.env("SNAP_COPIERS", copiers).run().expect(0)
}

fn copied(room: &Room, victim: &Victim, image: &str, more: &[&str]) {
    dump(room, victim, image, "always", more).says(COPIED);
}

/// Each page with its content, in order.
fn pages(path: &Path) -> Vec<(ContentOwner, u64, Vec<u8>)> {
    let file = File::open(path).expect("the image");
    let image = Image::open(snap::sys::file_map::map(&file).expect("mmap")).expect("an image");
    image.verify().expect("a whole image");
    let mut all = Vec::new();
    for (owner, range) in image.page_runs().expect("runs") {
        for number in 0..range.len() / PAGE_SIZE {
            let at = range.start.add(number * PAGE_SIZE);
            let mut page = vec![0; PAGE_SIZE as usize];
            assert_eq!(image.read_at(owner, at, &mut page).expect("a page"), page.len());
            all.push((owner, at.0, page));
        }
    }
    all.sort();
    all
}

fn assert_equal(room: &Room, one: &str, other: &str, when: &str) {
    let (one, other) = (pages(&room.path(one)), pages(&room.path(other)));
    let addresses = |pages: &[(ContentOwner, u64, Vec<u8>)]| pages.iter().map(|page| page.1).collect::<Vec<_>>();
    assert_eq!(addresses(&one), addresses(&other), "{when}: other pages");
    // The kernel tells each thread in its rseq area on which CPU it runs; between two stops it may have moved.
    const RSEQ: usize = 32;
    for (one, other) in one.iter().zip(&other).filter(|(one, other)| one != other) {
        let differ = |at: &usize| one.2[*at] != other.2[*at];
        let first = (0..one.2.len()).find(differ).unwrap_or(0);
        let last = (0..one.2.len()).rfind(differ).unwrap_or(0);
        assert!(last - first < RSEQ, "{when}: other content at {:#x}, bytes {first} to {last}", one.1);
    }
}

/// What stands in an image of a victim that stands still is the same either way.
fn equal_either_way(room: &Room, program: &str, arguments: &[&str]) {
    let mut victim = room.victim(program, arguments);
    victim.check();
    let before = Facts::of(victim.pid());
    room.snap(["dump", "--leave-stopped", &victim.pid().to_string(), "-o", "stop.snap"]).run().expect(0);
    let when = format!("{program} {arguments:?}");
    copied(room, &victim, "copied.snap", &["--leave-stopped"]);
    dump(room, &victim, "written.snap", "never", &["--leave-stopped"]);
    assert_equal(room, "copied.snap", "written.snap", &when);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim.pid()), nix::sys::signal::Signal::SIGCONT).expect("kill");
    before.assert_same(&Facts::of(victim.pid()), &when);
    victim.check();
    copied(room, &victim, "killed.snap", &["--kill"]);
    victim.killed();
    room.restore(&room.path("killed.snap"), &[]);
    victim.check();
    victim.end();
}

#[test]
fn large_memory_is_the_same_either_way() {
    isolated(|room| equal_either_way(room, "ballast", &["40"]));
}

#[test]
fn memory_of_every_kind_is_the_same_either_way() {
    isolated(|room| {
        for group in ["anonymous", "files", "advice", "protection", "sealed", "guards", "huge"] {
            equal_either_way(room, "memory", &[group]);
        }
    });
}

#[test]
fn shared_memory_is_the_same_either_way() {
    isolated(|room| {
        equal_either_way(room, "memory", &["shared"]);
    });
}

#[test]
fn many_small_mappings_are_the_same_either_way() {
    isolated(|room| equal_either_way(room, "vmas", &["2000"]));
}

#[test]
fn memory_under_protection_keys_is_the_same_either_way() {
    isolated(|room| {
        require_cpu!("ospke", "the CPU has no protection keys");
        equal_either_way(room, "memory", &["keys"]);
    });
}

#[test]
fn a_target_that_runs_on_and_later_its_image() {
    isolated(|room| {
        let mut victim = room.victim("ballast", &["40"]);
        victim.check();
        let before = Facts::of(victim.pid());
        copied(room, &victim, "living.snap", &[]);
        before.assert_same(&Facts::of(victim.pid()), "after a dump that left it running");
        victim.check();
        pages(&room.path("living.snap"));
        victim.end();
        room.restore(&room.path("living.snap"), &[]);
        victim.check();
    });
}

#[test]
fn zero_pages_take_no_room() {
    isolated(|room| {
        let victim = room.victim("memory", &["anonymous"]);
        let zero = |copiers| dump(room, &victim, "x.snap", copiers, &["--json"]).json()["zero_bytes"].as_u64();
        let (copied, written) = (zero("always"), zero("never"));
        assert_eq!(copied, written);
        assert!(copied.is_some_and(|bytes| bytes > 0), "the victim has no zero page");
        let image = fs::metadata(room.path("x.snap")).expect("the image").len();
        let pages = pages(&room.path("x.snap"));
        assert!(image < (pages.len() as u64 + 600) * PAGE_SIZE, "{image} bytes for {} pages", pages.len());
        let whole = PageRange::new(0, PAGE_SIZE).len() as usize;
        assert!(pages.iter().any(|page| page.2 != vec![0; whole]));
    });
}

#[test]
fn a_target_that_may_write_no_files() {
    isolated(|room| {
        let victim = room.victim("ballast", &["24"]);
        let limit = ["--fsize=4096", "--nofile=64", "--pid"];
        let status = Command::new("prlimit").args(limit).arg(victim.pid().to_string()).status().expect("prlimit");
        assert!(status.success());
        for fate in ["--leave-running", "--leave-stopped"] {
            copied(room, &victim, "x.snap", &[fate]);
            pages(&room.path("x.snap"));
        }
    });
}

#[test]
fn little_memory_and_what_is_no_plain_file_are_written_by_us() {
    isolated(|room| {
        let victim = room.victim("ballast", &["4"]);
        let quiet = |run: &Output| !run.stderr.contains(COPIED) && !run.stderr.contains(NOT_COPIED);
        for (copiers, more) in [("", &[][..]), ("never", &[]), ("always", &["--compress", "zstd"])] {
            let run = dump(room, &victim, "x.snap", copiers, more);
            assert!(quiet(&run), "{copiers} {more:?}: {run}");
        }
        let null = dump(room, &victim, "/dev/null", "always", &[]);
        assert!(quiet(&null), "{null}");
        victim.check();
    });
}

/// Dumps it either way, and kills and restores it; each dump must say why its memory was not copied.
fn is_not_copied(room: &Room, mut victim: Victim, reason: &str) {
    for fate in ["--leave-running", "--kill"] {
        let run = dump(room, &victim, "x.snap", "always", &[fate]).says(NOT_COPIED).says(reason);
        assert!(!run.stderr.contains(COPIED), "{run}");
        pages(&room.path("x.snap"));
    }
    victim.killed();
    room.restore(&room.path("x.snap"), &[]);
    victim.check();
}

#[test]
fn a_file_system_of_another_kind() {
    isolated(|room| {
        let elsewhere = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let kind = nix::sys::statfs::statfs(elsewhere.path()).expect("statfs").filesystem_type();
        require!(kind != nix::sys::statfs::TMPFS_MAGIC, "/var/tmp is a tmpfs");
        let image = elsewhere.path().join("x.snap");
        let mut victim = room.victim("ballast", &["24"]);
        for fate in ["--leave-running", "--kill"] {
            dump(room, &victim, &image.to_string_lossy(), "always", &[fate]).says(NOT_COPIED).says("userfaultfd");
            pages(&image);
        }
        victim.killed();
        room.restore(&image, &[]);
        victim.check();
    });
}

#[test]
fn a_target_under_a_seccomp_filter() {
    isolated(|room| {
        require_root!("to read seccomp filters");
        is_not_copied(room, room.victim("seccomp", &["errno"]), "seccomp filter");
    });
}

#[test]
fn a_target_in_another_cgroup() {
    isolated(|room| {
        require_root!("to make cgroups");
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let memory = mounts.lines().filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let fits = words[2] == "cgroup2" || words[3].split(',').any(|option| option == "memory");
            (words[2].starts_with("cgroup") && fits).then(|| Path::new(words[1]).join("snap-test-copying"))
        });
        let groups: Vec<_> = memory.filter(|place| place.is_dir() || fs::create_dir(place).is_ok()).collect();
        require!(!groups.is_empty(), "no cgroup can be made");
        let victim = room.victim("ballast", &["24"]);
        groups.iter().for_each(|group| drop(fs::write(group.join("cgroup.procs"), victim.pid().to_string())));
        dump(room, &victim, "x.snap", "always", &[]).says(NOT_COPIED).says("another cgroup");
        victim.check();
        dump(room, &victim, "y.snap", "always", &["--leave-stopped"]).says(NOT_COPIED).says("another cgroup");
        drop(victim);
        crate::support::wait::until("the cgroups to be empty", || {
            groups.iter().all(|group| fs::remove_dir(group).is_ok() || !group.exists()).then_some(())
        });
    });
}
