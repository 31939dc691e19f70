//! The operations for event descriptors that must wait for the process: items of epoll instances, and timers. Pure.

use super::loose;
use super::script::{Label, List, Script};
use crate::image::model::Snapshot;
use crate::image::model::address::Addr;
use crate::image::model::event::{EpollItem, Timerfd};
use crate::image::model::file::{FdTable, OpenObject};
use crate::image::model::id::{DescriptionId, Fd, FdTableId};
use crate::sys::event::SET_TICKS;
use std::collections::{BTreeMap, HashMap, HashSet};

const ADD: u64 = libc::EPOLL_CTL_ADD as u64;

/// Which table adds which items: the first that has both the instance and what it watches. Instances of which no table has all are not among them
/// (`restore/loose.rs`). Items that have fired come first, for they are
/// made so by being waited for, which must not take what others report.
#[derive(Debug, Default)]
pub struct Watching {
    /// For each table, instances in order, each with its items that have fired and the others.
    by_table: HashMap<FdTableId, BTreeMap<DescriptionId, [Vec<EpollItem>; 2]>>,
    /// For each instance that tables take turns with: how many have fired items, and the word that counts those that are through.
    turns: HashMap<DescriptionId, (u32, Addr)>,
}

impl Watching {
    /// Shares the items out.
    pub fn plan(snapshot: &Snapshot, script: &mut Script) -> Self {
        let mut watching = Self::default();
        let mut tables: HashMap<DescriptionId, Vec<FdTableId>> = HashMap::new();
        for (table, entry) in snapshot.fd_tables.iter().flat_map(|table| table.entries.iter().map(|e| (table.id, e))) {
            tables.entry(entry.description).or_default().push(table);
        }
        let of_snap = loose::instances(snapshot);
        let of = |id| tables.get(&id).map_or(&[][..], Vec::as_slice);
        for description in &snapshot.descriptions {
            let OpenObject::Epoll(epoll) = &description.object else { continue };
            if of_snap.contains(&description.id) {
                continue;
            }
            let own: HashSet<&FdTableId> = of(description.id).iter().collect();
            let mut users = HashSet::new();
            for item in &epoll.items {
                let Some(table) = of(item.description).iter().find(|table| own.contains(table)) else { continue };
                users.insert(*table);
                let items = watching.by_table.entry(*table).or_default().entry(description.id).or_default();
                items[usize::from(!item.is_disarmed())].push(*item);
            }
            if users.len() > 1 {
                let fired = |table| !watching.by_table[table][&description.id][0].is_empty();
                let count = users.iter().filter(|table| fired(table)).count() as u32;
                watching.turns.insert(description.id, (count, script.place(&[0; 16])));
            }
        }
        watching
    }

    /// Adds the items that are a table's to add.
    pub fn watch(&self, list: &mut List, script: &mut Script, table: &FdTable) {
        let Some(instances) = self.by_table.get(&table.id) else { return };
        for (id, [fired, _]) in instances.iter().filter(|(_, [fired, _])| !fired.is_empty()) {
            let turn = self.turns.get(id);
            if let Some((_, word)) = turn {
                let before = self.by_table.iter().filter(|(other, _)| **other < table.id);
                let before = before.filter(|(_, all)| all.get(id).is_some_and(|[fired, _]| !fired.is_empty()));
                list.wait("waiting for its turn with an epoll instance", *word, before.count() as u32);
            }
            fired.iter().for_each(|item| Watcher { list, script, table, epoll: *id }.add(item));
            if let Some((_, word)) = turn {
                list.arrive("passing on an epoll instance", *word);
            }
        }
        for (id, [_, others]) in instances {
            if let Some((count, word)) = self.turns.get(id) {
                list.wait("waiting for others with an epoll instance", *word, *count);
            }
            others.iter().for_each(|item| Watcher { list, script, table, epoll: *id }.add(item));
        }
    }
}

struct Watcher<'a> {
    list: &'a mut List,
    script: &'a mut Script,
    table: &'a FdTable,
    epoll: DescriptionId,
}

impl Watcher<'_> {
    fn number(&self, id: DescriptionId) -> u64 {
        self.table.entries.iter().find(|entry| entry.description == id).map_or(-1, |entry| entry.fd.0) as u64
    }

    /// Under the number with which it was added, which the file is given for a moment where it has another by now.
    fn add(&mut self, item: &EpollItem) {
        let now = self.table.entries.iter().find(|entry| entry.fd == item.fd);
        let number = item.fd.0 as u64;
        let label = |text| Label::Number(text, i64::from(item.fd.0));
        if now.is_some_and(|now| now.description == item.description) {
            self.add_here(item);
            return;
        }
        let kept = self.script.place_words(&[0]);
        if now.is_some() {
            let args = [number, libc::F_DUPFD_CLOEXEC as u64, 0];
            self.list.call_stored(label("keeping descriptor"), libc::SYS_fcntl, &args, kept);
        }
        let args = [self.number(item.description), number, libc::O_CLOEXEC as u64];
        self.list.call(label("placing what is watched as descriptor"), libc::SYS_dup3, &args);
        self.add_here(item);
        match now {
            None => self.list.call(label("closing descriptor"), libc::SYS_close, &[number]),
            Some(now) => {
                let flags = if now.close_on_exec { libc::O_CLOEXEC } else { 0 } as u64;
                self.list.call_indirect(label("putting back descriptor"), libc::SYS_dup3, &[kept.0, number, flags], 1);
                self.list.call_indirect("closing its other number", libc::SYS_close, &[kept.0], 1);
            }
        }
    }

    fn add_here(&mut self, item: &EpollItem) {
        let Fd(fd) = item.fd;
        let epoll = self.number(self.epoll);
        let label = Label::Number("watching descriptor", i64::from(fd));
        if !item.is_disarmed() {
            let event = self.event(item.events, item.data);
            self.list.call(label, libc::SYS_epoll_ctl, &[epoll, ADD, fd as u64, event.0]);
            return;
        }
        // EPOLL_CTL_ADD and _MOD arm at least EPOLLERR and EPOLLHUP (fs/eventpoll.c, `do_epoll_ctl`); only an event disarms. Where the file
        // is ready for nothing at all, it stays armed for these two.
        let event = self.event(item.events | EpollItem::ANYTHING, item.data);
        self.list.call(label, libc::SYS_epoll_ctl, &[epoll, ADD, fd as u64, event.0]);
        let (out, operation) = (self.script.place(&[0; 16]), self.script.place_words(&[0]));
        let label = |text| Label::Number(text, i64::from(fd));
        let args = [epoll, out.0, 1, 0, 0, 8];
        self.list.call_stored(label("letting fire the watch of descriptor"), libc::SYS_epoll_pwait, &args, operation);
        // How many events there were, and three: EPOLL_CTL_MOD without one, and else no operation at all.
        for _ in 0..libc::EPOLL_CTL_MOD {
            self.list.arrive("counting", operation);
        }
        let event = self.event(item.events, item.data);
        let args = [epoll, operation.0, fd as u64, event.0];
        self.list.try_call_indirect(label("disarming the watch of descriptor"), libc::SYS_epoll_ctl, &args, 0b10);
    }

    /// `struct epoll_event`, which is packed on x86-64.
    fn event(&mut self, events: u32, data: u64) -> Addr {
        self.script.place(&[&events.to_le_bytes()[..], &data.to_le_bytes()[..]].concat())
    }
}

/// Arms timerfds, and gives them the expirations that nobody has read. What is `done` is shared with a process before it.
pub fn arm(list: &mut List, script: &mut Script, snapshot: &Snapshot, table: &FdTable, done: &mut [bool]) {
    const SECOND: u64 = 1_000_000_000;
    for entry in &table.entries {
        let index = entry.description.0 as usize;
        let OpenObject::Timerfd(timer) = &snapshot.descriptions[index].object else { continue };
        if std::mem::replace(&mut done[index], true) {
            continue;
        }
        let Timerfd { clock: _, settime, value, interval, ticks } = *timer;
        let fd = entry.fd.0 as u64;
        let label = |text| Label::Number(text, i64::from(entry.fd.0));
        // One that was never armed has no flags; for the others they stay, armed or not.
        if value != 0 || interval != 0 || settime != 0 {
            let time = [interval / SECOND, interval % SECOND, value / SECOND, value % SECOND];
            let time = script.place_words(&time);
            let args = [fd, u64::from(settime), time.0, 0];
            list.call(label("arming timerfd"), libc::SYS_timerfd_settime, &args);
        }
        if ticks != 0 {
            let ticks = script.place_words(&[ticks]);
            list.call(label("expirations of timerfd"), libc::SYS_ioctl, &[fd, SET_TICKS, ticks.0]);
        }
    }
}
