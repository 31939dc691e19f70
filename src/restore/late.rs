//! Descriptions that can be had only once the tasks of the image exist: files of `/proc/PID`, pidfds, and `/dev/tty`. One process opens each and hands it
//! to the others that have it, by a pair of sockets that all inherit. Those that are only on their way through sockets are opened by `snap` (`restore/loose.rs`). Pure.

use super::lookup;
use super::process::Descriptors;
use super::script::{Label, List, Script};
use crate::image::model::Snapshot;
use crate::image::model::address::Addr;
use crate::image::model::event::Pidfd;
use crate::image::model::file::{Description, FdEntry, FdTable, OpenObject};
use crate::image::model::id::{DescriptionId, FdTableId, TerminalId, Tid};
use crate::image::model::process::FsContext;
use std::collections::{BTreeMap, HashSet};

/// PIDFD_NONBLOCK and PIDFD_THREAD.
pub const PIDFD_FLAGS: u32 = (libc::O_NONBLOCK | libc::O_EXCL) as u32;

/// Where such a description comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late<'a> {
    /// This path below `/proc`.
    File(&'a [u8]),
    /// `/dev/tty`, opened by somebody who has this terminal.
    OwnTerminal(TerminalId),
    /// pidfd_open(2) of this task.
    Pidfd(Tid),
}

/// Whether a description is one, and of what.
#[must_use]
pub fn late<'a>(snapshot: &'a Snapshot, object: &OpenObject) -> Option<Late<'a>> {
    match object {
        OpenObject::Pidfd(Pidfd::Task(tid)) => Some(Late::Pidfd(*tid)),
        OpenObject::OwnTerminal(id) => has_user(snapshot, *id).then_some(Late::OwnTerminal(*id)),
        other => lookup::task_file(snapshot, other).map(Late::File),
    }
}

fn has_user(snapshot: &Snapshot, id: TerminalId) -> bool {
    let descriptions = snapshot.descriptions.iter();
    let own = |description: &&Description| description.object == OpenObject::OwnTerminal(id);
    let held = |table: &FdTable, wanted: DescriptionId| table.entries.iter().any(|entry| entry.description == wanted);
    // All of them, or none: /dev/tty stands for what its opener has.
    descriptions.filter(own).all(|description| {
        snapshot.fd_tables.iter().any(|table| uses(snapshot, table.id, id) && held(table, description.id))
    })
}

/// Whether the process that makes this table has this terminal. Whoever shares a table comes after its maker.
fn uses(snapshot: &Snapshot, table: FdTableId, id: TerminalId) -> bool {
    let maker = snapshot.processes.iter().find(|process| process.threads[0].fd_table == table);
    maker.and_then(|maker| maker.controlling).is_some_and(|controlling| controlling.terminal == Some(id))
}

/// The tables that have each of them: the first opens it. None has what is on its way through a socket alone.
#[must_use]
pub fn holders(snapshot: &Snapshot) -> BTreeMap<DescriptionId, Vec<FdTableId>> {
    let mut holders: BTreeMap<DescriptionId, Vec<FdTableId>> = BTreeMap::new();
    for table in &snapshot.fd_tables {
        for entry in &table.entries {
            if late(snapshot, &snapshot.descriptions[entry.description.0 as usize].object).is_some() {
                let tables = holders.entry(entry.description).or_default();
                if tables.last() != Some(&table.id) {
                    tables.push(table.id);
                }
            }
        }
    }
    for id in lookup::on_their_way(snapshot) {
        if late(snapshot, &snapshot.descriptions[id.0 as usize].object).is_some() {
            holders.entry(id).or_default();
        }
    }
    for (id, tables) in &mut holders {
        if let OpenObject::OwnTerminal(terminal) = snapshot.descriptions[id.0 as usize].object {
            // One that can open it comes first.
            tables.sort_by_key(|table| !uses(snapshot, *table, terminal));
        }
    }
    holders
}

/// Opens those that a table is the first to have, hands them on, and takes the others.
pub fn open(list: &mut List, script: &mut Script, snapshot: &Snapshot, table: &FdTable, descriptors: &Descriptors) {
    let mut maker = Maker { list, script, snapshot, descriptors, done: HashSet::new() };
    let is_first = |entry: &&FdEntry| descriptors.late.get(&entry.description).is_some_and(|all| all[0] == table.id);
    let late = || table.entries.iter().filter(|entry| descriptors.late.contains_key(&entry.description));
    // All that others wait for comes before the first wait.
    late().filter(is_first).for_each(|entry| maker.entry(table, entry, true));
    late().filter(|entry| !is_first(entry)).for_each(|entry| maker.entry(table, entry, false));
    for number in descriptors.handovers.values().flatten() {
        list.call("closing a hand-over", libc::SYS_close, &[*number as u64]);
    }
    for number in descriptors.proc.into_iter().chain(descriptors.root) {
        list.call("closing /proc or the root directory of snap", libc::SYS_close, &[number as u64]);
    }
}

/// Enters a working directory that belongs to a task of the image.
pub fn enter(list: &mut List, script: &mut Script, snapshot: &Snapshot, context: &FsContext, proc: i32) {
    let Some(path) = lookup::task_path(snapshot, context.cwd) else { return };
    let label = Label::Owned(format!("opening /proc/{}", String::from_utf8_lossy(path)));
    let (path, opened) = (script.place_string(path), script.place_words(&[0]));
    let flags = (libc::O_DIRECTORY | libc::O_PATH) as u64;
    list.call_stored(label, libc::SYS_openat, &[proc as u64, path.0, flags], opened);
    list.call_indirect("entering the working directory", libc::SYS_fchdir, &[opened.0], 1);
    list.call_indirect("closing the working directory", libc::SYS_close, &[opened.0], 1);
}

struct Maker<'a, 's> {
    list: &'a mut List,
    script: &'a mut Script,
    snapshot: &'s Snapshot,
    descriptors: &'s Descriptors,
    done: HashSet<DescriptionId>,
}

impl Maker<'_, '_> {
    fn entry(&mut self, table: &FdTable, entry: &FdEntry, opens: bool) {
        let id = entry.description;
        let number = entry.fd.0 as u64;
        let label = |text| Label::Number(text, i64::from(entry.fd.0));
        let flags = if entry.close_on_exec { libc::O_CLOEXEC } else { 0 } as u64;
        if !self.done.insert(id) {
            let first = table.entries.iter().find(|other| other.description == id).map_or(-1, |first| first.fd.0);
            let args = [first as u64, number, flags];
            self.list.call(label("placing descriptor"), libc::SYS_dup3, &args);
            return;
        }
        // Taken, so that it is not opened under this very number, from which dup3(2) cannot move it there.
        let taken = self.descriptors.report as u64;
        self.list.call(label("reserving descriptor"), libc::SYS_dup3, &[taken, number, 0]);
        let description = &self.snapshot.descriptions[id.0 as usize];
        let opened = if opens { self.open(description) } else { self.take(id) };
        self.list.call_indirect(label("placing descriptor"), libc::SYS_dup3, &[opened.0, number, flags], 1);
        self.list.call_indirect("closing its other number", libc::SYS_close, &[opened.0], 1);
        if opens {
            let others = self.descriptors.late.get(&id).map_or(0, |tables| tables.len() - 1);
            (0..others).for_each(|_| self.hand_on(id, entry.fd.0));
        }
    }

    /// Opens it and returns where its number is stored.
    fn open(&mut self, description: &Description) -> Addr {
        let opened = self.script.place_words(&[0]);
        match late(self.snapshot, &description.object) {
            Some(Late::File(path)) => {
                let label = Label::Owned(format!("opening /proc/{}", String::from_utf8_lossy(path)));
                let proc = self.descriptors.proc.unwrap_or(-1) as u64;
                let path = self.script.place_string(path);
                let args = [proc, path.0, u64::from(description.flags)];
                self.list.call_stored(label, libc::SYS_openat, &args, opened);
            }
            Some(Late::OwnTerminal(_)) => {
                let root = self.descriptors.root.unwrap_or(-1) as u64;
                let path = self.script.place_string(b"dev/tty");
                let flags = u64::from(description.flags) | libc::O_NOCTTY as u64;
                self.list.call_stored("opening /dev/tty", libc::SYS_openat, &[root, path.0, flags], opened);
            }
            Some(Late::Pidfd(tid)) => {
                let flags = u64::from(description.flags & PIDFD_FLAGS);
                let label = Label::Number("opening a pidfd of", i64::from(tid.0));
                self.list.call_stored(label, libc::SYS_pidfd_open, &[tid.0 as u64, flags], opened);
            }
            None => {}
        }
        opened
    }

    /// `struct msghdr` with room for one descriptor, and where that is: a `struct cmsghdr` and the number.
    fn message(&mut self, number: i32) -> (Addr, Addr) {
        const LENGTH: u64 = 20;
        const SPACE: u64 = 24;
        let kind = (libc::SOL_SOCKET as u64) | (libc::SCM_RIGHTS as u64) << 32;
        let control = self.script.place_words(&[LENGTH, kind, u64::from(number.cast_unsigned())]);
        let byte = self.script.place(&[1]);
        let vector = self.script.place_words(&[byte.0, 1]);
        (self.script.place_words(&[0, 0, vector.0, 1, control.0, SPACE, 0]), control.add(16))
    }

    fn hand_on(&mut self, id: DescriptionId, number: i32) {
        let Some([from, _]) = self.descriptors.handovers.get(&id) else { return };
        let (message, _) = self.message(number);
        let label = Label::Number("handing on descriptor", i64::from(number));
        self.list.call_equals(label, libc::SYS_sendmsg, &[*from as u64, message.0, 0], 1);
    }

    fn take(&mut self, id: DescriptionId) -> Addr {
        let to = self.descriptors.handovers.get(&id).map_or(-1, |[_, to]| *to);
        let (message, number) = self.message(0);
        let label = Label::Number("taking open file", i64::from(id.0));
        let args = [to as u64, message.0, libc::MSG_CMSG_CLOEXEC as u64];
        self.list.call_equals(label, libc::SYS_recvmsg, &args, 1);
        number
    }
}
