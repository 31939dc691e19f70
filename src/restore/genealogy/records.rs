//! What is known of beings while it is found out who makes them, and their order in the end.

use super::super::Choices;
use super::super::check::blocker;
use super::super::lookup::stays_in_session;
use super::shares::{Held, Shares};
use super::{Adoption, Being, Birth, Genealogy, Group, Moment};
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::id::{MmId, Pid};
use crate::image::model::process::{Process, Zombie};
use std::collections::HashMap;

/// What is known of a being before its place in the order is.
pub(super) struct Record {
    pub being: Being,
    pub pid: Pid,
    pub sid: Pid,
    pub pgid: Pid,
    /// The session in which it has to be born; `None` for a leader that may be born in any.
    pub born_in: Option<Pid>,
    /// Whether it is made by its parent before that has its own session.
    pub before_session: bool,
    pub parent: Option<usize>,
    pub maker: Option<usize>,
    /// Whether its maker is known.
    pub is_placed: bool,
    pub is_adopted: bool,
    pub moment: Moment,
    pub exit_signal: i32,
    pub shares: Shares,
    pub group: Group,
}

impl Record {
    fn new(being: Being, pid: Pid, sid: Pid, pgid: Pid, parent: Option<usize>, exit_signal: i32) -> Self {
        Self {
            being,
            pid,
            sid,
            pgid,
            born_in: (sid != pid).then_some(sid),
            before_session: false,
            parent,
            maker: parent,
            is_placed: false,
            is_adopted: false,
            moment: Moment::Early,
            exit_signal,
            shares: Shares::default(),
            group: Group::Born,
        }
    }

    /// Whether it leads a session.
    pub fn leads(&self) -> bool {
        self.sid == self.pid
    }

    /// Whether it lives for long enough to make others.
    pub fn makes(&self) -> bool {
        matches!(self.being, Being::Process(_) | Being::StandIn)
    }
}

pub(super) struct Records<'a> {
    pub snapshot: &'a Snapshot,
    /// The session in which `snap` makes the root, by the id that it had at the dump; `None` where the root makes one.
    pub outer: Option<Pid>,
    pub all: Vec<Record>,
    pub by_pid: HashMap<Pid, usize>,
    /// What those have whose maker is known.
    pub held: Held,
    pub blockers: Vec<Blocker>,
}

impl<'a> Records<'a> {
    pub fn new(snapshot: &'a Snapshot, choices: &Choices<'_>) -> Self {
        let root = &snapshot.processes[0];
        let outer = (root.sid != root.pid || stays_in_session(snapshot, choices)).then_some(root.sid);
        let (held, blockers) = (Held::default(), Vec::new());
        let mut records = Self { snapshot, outer, all: Vec::new(), by_pid: HashMap::new(), held, blockers };
        for (index, process) in snapshot.processes.iter().enumerate() {
            let Process { pid, sid, pgid, ppid, exit_signal, .. } = *process;
            let parent = if index == 0 { None } else { records.by_pid.get(&ppid).copied() };
            records.add(Record::new(Being::Process(index), pid, sid, pgid, parent, exit_signal));
        }
        for (index, zombie) in snapshot.zombies.iter().enumerate() {
            let Zombie { pid, sid, pgid, ppid, exit_signal, .. } = *zombie;
            let parent = records.by_pid.get(&ppid).copied();
            records.add(Record::new(Being::Zombie(index), pid, sid, pgid, parent, exit_signal));
        }
        records
    }

    fn add(&mut self, record: Record) -> usize {
        let index = self.all.len();
        if record.being != Being::Midwife {
            self.by_pid.insert(record.pid, index);
        }
        self.all.push(record);
        index
    }

    /// The process of the image that a being is.
    pub fn process(&self, index: usize) -> Option<&'a Process> {
        match self.all[index].being {
            Being::Process(process) => Some(&self.snapshot.processes[process]),
            Being::Zombie(_) | Being::StandIn | Being::Midwife => None,
        }
    }

    pub fn block(&mut self, index: usize, object: String, reason: String) {
        self.blockers.push(blocker(self.all[index].pid, object, reason, "no option; not supported"));
    }

    /// A child of `parent` that has the id of a dead leader; its maker is known.
    pub fn stand_in(&mut self, pid: Pid, sid: Pid, parent: usize, exit_signal: i32) -> usize {
        let record = Record::new(Being::StandIn, pid, sid, pid, Some(parent), exit_signal);
        self.add(Record { is_placed: true, group: Group::Own, ..record })
    }

    /// A child of `maker` through which another is adopted.
    pub fn midwife(&mut self, maker: usize, shares: Shares) -> usize {
        let Record { sid, pgid, .. } = self.all[maker];
        let record = Record::new(Being::Midwife, Pid(0), sid, pgid, Some(maker), 0);
        self.add(Record { is_placed: true, moment: Moment::Late, shares, ..record })
    }

    /// The address space that a process has pages of, if it shares pages copy-on-write.
    pub fn inherits_from(&self, index: usize) -> Option<MmId> {
        let process = self.process(index)?;
        self.snapshot.mms[process.mm.0 as usize].inherited.as_ref().map(|inherited| inherited.from)
    }

    /// Puts makers before those whom they make.
    pub fn order(self) -> Genealogy {
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
            adoptions: Vec::new(),
            threads: Vec::new(),
        };
        for &index in &order {
            let birth = self.birth(&self.all[index], &place, &genealogy.births);
            genealogy.births.push(birth);
        }
        genealogy.take_turns();
        genealogy
    }

    fn birth(&self, record: &Record, place: &[usize], before: &[Birth]) -> Birth {
        let maker = record.maker.map(|maker| place[maker]);
        let parent = record.parent.map(|parent| place[parent]);
        // A midwife has the memory of whoever has made her.
        let in_memory_of = |at: usize| match before[at].being {
            Being::Process(process) => Some(process),
            Being::Midwife => before[at].memory_of,
            Being::Zombie(_) | Being::StandIn => None,
        };
        let is_late = matches!(record.moment, Moment::Filled | Moment::Late);
        let memory_of = maker.filter(|_| is_late).and_then(in_memory_of);
        let wave_of = |at: Option<usize>| at.map_or(0, |at| before[at].wave);
        let wave = if record.is_adopted && !record.shares.memory {
            wave_of(maker).max(wave_of(parent)) + 1
        } else {
            let inherits = record.moment == Moment::Filled && !record.shares.memory;
            wave_of(maker) + usize::from(inherits)
        };
        Birth {
            being: record.being,
            pid: record.pid,
            maker,
            parent,
            moment: record.moment,
            exit_signal: record.exit_signal,
            leads_session: record.leads() && self.outer != Some(record.sid),
            group: record.group,
            shares: record.shares,
            wave,
            memory_of,
            // Until its turn is known.
            adoption: record.is_adopted.then_some(0),
        }
    }
}

impl Genealogy {
    /// Orders adoptions by the waves of those adopted: whoever is of a later wave may have to wait until an earlier one is whole.
    fn take_turns(&mut self) {
        let adopted = |(_, birth): &(usize, &Birth)| birth.adoption.is_some();
        let mut children: Vec<usize> = self.births.iter().enumerate().filter(adopted).map(|(at, _)| at).collect();
        children.sort_by_key(|at| (self.births[*at].wave, *at));
        for child in children {
            let birth = &mut self.births[child];
            birth.adoption = Some(self.adoptions.len());
            let (Some(midwife), Some(parent)) = (birth.maker, birth.parent) else { continue };
            let Some(maker) = self.births[midwife].maker else { continue };
            self.adoptions.push(Adoption { child, midwife, maker, parent });
        }
    }
}
