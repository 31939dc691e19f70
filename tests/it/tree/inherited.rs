//! Pages that a child has still in common with its parent stand in the image once.

use super::channel;
use crate::support::needs::only_once;
use crate::support::{Room, Victim, isolated, isolated_for, wait};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

#[test]
fn a_parent_and_five_children_that_write_nothing_take_the_room_of_one() {
    isolated(|room| {
        let victim = room.victim("copies", &[channel(), "256", "5"]);
        for more in [&[][..], &["--leave-stopped"]] {
            let image = room.dump(victim.pid(), "x.snap", more);
            let size = fs::metadata(&image).expect("the image").len();
            assert!((256 * MIB..264 * MIB).contains(&size), "{more:?}: the image has {size} bytes");
            let own = private_bytes(&victim);
            assert!(own < MIB, "{more:?}: the children have {own} bytes for themselves");
        }
        let group = nix::unistd::Pid::from_raw(-victim.pid());
        nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGCONT).expect("kill");
        victim.check();
    });
}

#[test]
fn exam_09_a_gibibyte_and_eight_children_take_the_room_of_one() {
    isolated_for(Duration::from_secs(240), |room| {
        only_once!("a gibibyte");
        let mut victim = room.victim("copies", &[channel(), "1024", "8"]);
        let room_of_one = 1024 * MIB..1064 * MIB;
        let before = proportional_bytes(&victim);
        assert!(room_of_one.contains(&before), "before the dump they have {before} bytes");
        let image = room.dump(victim.pid(), "x.snap", &["--kill"]);
        let size = fs::metadata(&image).expect("the image").len();
        assert!(room_of_one.contains(&size), "the image has {size} bytes");
        victim.killed();
        wait::alone();
        assert_eq!(room.restore(&image, &[]), victim.pid());
        let after = proportional_bytes(&victim);
        assert!(room_of_one.contains(&after), "after the restore they have {after} bytes");
        victim.check();
    });
}

#[test]
fn what_a_child_has_written_is_its_own() {
    isolated(|room| {
        let victim = room.victim("copies", &[channel(), "16", "3", "100"]);
        let image = room.dump(victim.pid(), "x.snap", &[]);
        let stored: Vec<u64> = stored(room, &image, 16 * MIB);
        assert_eq!(stored, [16 * MIB, 100 * PAGE, 100 * PAGE, 100 * PAGE]);
        victim.check();
    });
}

/// Restores the tree and looks at what it takes.
fn come_back(room: &Room, victim: &mut Victim, image: &Path, more: &[&str]) -> u64 {
    end(victim);
    assert_eq!(room.restore(image, more), victim.pid());
    let own = private_bytes(victim);
    victim.check();
    end(victim);
    own
}

fn end(victim: &mut Victim) {
    let group = nix::unistd::Pid::from_raw(-victim.pid());
    let _ = nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL);
    victim.end();
    wait::alone();
}

#[test]
fn exam_09_pages_that_were_shared_are_shared_after_a_restore() {
    isolated(|room| {
        let mut victim = room.victim("copies", &[channel(), "256", "5"]);
        let image = room.dump(victim.pid(), "x.snap", &[]);
        let own = come_back(room, &mut victim, &image, &[]);
        assert!(own < 2 * MIB, "the children have {own} bytes for themselves");

        let mut victim = room.victim("copies", &[channel(), "16", "3", "100"]);
        let image = room.dump(victim.pid(), "y.snap", &[]);
        let own = come_back(room, &mut victim, &image, &[]);
        let written = 3 * 100 * PAGE;
        assert!(
            (written..written + 2 * MIB).contains(&own),
            "the children have {own} bytes for themselves, not {written}"
        );
    });
}

#[test]
fn pages_are_shared_after_a_restore_from_a_stream() {
    isolated(|room| {
        let mut victim = room.victim("copies", &[channel(), "16", "3", "100"]);
        let image = room.dump(victim.pid(), "y.snap", &[]);
        end(&mut victim);
        let stream = fs::File::open(&image).expect("the image");
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
        let (reader, mut writer) = (fs::File::from(reader), fs::File::from(writer));
        let feeder = std::thread::spawn(move || std::io::copy(&mut &stream, &mut writer));
        room.snap(["restore", "--detach", "-"]).stdin(reader).run().expect(0);
        feeder.join().expect("the feeder").expect("the stream");
        let (own, written) = (private_bytes(&victim), 3 * 100 * PAGE);
        assert!(
            (written..written + 2 * MIB).contains(&own),
            "the children have {own} bytes for themselves, not {written}"
        );
        victim.check();
    });
}

#[test]
fn another_program_inherits_nothing() {
    isolated(|room| {
        let victim = room.victim("family", &[channel(), "exec"]);
        let image = room.dump(victim.pid(), "x.snap", &[]);
        let maps = maps(room, &image);
        assert_eq!(maps["address_spaces"][1]["inherits"], Value::Null, "{maps:#}");
        victim.check();
    });
}

/// How much of the mapping of this length is in the image, for each address space.
fn stored(room: &Room, image: &Path, len: u64) -> Vec<u64> {
    let maps = maps(room, image);
    let spaces = maps["address_spaces"].as_array().expect("address spaces").iter();
    let mapping = |space: &Value| {
        let mappings = space["mappings"].as_array().expect("mappings");
        let found = mappings.iter().find(|mapping| mapping["bytes"] == len && mapping["kind"] == "anonymous");
        found.unwrap_or_else(|| panic!("no mapping of {len} bytes: {space:#}"))["stored_bytes"].as_u64()
    };
    spaces.map(|space| mapping(space).expect("a number")).collect()
}

fn maps(room: &Room, image: &Path) -> Value {
    room.snap(["inspect", "--json"]).arg(image).arg("maps").run().expect(0).json()
}

/// Dirty memory that the children have each for itself.
fn private_bytes(victim: &Victim) -> u64 {
    children(victim).iter().map(|pid| in_all(*pid, "Private_Dirty:")).sum()
}

/// Memory of parent and children, of what several have to each its part.
fn proportional_bytes(victim: &Victim) -> u64 {
    children(victim).iter().chain([&victim.pid()]).map(|pid| in_all(*pid, "Pss:")).sum()
}

fn children(victim: &Victim) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", victim.pid())).expect("children");
    children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

/// A count of `smaps_rollup` in bytes.
fn in_all(pid: i32, name: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}
