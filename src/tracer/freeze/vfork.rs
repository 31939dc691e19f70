//! Parents of vfork(2), which sleep in the kernel where no interrupt reaches them until the child has begun another program or has ended. When
//! that child was stopped first, it is let on up to there.

use super::super::tasks;
use super::super::thread::Stop;
use super::Freezer;
use crate::image::model::id::{Pid, Tid};
use crate::sys::ptrace;

impl Freezer<'_> {
    /// Lets stopped children run for which one of these threads waits that are to stop. It has made no other since: theirs is the last of its list.
    pub(super) fn lend_vfork_children(&mut self, running: &[(Pid, Tid)]) {
        for &(pid, tid) in running {
            if self.lent.contains_key(&tid) || !waits(pid, tid) {
                continue;
            }
            if let Some(child) = tasks::children(pid, tid).last() {
                self.lend(tid, *child);
            }
        }
    }

    /// Lets the only thread of a child run; one that was in group stop before would not.
    fn lend(&mut self, parent: Tid, child: Pid) {
        let Some(member) = self.members.get_mut(&child) else { return };
        let tid = child.leader();
        if member.stopped.get(&tid).is_some_and(|thread| thread.stop == Stop::Interrupted)
            && ptrace::cont(tid, 0).is_ok()
        {
            member.stopped.remove(&tid);
            member.running.insert(tid);
            self.tree.running.push_back((child, tid));
            self.lent.insert(parent, tid);
        }
    }

    /// Stops the child again that was lent to this thread. One that is gone is found by the wait.
    pub(super) fn take_back(&mut self, parent: Tid) {
        if let Some(child) = self.lent.remove(&parent) {
            let _ = ptrace::interrupt(child);
        }
    }

    /// A thread has stopped. If it was lent, an interrupt was still on its way: it may be lent again.
    pub(super) fn has_come_back(&mut self, child: Tid) {
        self.lent.retain(|_, lent| *lent != child);
    }
}

/// Whether a thread sleeps, deaf to interrupts, in a call that makes children.
fn waits(pid: Pid, tid: Tid) -> bool {
    const CALLS: [i64; 3] = [libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3];
    tasks::state(tid) == Some('D')
        && tasks::call_number(pid, tid, &mut Vec::new()).is_some_and(|call| CALLS.contains(&call))
}
