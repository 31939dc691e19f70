//! Threads are not left standing in the middle of the vdso where that can be helped: a restore under another kernel, with another vdso,
//! has to refuse them.

use super::remainder;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::{Pid, Tid};
use crate::proc::{TaskDir, auxv};
use crate::sys::{own, ptrace};
use std::collections::HashMap;
use std::time::Duration;

/// How often in one freeze a thread is let out: one that does nothing but look at the clock may be in there every time.
const TRIES: u32 = 32;

/// Many times what any function of the vdso takes.
const MOMENT: Duration = Duration::from_micros(20);

/// Where processes have their vdso.
#[derive(Debug)]
pub(super) struct Vdsos {
    ranges: HashMap<Pid, PageRange>,
    len: u64,
    tries: u32,
}

impl Vdsos {
    pub fn new() -> Self {
        Self { ranges: HashMap::new(), len: own::vdso_len(), tries: TRIES }
    }

    /// Notes where a process has it. One that does not tell is none the worse for it.
    pub fn note(&mut self, pid: Pid) {
        let auxv = TaskDir::living(pid).and_then(|dir| auxv::read(&dir, &mut Vec::new()));
        if let Some(base) = auxv.ok().and_then(|auxv| auxv.get(libc::AT_SYSINFO_EHDR)) {
            self.ranges.insert(pid, PageRange::new(base, base.saturating_add(self.len)));
        }
    }

    /// Lets a stopped thread run on for a moment if it stands in the vdso; it will stop again.
    pub fn let_out(&mut self, pid: Pid, tid: Tid, rip: u64) -> bool {
        let inside = self.ranges.get(&pid).is_some_and(|range| range.contains(Addr(rip)));
        if !inside || self.tries == 0 || self.is_in_remainder(pid, tid, rip) {
            return false;
        }
        self.tries -= 1;
        if ptrace::cont(tid, 0).is_err() {
            return false;
        }
        std::thread::sleep(MOMENT);
        // Whoever is gone by now is found by the wait.
        let _ = ptrace::interrupt(tid);
        true
    }

    /// Whether it stands in code of ours: a thread may be blocked there, and that does not depend on the kernel.
    fn is_in_remainder(&self, pid: Pid, tid: Tid, rip: u64) -> bool {
        self.ranges.get(&pid).is_some_and(|range| remainder::is_inside(tid, *range, rip))
    }
}
