//! What this host is or has: ids, the CPU, the kernel's abilities, limits and rights.

use super::Checker;
use crate::image::model::file::OpenObject;
use crate::image::model::id::Pid;
use crate::image::model::inventory::{XSAVE_COMPONENTS, XTILE_DATA, XsaveLayout};
use crate::image::model::process::Process;
use crate::restore::holders::Holder;
use crate::restore::lookup::stays_in_session;
use crate::restore::xstate::in_use;

/// The highest id of a timer that is reached by making timers, where the kernel takes no wishes (before Linux 6.15).
const TIMERS_COUNTED: i32 = 100_000;

impl Checker<'_> {
    pub(super) fn ids(&mut self, process: &Process) {
        for (tid, holder) in &self.facts.taken {
            let (reason, remedy) = taken(holder);
            self.block(
                process,
                format!("id {tid}"),
                reason,
                match self.choices.new_pid_namespace {
                    // Its first process is that of snap.
                    true => "use --new-pids".into(),
                    false if self.may_choose_ids() => format!("{remedy}, or use --new-pid-namespace or --new-pids"),
                    false => format!("{remedy}, or use --new-pid-namespace"),
                },
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

    /// Whether clone3(2) may take an id that is wanted: else `--new-pids` is of no use either.
    fn may_choose_ids(&self) -> bool {
        const CAP_SYS_ADMIN: u64 = 1 << 21;
        const CAP_CHECKPOINT_RESTORE: u64 = 1 << 40;
        self.facts.credentials.cap_effective & (CAP_SYS_ADMIN | CAP_CHECKPOINT_RESTORE) != 0
    }

    pub(super) fn timers(&mut self, process: &Process) {
        let last = process.timers.iter().map(|timer| timer.id).max().unwrap_or(0);
        if last > TIMERS_COUNTED && !self.facts.timer_ids {
            let reason = "this kernel makes no timer under a wanted id, and to count up to this one takes too long";
            self.block(process, format!("POSIX timer {last}"), reason, "use Linux 6.15 or later");
        }
    }

    pub(super) fn cpu(&mut self, process: &Process) {
        let (ours, theirs) = (&self.facts.xsave, &self.snapshot.inventory.host.xsave);
        let used = process.threads.iter().filter_map(|thread| in_use(&thread.cpu.xsave)).fold(0, |all, one| all | one);
        let permitted = self.snapshot.mms[process.mm.0 as usize].xcomp_permitted & XTILE_DATA;
        let named = |bit: u32| {
            let name =
                XSAVE_COMPONENTS.iter().find(|(mask, _)| *mask == 1 << bit).map(|(_, name)| format!(" ({name})"));
            format!("XSAVE component {bit}{}", name.unwrap_or_default())
        };
        for bit in (0..63).filter(|bit| used >> bit & 1 == 1) {
            let part = |layout: &XsaveLayout| {
                layout.components.iter().find(|component| u32::from(component.bit) == bit).map(|c| c.size)
            };
            if ours.features >> bit & 1 == 0 || part(ours) != part(theirs) {
                let reason = "this CPU does not have it, or not in this size";
                self.block(process, named(bit), reason, "restore on a CPU like that of the dump");
            }
        }
        if permitted & !used & !(self.facts.xcomp_permitted | self.facts.xcomp_supported) != 0 {
            let object = format!("permission for {}", named(XTILE_DATA.trailing_zeros()));
            let reason = "this CPU does not have it, or this kernel does not know of it";
            self.block(process, object, reason, "restore on a CPU and a kernel like those of the dump");
        }
    }

    /// What timers and epoll instances need of the kernel.
    pub(super) fn events(&mut self, root: &Process) {
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

    pub(super) fn privileges(&mut self, process: &Process) {
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

/// Who holds an id, and what frees it.
fn taken(holder: &Holder) -> (String, String) {
    match holder {
        Holder::Alive(name) => (format!("taken by {name}"), "end it".into()),
        Holder::Zombie { name, parent: (Pid(0), _) } => (
            format!("taken by {name}, which has ended and was not reaped"),
            "let its parent outside this pid namespace reap it, or end that".into(),
        ),
        Holder::Zombie { name, parent: (Pid(1), parent_name) } => (
            format!("taken by {name}, which has ended and was not reaped"),
            format!("let pid 1 ({parent_name}) reap it (wait(2))"),
        ),
        Holder::Zombie { name, parent: (parent, parent_name) } => (
            format!("taken by {name}, which has ended and was not reaped"),
            format!("let its parent, pid {parent} ({parent_name}), reap it (wait(2)), or end that"),
        ),
        Holder::Group(members) => {
            const NAMED: usize = 3;
            let names = members.iter().take(NAMED).map(|(pid, name)| format!("pid {pid} ({name})"));
            let names = names.collect::<Vec<_>>().join(", ");
            let who = match members.len() {
                0 => "that this user may not see".into(),
                1..=NAMED => format!("of {names}"),
                count => format!("of {names} and {} more", count - NAMED),
            };
            (format!("taken by a process group or session {who}"), "end its members".into())
        }
    }
}
