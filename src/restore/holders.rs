//! Who has the ids that an image needs: tasks, those that have ended and wait to be reaped, groups and sessions.

use crate::image::model::Snapshot;
use crate::image::model::id::{Pid, Tid};
use crate::proc::stat::{self, Stat};
use crate::proc::{TaskDir, processes};
use nix::errno::Errno;
use nix::sys::signal::killpg;
use std::time::{Duration, Instant};

/// How long what was killed just now may keep its id: until its parent has reaped it, which is nothing to wait on.
const REAPING: Duration = Duration::from_secs(1);

/// Who has an id that the image needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A task of this name.
    Alive(String),
    /// A process that has ended and waits to be reaped.
    Zombie {
        /// Its name.
        name: String,
        /// Who has to reap it, and that one's name; 0 and no name where the parent lies outside this pid namespace.
        parent: (Pid, String),
    },
    /// No task any more, but a process group or session that these are in, as far as this user may see.
    Group(Vec<(Pid, String)>),
}

/// The ids of the image that are taken. Any of these keeps an id from being used again.
pub fn probe(snapshot: &Snapshot) -> Vec<(Tid, Holder)> {
    let tids = snapshot.processes.iter().flat_map(|process| &process.threads).map(|thread| thread.tid);
    let leaders = snapshot.processes.iter().filter(|process| process.ended_leader.is_some());
    let tids = tids.chain(leaders.map(|process| process.pid.leader()));
    let mut tids: Vec<Tid> = tids.chain(snapshot.zombies.iter().map(|zombie| zombie.pid.leader())).collect();
    tids.dedup();
    let since = Instant::now();
    loop {
        let (mut taken, mut all_live) = (Vec::new(), true);
        for tid in &tids {
            if let Some((holder, lives)) = holder(Pid(tid.0)) {
                taken.push((*tid, holder));
                all_live &= lives;
            }
        }
        if all_live || since.elapsed() > REAPING {
            return taken;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Who has an id, and whether that one lives.
fn holder(pid: Pid) -> Option<(Holder, bool)> {
    if let Some(stat) = task(pid) {
        let name = name(&stat);
        return Some(if has_ended(&stat) {
            let parent = task(stat.ppid).map(|parent| self::name(&parent)).unwrap_or_default();
            (Holder::Zombie { name, parent: (stat.ppid, parent) }, false)
        } else {
            (Holder::Alive(name), true)
        });
    }
    if !is_group(pid) {
        return None;
    }
    let in_it = |stat: &Stat| stat.pgrp == pid || stat.session == pid;
    let members: Vec<(Pid, Stat)> =
        processes().into_iter().filter_map(|pid| Some((pid, task(pid)?))).filter(|(_, stat)| in_it(stat)).collect();
    let lives = members.iter().any(|(_, stat)| !has_ended(stat));
    Some((Holder::Group(members.iter().map(|(pid, stat)| (*pid, name(stat))).collect()), lives))
}

/// Whether somebody is in a group, even one whom this user may send no signal (EPERM).
fn is_group(pid: Pid) -> bool {
    killpg(nix::unistd::Pid::from_raw(pid.0), None) != Err(Errno::ESRCH)
}

fn task(pid: Pid) -> Option<Stat> {
    stat::read(&TaskDir::process(pid).ok()?, &mut Vec::new()).ok()
}

/// A process whose main thread alone has ended lives on in the others.
fn has_ended(stat: &Stat) -> bool {
    matches!(stat.state, b'Z' | b'X') && stat.threads <= 1
}

fn name(stat: &Stat) -> String {
    String::from_utf8_lossy(&stat.comm).into_owned()
}
