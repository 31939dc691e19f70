//! Everything that stands in the way of a restore on this host, found before anything is touched. Pure.

use super::genealogy::{Being, Genealogy, genealogy};
use super::host::{Found, Holder, HostFacts};
use super::locks::{self, Foreign};
use super::sockets::taken::Taken;
use super::vdso::{self, Vdso};
use super::{Choices, FilesPolicy, late, memory, sysv};
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::address::PageRange;
use crate::image::model::file::{File, Link, OpenObject};
use crate::image::model::id::{DescriptionId, FileId, Pid, TerminalId};
use crate::image::model::memory::{Backing, SharedMemoryKind, VmaFlags};
use crate::image::model::process::Process;
use crate::image::model::socket::State;
use crate::resources::socket::datagram;
use crate::sys::sysv::Kind;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The highest id of a timer that is reached by making timers, where the kernel takes no wishes (before Linux 6.15).
const TIMERS_COUNTED: i32 = 100_000;

/// A blocker of a process.
#[must_use]
pub fn blocker(pid: Pid, object: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Blocker {
    Blocker { task: format!("pid {pid}"), object: object.into(), reason: reason.into(), remedy: remedy.into() }
}

/// The path by which a file is opened, if it has a name.
#[must_use]
pub fn name(file: &File) -> Option<&[u8]> {
    match &file.link {
        Link::Named => Some(&file.path),
        Link::OtherName(name) => Some(name),
        Link::Unlinked => None,
    }
}

/// The same as a path.
#[must_use]
pub fn path(file: &File) -> Option<&Path> {
    name(file).map(|name| Path::new(OsStr::from_bytes(name)))
}

/// The path below `/proc` of a file there that belongs to a task of the image.
#[must_use]
pub fn task_file<'a>(snapshot: &'a Snapshot, object: &OpenObject) -> Option<&'a [u8]> {
    let (OpenObject::Pseudo(file) | OpenObject::PathOnly(file)) = object else { return None };
    task_path(snapshot, *file)
}

/// The same of a file or directory, whatever it is to whom.
#[must_use]
pub fn task_path(snapshot: &Snapshot, file: FileId) -> Option<&[u8]> {
    let file = &snapshot.files[file.0 as usize];
    let path = file.path.strip_prefix(b"/proc/").filter(|_| file.link == Link::Named)?;
    let id: i32 = std::str::from_utf8(path.split(|byte| *byte == b'/').next()?).ok()?.parse().ok()?;
    let threads = snapshot.processes.iter().flat_map(|process| &process.threads).map(|thread| thread.tid.0);
    let mut ids = threads.chain(snapshot.processes.iter().map(|process| process.pid.0));
    ids.any(|known| known == id).then_some(path)
}

/// The descriptor of `snap` that stands in for something outside.
#[must_use]
pub fn inherited(choices: &Choices<'_>, id: &str) -> Option<i32> {
    choices.inherit.iter().find(|(_, name)| name == id).map(|(fd, _)| *fd)
}

/// The terminal that a session leader of the image has for its session, if that is in the image too.
#[must_use]
pub fn own_terminal(snapshot: &Snapshot, process: &Process) -> Option<TerminalId> {
    let id = process.controlling.filter(|_| process.sid == process.pid)?.terminal?;
    snapshot.terminals[id.0 as usize].inside.then_some(id)
}

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What the user should know.
    pub notices: Vec<String>,
    /// What stands in the way.
    pub blockers: Vec<Blocker>,
    /// Files to cut back to their size at the dump.
    pub cut_back: Vec<(PathBuf, u64)>,
    /// What becomes of the vdso, for each process.
    pub vdsos: Vec<Vdso>,
    /// Who makes whom.
    pub genealogy: Genealogy,
    /// System V objects that are replaced.
    pub replaced: Vec<(Kind, i32)>,
}

impl Findings {
    /// Where the vdso of this host is when a process of the image is born: where its maker has put it, or where `snap` has it.
    #[must_use]
    pub fn vdso_at_birth<'a>(&'a self, process: usize, facts: &'a HostFacts) -> &'a [PageRange] {
        let births = &self.genealogy.births;
        let mut at = self.genealogy.of_process[process];
        loop {
            let birth = &births[at];
            // One that shares memory finds it as whoever it shares it with did.
            match (birth.memory_of.filter(|_| !birth.shares.memory), birth.maker) {
                (Some(above), _) => return &self.vdsos[above].parts,
                (None, Some(maker)) => at = maker,
                (None, None) => return &facts.vdso,
            }
        }
    }
}

/// Notices and blockers.
#[must_use]
pub fn check(snapshot: &Snapshot, facts: &HostFacts, choices: &Choices<'_>) -> Findings {
    let mut checker = Checker { snapshot, facts, choices, findings: Findings::default() };
    let root = &snapshot.processes[0];
    match genealogy(snapshot, choices) {
        Ok(found) => checker.findings.genealogy = found,
        Err(blockers) => {
            return Findings { blockers, ..Findings::default() };
        }
    }
    checker.ids(root);
    checker.events(root);
    for process in &snapshot.processes {
        checker.sharing(process);
        checker.cpu(process);
        checker.privileges(process);
    }
    checker.address_spaces();
    checker.files(root);
    checker.externals(root);
    checker.addresses();
    checker.late_on_their_way(root);
    let sysv::Planned { replaced, notices, blockers } = sysv::check(snapshot, facts, choices);
    checker.findings.replaced = replaced;
    checker.findings.notices.extend(notices);
    checker.findings.blockers.extend(blockers);
    checker.findings
}

struct Checker<'a> {
    snapshot: &'a Snapshot,
    facts: &'a HostFacts,
    choices: &'a Choices<'a>,
    findings: Findings,
}

impl Checker<'_> {
    fn block(
        &mut self,
        process: &Process,
        object: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.blockers.push(blocker(process.pid, object, reason, remedy));
    }

    fn ids(&mut self, process: &Process) {
        for (tid, holder) in &self.facts.taken {
            let (reason, remedy) = taken(holder);
            self.block(
                process,
                format!("id {tid}"),
                reason,
                format!("{remedy}, or use --new-pid-namespace or --new-pids"),
            );
        }
        let stays = stays_in_session(self.snapshot, self.choices);
        if (process.sid != process.pid || stays) && process.sid.0 != self.facts.session {
            let notice = format!("pid {}: session {} is replaced by that of snap", process.pid, process.sid);
            self.findings.notices.push(notice);
        }
        if process.pgid != process.pid && process.sid != process.pid && process.pgid.0 != self.facts.group {
            let notice = format!("pid {}: process group {} is replaced by that of snap", process.pid, process.pgid);
            self.findings.notices.push(notice);
        }
    }

    fn sharing(&mut self, process: &Process) {
        if process.threads.iter().any(|thread| thread.scheduling.core_cookie != 0) {
            self.block(process, "core scheduling", "its cookie cannot be made again", "no option; not supported yet");
        }
        let last = process.timers.iter().map(|timer| timer.id).max().unwrap_or(0);
        if last > TIMERS_COUNTED && !self.facts.timer_ids {
            let reason = "this kernel makes no timer under a wanted id, and to count up to this one takes too long";
            self.block(process, format!("POSIX timer {last}"), reason, "use Linux 6.15 or later");
        }
    }

    fn cpu(&mut self, process: &Process) {
        let (ours, theirs) = (&self.facts.xsave, &self.snapshot.inventory.host.xsave);
        let used = process.threads.iter().filter_map(|thread| in_use(&thread.cpu.xsave)).fold(0, |all, one| all | one);
        for bit in (0..63).filter(|bit| used >> bit & 1 == 1) {
            let part = |layout: &crate::image::model::inventory::XsaveLayout| {
                layout.components.iter().find(|component| u32::from(component.bit) == bit).map(|c| c.size)
            };
            if ours.features >> bit & 1 == 0 || part(ours) != part(theirs) {
                let reason = "this CPU does not have it, or not in this size";
                self.block(process, format!("XSAVE component {bit}"), reason, "restore on a CPU like that of the dump");
            }
        }
    }

    /// What lies outside needs something in its place, and what is given must be wanted.
    fn externals(&mut self, root: &Process) {
        let wanted = self.snapshot.descriptions.iter().filter_map(|description| match &description.object {
            OpenObject::External(id) => Some(id.as_str()),
            _ => None,
        });
        let wanted: BTreeSet<&str> = wanted.collect();
        for id in wanted.iter().filter(|id| inherited(self.choices, id).is_none()) {
            let reason = "it was dumped with --external, and nothing is given in its place";
            self.findings.blockers.push(blocker(
                root.pid,
                *id,
                reason,
                format!("name a descriptor of snap: --inherit 'FD:{id}'"),
            ));
        }
        for (fd, id) in self.choices.inherit {
            if !wanted.contains(id.as_str()) {
                let names: Vec<&str> = wanted.iter().copied().collect();
                let remedy = if names.is_empty() {
                    "leave the option away".to_owned()
                } else {
                    format!("these are: {}", names.join(", "))
                };
                self.findings.blockers.push(blocker(
                    root.pid,
                    format!("--inherit {fd}:{id}"),
                    "no such external descriptor is in the image",
                    remedy,
                ));
            } else if !self.facts.descriptors.contains(fd) {
                let remedy = "open it for snap, as in: snap restore ... 3< FILE";
                self.findings.blockers.push(blocker(
                    root.pid,
                    format!("--inherit {fd}:{id}"),
                    "snap has no such descriptor",
                    remedy,
                ));
            }
        }
    }

    /// Addresses that somebody has, or that this host has not.
    fn addresses(&mut self) {
        for Taken { id, address, reason, remedy } in &self.facts.addresses {
            let socket = &self.snapshot.sockets[id.0 as usize];
            let name = datagram::name((socket.domain, socket.kind, socket.protocol)).unwrap_or("TCP");
            let holds = |process: &&Process| {
                let table = &self.snapshot.fd_tables[process.threads[0].fd_table.0 as usize];
                table.entries.iter().find(|entry| {
                    let description = &self.snapshot.descriptions[entry.description.0 as usize];
                    description.object == OpenObject::Socket(*id)
                })
            };
            let found = self.snapshot.processes.iter().find_map(|process| Some((process.pid, holds(&process)?.fd)));
            let (pid, object) = match found {
                Some((pid, fd)) => (pid, format!("fd {fd}: {name} socket bound to {address}")),
                None => (self.snapshot.inventory.root, format!("{name} socket bound to {address}")),
            };
            self.findings.blockers.push(blocker(pid, object, reason, remedy));
        }
    }

    /// What timers and epoll instances need of the kernel.
    fn events(&mut self, root: &Process) {
        let objects = || self.snapshot.descriptions.iter().map(|description| &description.object);
        let timers = objects().filter_map(|object| match object {
            OpenObject::Timerfd(timer) => Some(timer),
            _ => None,
        });
        let alarm = |clock| matches!(clock, libc::CLOCK_REALTIME_ALARM | libc::CLOCK_BOOTTIME_ALARM);
        let wakes = |object: &OpenObject| match object {
            OpenObject::Epoll(epoll) => epoll.items.iter().any(|item| item.events & libc::EPOLLWAKEUP as u32 != 0),
            _ => false,
        };
        let found = [
            (
                !self.facts.timer_ticks && timers.clone().any(|timer| timer.ticks != 0),
                "timerfd",
                "expirations that were not read cannot be given back by this kernel",
                "use a kernel with CONFIG_CHECKPOINT_RESTORE",
            ),
            (
                !self.facts.timer_alarms && timers.clone().any(|timer| alarm(timer.clock)),
                "timerfd",
                "it wakes the machine, which snap may not let it do",
                "run snap restore with CAP_WAKE_ALARM",
            ),
            (
                self.facts.interfaces_missing(self.snapshot),
                "/dev/net/tun",
                "its interface does not exist in this network namespace",
                "make it again: ip tuntap add",
            ),
            (
                !self.facts.wake_locks && objects().any(wakes),
                "epoll",
                "EPOLLWAKEUP holds off the sleep of the machine, which snap may not let it do",
                "run snap restore with CAP_BLOCK_SUSPEND",
            ),
        ];
        for (_, object, reason, remedy) in found.into_iter().filter(|(stands, ..)| *stands) {
            self.block(root, object, reason, remedy);
        }
    }

    /// What only a task can open, and what is on its way through a socket before there is one.
    fn late_on_their_way(&mut self, root: &Process) {
        for id in on_their_way(self.snapshot) {
            if late::late(self.snapshot, &self.snapshot.descriptions[id.0 as usize].object).is_some() {
                let reason = "it can be opened only once the task exists that it belongs to";
                self.block(root, "a descriptor on its way through a socket", reason, "no option; not supported yet");
            }
        }
    }

    /// In the order of births: where one finds the vdso depends on where its maker has put it.
    fn address_spaces(&mut self) {
        self.findings.vdsos = vec![Vdso::default(); self.snapshot.processes.len()];
        let births = self.findings.genealogy.births.clone();
        for birth in births {
            if let Being::Process(index) = birth.being {
                self.address_space(index, &self.snapshot.processes[index]);
            }
        }
    }

    fn address_space(&mut self, index: usize, process: &Process) {
        let mm = &self.snapshot.mms[process.mm.0 as usize];
        let now = self.findings.vdso_at_birth(index, self.facts).to_vec();
        match vdso::decide(&self.snapshot.inventory.host, process, mm, &now, self.facts) {
            Err(blockers) => {
                self.findings.blockers.extend(blockers);
                self.findings.vdsos[index] = Vdso::default();
            }
            Ok(vdso) => {
                let new = vdso.notices.iter().filter(|notice| !self.findings.notices.contains(notice));
                let new: Vec<String> = new.cloned().collect();
                self.findings.notices.extend(new);
                self.findings.vdsos[index] = vdso;
            }
        }
        for vma in &mm.vmas {
            let object = || format!("mapping {}", vma.range);
            if vma.range.end.0 > memory::TASK_END && !matches!(vma.backing, Backing::Vsyscall) {
                self.block(process, object(), "it lies beyond the four-level address space", "no option");
            }
            if vma.flags.contains(VmaFlags::SYNC) {
                self.block(process, object(), "it is mapped MAP_SYNC", "no option");
            }
            if let Backing::PrivateShared { shm, offset: _ } = &vma.backing
                && matches!(self.snapshot.shared_memory[shm.0 as usize].kind, SharedMemoryKind::Anonymous)
            {
                self.block(process, object(), "a private mapping of anonymous shared memory", "no option");
            }
        }
    }

    fn files(&mut self, process: &Process) {
        let mapped = self.mapped();
        let written = self.written();
        let replaced = self.replaced();
        let late = self.of_tasks();
        for (file, found) in self.snapshot.files.iter().zip(&self.facts.files) {
            if name(file).is_none() || replaced.contains(&file.id) || late.contains(&file.id) {
                continue;
            }
            let path = String::from_utf8_lossy(&file.path).into_owned();
            match found {
                Err(error) if file.mode & libc::S_IFMT == libc::S_IFIFO => {
                    self.block(process, path.clone(), error.clone(), format!("make it again: mkfifo {path}"));
                }
                Err(error) => self.block(process, path, error.clone(), "put the file back"),
                Ok(found) if found.mode & libc::S_IFMT != file.mode & libc::S_IFMT => {
                    self.block(process, path, "it is of another type now", "put the file back");
                }
                Ok(found) => self.file(process, file, found, mapped.contains(&file.id), written.contains(&file.id)),
            }
        }
        for process in &self.snapshot.processes {
            for thread in process.others().iter().filter(|thread| thread.fs != process.threads[0].fs) {
                let cwd = self.snapshot.fs_contexts[thread.fs.0 as usize].cwd;
                if let Some(path) = task_path(self.snapshot, cwd) {
                    let object = format!("tid {}: /proc/{}", thread.tid, String::from_utf8_lossy(path));
                    self.block(process, object, "a thread has it as a working directory of its own", "no option");
                }
            }
        }
        for Foreign { file, lock, name } in locks::conflicts(self.snapshot, &self.facts.locks) {
            let path = String::from_utf8_lossy(&self.snapshot.files[file.0 as usize].path).into_owned();
            let owner = match lock.pid {
                pid if pid > 0 => format!("pid {pid} ({name})"),
                _ => "another process".into(),
            };
            let reason = format!("it has a lock of it that {owner} has taken meanwhile");
            self.block(process, path, reason, "let that one give it back, or end it");
        }
        self.terminals(process);
    }

    fn file(&mut self, process: &Process, file: &File, found: &Found, mapped: bool, written: bool) {
        if file.mode & libc::S_IFMT != libc::S_IFREG {
            return;
        }
        let path = Path::new(OsStr::from_bytes(&file.path));
        let change = change(file, found);
        if mapped && !self.choices.ignore_changed.iter().any(|ignored| ignored == path) {
            if let Some(change) = &change {
                let remedy = format!("put it back, or use --ignore-changed {}", path.display());
                self.block(process, path.display().to_string(), format!("mapped file: {change}"), remedy);
            }
        } else if written {
            let bad = match self.choices.files {
                FilesPolicy::Ignore => None,
                FilesPolicy::Check => change,
                FilesPolicy::Truncate if found.size > file.size => {
                    self.findings.cut_back.push((path.to_path_buf(), file.size));
                    None
                }
                FilesPolicy::Truncate => change,
            };
            if let Some(change) = bad {
                let remedy = "use --files truncate to cut growth back, or --files ignore";
                self.block(process, path.display().to_string(), format!("open for writing: {change}"), remedy);
            }
        }
    }

    /// Files whose private or read-only mappings rely on their content.
    fn mapped(&self) -> BTreeSet<FileId> {
        let vmas = self.snapshot.mms.iter().flat_map(|mm| &mm.vmas);
        let mut files: BTreeSet<FileId> = vmas
            .filter_map(|vma| match &vma.backing {
                Backing::PrivateFile { file, offset: _ } => Some(*file),
                Backing::SharedFile { file, offset: _, may_write: false } => Some(*file),
                _ => None,
            })
            .collect();
        files.extend(self.snapshot.mms.iter().map(|mm| mm.exe));
        files
    }

    /// Files that the image's tasks can write.
    fn written(&self) -> BTreeSet<FileId> {
        let vmas = self.snapshot.mms.iter().flat_map(|mm| &mm.vmas);
        let shared = vmas.filter_map(|vma| match &vma.backing {
            Backing::SharedFile { file, offset: _, may_write: true } => Some(*file),
            _ => None,
        });
        let open = self.snapshot.descriptions.iter().filter_map(|description| match description.object {
            OpenObject::Regular(file) if description.flags & libc::O_ACCMODE as u32 != 0 => Some(file),
            _ => None,
        });
        shared.chain(open).collect()
    }

    /// Terminals in whose place another is opened: they went with whoever had made them.
    fn replaced(&self) -> BTreeSet<FileId> {
        let descriptions = &self.snapshot.descriptions;
        let outside = descriptions.iter().filter_map(|description| match description.object {
            OpenObject::OutsideTerminal(file) | OpenObject::HungUpTerminal(file) => Some(file),
            _ => None,
        });
        let by_path = |file: &FileId| {
            descriptions
                .iter()
                .any(|description| matches!(description.object, OpenObject::PathOnly(path) if path == *file))
        };
        // Slaves have a path of devpts, and come with their masters.
        let is_slave =
            |file: &&File| file.mode & libc::S_IFMT == libc::S_IFCHR && (136..=143).contains(&libc::major(file.rdev));
        let slaves = self.snapshot.files.iter().filter(is_slave).map(|file| file.id);
        outside.chain(slaves).filter(|file| !by_path(file)).collect()
    }

    /// Files of /proc that are there once the tasks of the image are.
    fn of_tasks(&self) -> BTreeSet<FileId> {
        let descriptions = self.snapshot.descriptions.iter();
        let files = descriptions.filter_map(|description| match &description.object {
            object @ (OpenObject::Pseudo(file) | OpenObject::PathOnly(file)) => {
                task_file(self.snapshot, object).map(|_| *file)
            }
            _ => None,
        });
        let directories = self.snapshot.fs_contexts.iter().map(|context| context.cwd);
        files.chain(directories.filter(|cwd| task_path(self.snapshot, *cwd).is_some())).collect()
    }

    fn terminals(&mut self, process: &Process) {
        if has_terminal(self.snapshot) && self.facts.terminal.is_none() {
            let reason = "it has a terminal open, and snap has none to give in its place";
            let remedy = "run snap restore on a terminal; or give something else in its place (dump --external PATH, restore \
                          --inherit FD:PATH)";
            self.block(process, "terminal", reason, remedy);
        }
    }

    fn privileges(&mut self, process: &Process) {
        let own = &self.facts.credentials;
        if self.facts.setgroups_denied && process.threads[0].credentials.groups != own.groups {
            self.findings
                .notices
                .push("supplementary groups cannot be set in this user namespace and stay those of snap".into());
        }
        for thread in &process.threads {
            let wanted = &thread.credentials;
            let missing = wanted.cap_permitted & !own.cap_permitted;
            if missing != 0 {
                let reason = format!("it has capabilities {missing:#x} that snap does not have");
                self.block(process, format!("tid {}", thread.tid), reason, "run snap restore with them");
            }
        }
        const CAP_SYS_RESOURCE: u32 = 24;
        let may_raise = own.cap_effective >> CAP_SYS_RESOURCE & 1 == 1;
        for (resource, (wanted, now)) in process.rlimits.iter().zip(&self.facts.limits).enumerate() {
            if wanted[1] > now[1] && !may_raise {
                let reason = format!("its hard limit is {} and that of snap {}", wanted[1], now[1]);
                self.block(
                    process,
                    format!("resource limit {resource}"),
                    reason,
                    "raise the limit of snap, or run it with CAP_SYS_RESOURCE",
                );
            }
        }
    }
}

/// Descriptions that are on their way through sockets (SCM_RIGHTS).
pub fn on_their_way(snapshot: &Snapshot) -> impl Iterator<Item = DescriptionId> {
    let queues = snapshot.sockets.iter().flat_map(|socket| match &socket.state {
        State::Unix(state) => &state.queue[..],
        State::Tcp(_) | State::Datagram(_) | State::Netlink(_) => &[],
    });
    queues.flat_map(|message| message.files.iter().copied())
}

/// Who holds an id, and what frees it.
fn taken(holder: &Holder) -> (String, String) {
    match holder {
        Holder::Alive(name) => (format!("taken by {name}"), "end it".into()),
        Holder::Zombie { name, parent: (Pid(0), _) } => (
            format!("taken by {name}, which has ended and was not reaped"),
            "let its parent outside this pid namespace reap it, or end that".into(),
        ),
        Holder::Zombie { name, parent: (parent, parent_name) } => (
            format!("taken by {name}, which has ended and was not reaped"),
            format!("let its parent, pid {parent} ({parent_name}), reap it (wait(2)), or end that"),
        ),
        Holder::Group => ("taken by a process group or session".into(), "end its members".into()),
    }
}

/// Whether a session leader joins the session of `snap` instead of having one of its own: without that it would have no
/// controlling terminal, and `snap` stays to give it one.
#[must_use]
pub fn stays_in_session(snapshot: &Snapshot, choices: &Choices<'_>) -> bool {
    !choices.orphan && has_terminal(snapshot)
}

fn has_terminal(snapshot: &Snapshot) -> bool {
    snapshot.descriptions.iter().any(|description| {
        matches!(description.object, OpenObject::OutsideTerminal(_) | OpenObject::ControllingTerminal(_))
    })
}

/// XSTATE_BV of an XSAVE area.
fn in_use(area: &[u8]) -> Option<u64> {
    area.get(512..520)?.try_into().ok().map(u64::from_le_bytes)
}

/// What differs between a file as it was and as it is.
fn change(file: &File, found: &Found) -> Option<String> {
    match (&file.build_id, &found.build_id) {
        (Some(was), Some(is)) if was != is => return Some("its build id has changed".into()),
        // A program of the same build, copied or installed anew.
        (Some(_), Some(_)) if file.size == found.size => return None,
        _ => {}
    }
    if file.size != found.size {
        return Some(format!("its size was {} and is {}", file.size, found.size));
    }
    (file.mtime != found.mtime).then(|| "it was modified since the dump".into())
}
