//! Process trees: what a dump takes of them.

mod fifos;
mod freeze;
mod in_flight;
mod inherited;
mod kills;
mod leaks;
mod locks;
mod new_pids;
mod own;
mod procfs;
mod relatives;
mod restore;
mod scale;
mod sharing;
mod terminals;
mod unix;
mod zombies;

use crate::support::{Facts, Room, Victim, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::path::Path;

/// How the processes of a tree talk: through shared memory that has no name.
const fn channel() -> &'static str {
    "anonymous"
}

/// The report on the tree in an image.
fn tree(room: &Room, image: &Path) -> Value {
    room.snap(["inspect", "--json"]).arg(image).arg("tree").run().expect(0).json()
}

/// The report on the descriptors in an image.
fn descriptors(room: &Room, image: &Path) -> Value {
    room.snap(["inspect", "--json"]).arg(image).arg("fds").run().expect(0).json()
}

/// The processes of a tree: the victim and its children, in the order in which it made them.
fn family(victim: &Victim) -> Vec<i32> {
    let children = victim.ask("children");
    std::iter::once(victim.pid()).chain(children.split(' ').filter_map(|pid| pid.parse().ok())).collect()
}

/// A process with all its living descendants.
pub(crate) fn members(pid: i32) -> Vec<i32> {
    let mut members = vec![pid];
    let mut at = 0;
    while let Some(&pid) = members.get(at) {
        for thread in crate::support::facts::threads(pid) {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).unwrap_or_default();
            members.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        at += 1;
    }
    members
}

/// Kills a victim with all its descendants, and waits until nobody is left.
pub(crate) fn end(victim: &mut Victim) {
    for pid in members(victim.pid()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    victim.end();
    wait::alone();
}

/// The whole promise for a tree, as [`Room::survives`] has it for one process. Facts that start with one of `restless` change by themselves.
pub(crate) fn survives(room: &Room, mut victim: Victim, restless: &[&str]) {
    let facts = |pids: &[i32]| -> Vec<Facts> {
        let of = |pid: &i32| restless.iter().fold(Facts::of(*pid), |facts, prefix| facts.without(prefix));
        pids.iter().map(of).collect()
    };
    // Their order is one of the facts about their parent.
    let sorted = |mut pids: Vec<i32>| {
        pids.sort_unstable();
        pids
    };
    victim.check();
    let pids = sorted(members(victim.pid()));
    let before = facts(&pids);
    let same = |when: &str| {
        for ((pid, before), now) in pids.iter().zip(&before).zip(facts(&pids)) {
            before.assert_same(&now, &format!("pid {pid} {when}"));
        }
    };
    let first = room.dump(victim.pid(), "first.snap", &[]);
    same("after a dump that left it running");
    victim.check();
    let second = room.dump_and_kill(&mut victim, "second.snap");
    wait::alone();
    assert_eq!(room.restore(&second, &[]), victim.pid());
    assert_eq!(sorted(members(victim.pid())), pids);
    same("after the restore");
    victim.check();
    victim.ask("final");
    end(&mut victim);
    assert_eq!(room.restore(&first, &["--files", "truncate"]), victim.pid());
    victim.check();
    victim.ask("final");
    end(&mut victim);
}

/// The entry of a list whose `member` is `number`.
fn entry<'a>(list: &'a Value, member: &str, number: i32) -> &'a Value {
    let found = list.as_array().and_then(|list| list.iter().find(|entry| entry[member] == number));
    found.unwrap_or_else(|| panic!("no {member} {number}: {list}"))
}
