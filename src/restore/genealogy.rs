//! Who makes whom, and when: parents, sessions and process groups of the image, brought about by clone3(2), setsid(2) and setpgid(2) alone. Pure.
//!
//! A process is made by its parent, in the session that it belongs to. Where that session is led by somebody else than an
//! ancestor, a member of it that has the same parent makes it (CLONE_PARENT). A leader that is dead is stood in for by a
//! process with its id, which ends before anything runs.

use super::Choices;
use super::check::{blocker, stays_in_session};
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::id::{MmId, Pid};
use std::collections::{HashMap, HashSet};

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Being {
    /// A process, by its place in the image.
    Process(usize),
    /// A child that was not reaped, by its place in the image.
    Zombie(usize),
    /// Somebody with the id of a dead leader.
    StandIn,
}

/// When in its maker's life something is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the maker has its own session.
    BeforeSession,
    /// Afterwards, while the maker's memory is still that in which it was born.
    Early,
    /// Once the maker's pages are there, which are inherited.
    Filled,
}

/// Its process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// That in which it was born.
    Born,
    /// One of its own, which it leads or makes for others.
    Own,
    /// That of another.
    Of(Pid),
    /// It makes one for others and then joins another.
    Left(Pid),
}

/// What a process shares with its maker, by the flags of clone(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// CLONE_VM.
    pub memory: bool,
    /// CLONE_FILES.
    pub files: bool,
    /// CLONE_FS.
    pub directories: bool,
}

/// One being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// What it is.
    pub being: Being,
    /// Its id.
    pub pid: Pid,
    /// Who makes it; `None` for the root.
    pub maker: Option<usize>,
    /// Whose child it is; `None` for the root.
    pub parent: Option<usize>,
    /// When.
    pub moment: Moment,
    /// Signal that its parent gets when it ends.
    pub exit_signal: i32,
    /// Whether it makes a session.
    pub leads_session: bool,
    /// Its group.
    pub group: Group,
    /// What it shares with its maker.
    pub shares: Shares,
    /// How many times memory has to be filled before it is born; for one that shares its maker's, as for that.
    pub wave: usize,
}

impl Birth {
    /// Whether its maker makes it as a brother (CLONE_PARENT).
    #[must_use]
    pub fn is_sibling(&self) -> bool {
        self.maker != self.parent
    }
}

/// All beings; whoever makes another stands before it, the root first.
#[derive(Clone, Debug, Default)]
pub struct Genealogy {
    /// In the order of their making.
    pub births: Vec<Birth>,
    /// Those made by each, in order.
    pub made: Vec<Vec<usize>>,
    /// The birth of each process of the image.
    pub of_process: Vec<usize>,
}

impl Genealogy {
    /// How many times memory has to be filled.
    #[must_use]
    pub fn waves(&self) -> usize {
        self.births.iter().map(|birth| birth.wave + 1).max().unwrap_or(0)
    }
}

/// Finds out.
///
/// # Errors
/// Relations that cannot be brought about.
pub fn genealogy(snapshot: &Snapshot, choices: &Choices<'_>) -> Result<Genealogy, Vec<Blocker>> {
    let mut records = Records::new(snapshot, choices);
    records.sessions();
    records.shares();
    records.groups();
    if records.blockers.is_empty() { Ok(records.order()) } else { Err(records.blockers) }
}

/// What is known of a being before its place in the order is.
struct Record {
    being: Being,
    pid: Pid,
    sid: Pid,
    pgid: Pid,
    parent: Option<usize>,
    maker: Option<usize>,
    moment: Moment,
    exit_signal: i32,
    mm: Option<MmId>,
    inherits: Option<MmId>,
    shares: Shares,
    group: Group,
}

struct Records<'a> {
    snapshot: &'a Snapshot,
    /// The session in which `snap` makes the root, by the id that it had at the dump; `None` where the root makes one.
    outer: Option<Pid>,
    all: Vec<Record>,
    by_pid: HashMap<Pid, usize>,
    blockers: Vec<Blocker>,
}

impl<'a> Records<'a> {
    fn new(snapshot: &'a Snapshot, choices: &Choices<'_>) -> Self {
        let root = &snapshot.processes[0];
        let outer = (root.sid != root.pid || stays_in_session(snapshot, choices)).then_some(root.sid);
        let mut records = Self { snapshot, outer, all: Vec::new(), by_pid: HashMap::new(), blockers: Vec::new() };
        for (index, process) in snapshot.processes.iter().enumerate() {
            let parent = if index == 0 { None } else { records.by_pid.get(&process.ppid).copied() };
            let inherited = snapshot.mms[process.mm.0 as usize].inherited.as_ref();
            records.add(Record {
                being: Being::Process(index),
                pid: process.pid,
                sid: process.sid,
                pgid: process.pgid,
                parent,
                maker: parent,
                moment: Moment::Early,
                exit_signal: process.exit_signal,
                mm: Some(process.mm),
                inherits: inherited.map(|inherited| inherited.from),
                shares: Shares::default(),
                group: Group::Born,
            });
        }
        for (index, zombie) in snapshot.zombies.iter().enumerate() {
            let parent = records.by_pid.get(&zombie.ppid).copied();
            records.add(Record {
                being: Being::Zombie(index),
                pid: zombie.pid,
                sid: zombie.sid,
                pgid: zombie.pgid,
                parent,
                maker: parent,
                moment: Moment::Early,
                exit_signal: zombie.exit_signal,
                mm: None,
                inherits: None,
                shares: Shares::default(),
                group: Group::Born,
            });
        }
        records
    }

    fn add(&mut self, record: Record) -> usize {
        let index = self.all.len();
        self.by_pid.insert(record.pid, index);
        self.all.push(record);
        index
    }

    fn block(&mut self, index: usize, object: String, reason: String) {
        self.blockers.push(blocker(self.all[index].pid, object, reason, "no option; not supported yet"));
    }

    /// Gives each a maker that is in its session.
    fn sessions(&mut self) {
        // Members by session and parent: who can make a sibling there.
        let mut members: HashMap<(Pid, usize), usize> = HashMap::new();
        for (index, record) in self.all.iter().enumerate() {
            let Some(parent) = record.parent else { continue };
            let leads = record.sid == record.pid;
            if leads || record.sid == self.all[parent].sid {
                let known = members.entry((record.sid, parent)).or_insert(index);
                if leads {
                    *known = index;
                }
            }
        }
        for index in 1..self.all.len() {
            let Record { sid, pid, parent: Some(parent), .. } = self.all[index] else { continue };
            let above = &self.all[parent];
            if sid == pid || sid == above.sid {
                self.remember_inheritance(index, parent);
            } else if above.sid == above.pid && self.born_in(parent) == Some(sid) {
                self.all[index].moment = Moment::BeforeSession;
            } else if let Some(&member) = members.get(&(sid, parent)) {
                self.make_sibling(index, member);
            } else if self.by_pid.contains_key(&sid) {
                let reason = format!("session {sid} is led by a process of which it is no descendant");
                self.block(index, format!("session {sid}"), reason);
            } else {
                let stand_in = self.stand_in(sid, sid, parent, self.all[index].exit_signal);
                members.insert((sid, parent), stand_in);
                self.make_sibling(index, stand_in);
            }
        }
    }

    /// A child that shares pages with its parent is made when these are there.
    fn remember_inheritance(&mut self, index: usize, parent: usize) {
        let record = &self.all[index];
        if record.inherits.is_some() && record.inherits == self.all[parent].mm {
            self.all[index].moment = Moment::Filled;
        }
    }

    /// The session in which a leader was born, if it is known.
    fn born_in(&self, leader: usize) -> Option<Pid> {
        match self.all[leader].maker {
            Some(maker) => Some(self.all[maker].sid),
            None => self.outer,
        }
    }

    fn make_sibling(&mut self, index: usize, member: usize) {
        if self.all[member].exit_signal == self.all[index].exit_signal {
            self.all[index].maker = Some(member);
        } else {
            let sid = self.all[index].sid;
            let reason = "it tells its parent of its end by another signal than its session's leader".to_owned();
            self.block(index, format!("session {sid}"), reason);
        }
    }

    fn stand_in(&mut self, pid: Pid, sid: Pid, parent: usize, exit_signal: i32) -> usize {
        self.add(Record {
            being: Being::StandIn,
            pid,
            sid,
            pgid: pid,
            parent: Some(parent),
            maker: Some(parent),
            moment: Moment::Early,
            exit_signal,
            mm: None,
            inherits: None,
            shares: Shares::default(),
            group: Group::Own,
        })
    }

    /// Finds what each process has in common with its maker. In common with anybody else it can have nothing.
    fn shares(&mut self) {
        let process = |record: &Record| match record.being {
            Being::Process(index) => Some(&self.snapshot.processes[index]),
            Being::Zombie(_) | Being::StandIn => None,
        };
        let (mut mms, mut tables, mut contexts) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut found = Vec::new();
        for (index, record) in self.all.iter().enumerate() {
            let Some(own) = process(record) else { continue };
            let maker = record.maker.and_then(|maker| process(&self.all[maker]));
            let (thread, above) = (&own.threads[0], maker.map(|maker| &maker.threads[0]));
            let shares = Shares {
                memory: maker.is_some_and(|maker| maker.mm == own.mm),
                files: above.is_some_and(|above| above.fd_table == thread.fd_table),
                directories: above.is_some_and(|above| above.fs == thread.fs),
            };
            let known = [
                ("address space", !mms.insert(own.mm) && !shares.memory),
                ("table of descriptors", !tables.insert(thread.fd_table) && !shares.files),
                ("working directory", !contexts.insert(thread.fs) && !shares.directories),
            ];
            found.push((index, shares, known.into_iter().find(|(_, strange)| *strange).map(|(object, _)| object)));
        }
        for (index, shares, strange) in found {
            self.all[index].shares = shares;
            if shares.memory {
                self.all[index].moment = Moment::Filled;
            }
            if let Some(object) = strange {
                let reason = "it shares it with a process that is not its parent".to_owned();
                self.block(index, object.to_owned(), reason);
            }
        }
    }

    /// Finds who makes each group.
    fn groups(&mut self) {
        let outer_group = self.snapshot.processes[0].pgid;
        for index in 0..self.all.len() {
            let Record { pid, pgid, sid, .. } = self.all[index];
            let is_outer = self.outer == Some(sid) && pgid == outer_group && !self.by_pid.contains_key(&pgid);
            if pgid == pid {
                self.all[index].group = Group::Own;
            } else if (pgid == sid && self.outer != Some(sid)) || is_outer {
                // That of its session's leader, or that of `snap`.
            } else {
                self.join(index, pgid, sid);
            }
        }
    }

    fn join(&mut self, index: usize, pgid: Pid, sid: Pid) {
        match self.by_pid.get(&pgid).copied() {
            Some(leader) if self.all[leader].sid == sid => {
                let Record { pid, pgid: now, group, .. } = &mut self.all[leader];
                if pid != now {
                    *group = Group::Left(*now);
                }
            }
            Some(_) => {
                let reason = format!("the process with the id of its group {pgid} is in another session");
                return self.block(index, format!("process group {pgid}"), reason);
            }
            None => {
                // Somebody who is in that session, to be its parent.
                let in_session = |other: &usize| self.all[*other].sid == sid;
                let alive = |other: &usize| matches!(self.all[*other].being, Being::Process(_));
                let leader = self.by_pid.get(&sid).copied().filter(alive);
                let parent = self.all[index].parent.filter(in_session).filter(alive);
                let itself = Some(index).filter(alive);
                let Some(parent) = leader.or(parent).or(itself) else {
                    let reason = format!("nobody is left to make its group {pgid} again");
                    return self.block(index, format!("process group {pgid}"), reason);
                };
                self.stand_in(pgid, sid, parent, libc::SIGCHLD);
            }
        }
        let Record { pid, group, .. } = &mut self.all[index];
        *group = match group {
            Group::Left(_) => Group::Left(pgid),
            Group::Born | Group::Own | Group::Of(_) => {
                debug_assert_ne!(*pid, pgid);
                Group::Of(pgid)
            }
        };
    }

    /// Puts makers before those whom they make.
    fn order(self) -> Genealogy {
        let mut made: Vec<Vec<usize>> = vec![Vec::new(); self.all.len()];
        for (index, record) in self.all.iter().enumerate() {
            if let Some(maker) = record.maker {
                made[maker].push(index);
            }
        }
        let mut order = vec![0];
        let mut at = 0;
        while let Some(&index) = order.get(at) {
            order.extend(&made[index]);
            at += 1;
        }
        let mut place = vec![0; self.all.len()];
        order.iter().enumerate().for_each(|(at, &index)| place[index] = at);
        let mut genealogy = Genealogy {
            births: Vec::with_capacity(order.len()),
            made: order.iter().map(|&index| made[index].iter().map(|&other| place[other]).collect()).collect(),
            of_process: (0..self.snapshot.processes.len()).map(|index| place[index]).collect(),
        };
        for &index in &order {
            let record = &self.all[index];
            let maker = record.maker.map(|maker| place[maker]);
            let inherits = record.moment == Moment::Filled && !record.shares.memory;
            let wave = maker.map_or(0, |maker| genealogy.births[maker].wave + usize::from(inherits));
            genealogy.births.push(Birth {
                being: record.being,
                pid: record.pid,
                maker,
                parent: record.parent.map(|parent| place[parent]),
                moment: record.moment,
                exit_signal: record.exit_signal,
                leads_session: record.sid == record.pid && self.outer != Some(record.sid),
                group: record.group,
                shares: record.shares,
                wave,
            });
        }
        genealogy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::id::{FdTableId, FsId};
    use crate::image::model::process::Process;
    use crate::image::tests::sample;
    use crate::restore::FilesPolicy;

    /// A tree of (pid, ppid, pgid, sid); the root first.
    fn tree(ids: &[[i32; 4]]) -> Snapshot {
        let mut snapshot = sample::bare(ids[0][0]);
        let process = |(index, [pid, ppid, pgid, sid]): (usize, &[i32; 4])| {
            let mut process: Process = sample::bare(*pid).processes.remove(0);
            let thread = &mut process.threads[0];
            let own = index as u32;
            (process.mm, thread.fd_table, thread.fs) = (MmId(own), FdTableId(own), FsId(own));
            (process.ppid, process.pgid, process.sid) = (Pid(*ppid), Pid(*pgid), Pid(*sid));
            process
        };
        snapshot.processes = ids.iter().enumerate().map(process).collect();
        snapshot.mms = vec![snapshot.mms[0].clone(); ids.len()];
        snapshot
    }

    /// Pid, pid of its maker, when, whether it leads a session, its group.
    type Told = (i32, Option<i32>, Moment, bool, Group);

    fn found(ids: &[[i32; 4]]) -> Result<Vec<Told>, Vec<Blocker>> {
        let choices = Choices { files: FilesPolicy::Check, ignore_changed: &[], inherit: &[], orphan: true };
        let genealogy = genealogy(&tree(ids), &choices)?;
        let pid = |at: usize| genealogy.births[at].pid.0;
        let tell = |birth: &Birth| (birth.pid.0, birth.maker.map(pid), birth.moment, birth.leads_session, birth.group);
        Ok(genealogy.births.iter().map(tell).collect())
    }

    #[test]
    fn a_shell_with_two_jobs() {
        let births = found(&[[10, 1, 10, 10], [11, 10, 11, 10], [12, 10, 12, 10], [13, 10, 12, 10]]).unwrap();
        let early = |pid, group| (pid, Some(10), Moment::Early, false, group);
        let expected = [
            (10, None, Moment::Early, true, Group::Own),
            early(11, Group::Own),
            early(12, Group::Own),
            early(13, Group::Of(Pid(12))),
        ];
        assert_eq!(births, expected);
    }

    #[test]
    fn a_daemon_whose_session_leader_is_dead_is_made_by_a_stand_in() {
        let births = found(&[[10, 1, 10, 10], [22, 10, 21, 21]]).unwrap();
        let expected = [
            (10, None, Moment::Early, true, Group::Own),
            (21, Some(10), Moment::Early, true, Group::Own),
            (22, Some(21), Moment::Early, false, Group::Born),
        ];
        assert_eq!(births, expected);
    }

    #[test]
    fn a_child_of_before_setsid_is_made_before_it() {
        let births = found(&[[10, 1, 10, 10], [11, 10, 11, 11], [12, 11, 10, 10]]).unwrap();
        assert_eq!(births[2], (12, Some(11), Moment::BeforeSession, false, Group::Born));
    }

    #[test]
    fn a_group_whose_leader_is_dead_gets_a_stand_in() {
        let births = found(&[[10, 1, 10, 10], [12, 10, 11, 10], [13, 10, 11, 10]]).unwrap();
        assert_eq!(births[3], (11, Some(10), Moment::Early, false, Group::Own));
        assert_eq!(births[1].4, Group::Of(Pid(11)));
        assert_eq!(births.len(), 4);
    }

    #[test]
    fn a_leader_that_has_left_its_group_makes_it_first() {
        let births = found(&[[10, 1, 10, 10], [11, 10, 12, 10], [12, 10, 12, 10], [13, 10, 11, 10]]).unwrap();
        assert_eq!(births[1].4, Group::Left(Pid(12)));
        assert_eq!(births[3].4, Group::Of(Pid(11)));
    }

    #[test]
    fn the_group_of_the_outside_is_that_of_snap() {
        let births = found(&[[10, 1, 5, 4], [11, 10, 5, 4], [12, 10, 12, 4]]).unwrap();
        let groups: Vec<Group> = births.iter().map(|birth| birth.4).collect();
        assert_eq!(groups, [Group::Born, Group::Born, Group::Own]);
        assert!(births.iter().all(|birth| !birth.3));
    }

    #[test]
    fn a_session_led_by_a_stranger_is_refused() {
        let blockers = found(&[[10, 1, 10, 10], [11, 10, 11, 10], [12, 11, 12, 12], [13, 10, 12, 12]]).unwrap_err();
        assert_eq!(blockers.len(), 1, "{blockers:?}");
    }
}
