//! The process of the sample, its threads, and a child of its that has ended.

use super::ANON;
use crate::image::model::address::Addr;
use crate::image::model::credentials::Credentials;
use crate::image::model::id::*;
use crate::image::model::process::{Process, ProcessState, Zombie};
use crate::image::model::signal::QueuedSignal;
use crate::image::model::thread::*;
use crate::image::model::timer::{PosixTimer, TimerNotify, TimerValue};

pub(super) fn process(pid: i32) -> Process {
    Process {
        pid: Pid(pid),
        ppid: Pid(1),
        pgid: Pid(pid),
        sid: Pid(1),
        exit_signal: 17,
        controlling: None,
        state: ProcessState::Running,
        mm: MmId(0),
        threads: vec![thread(pid)],
        ended_leader: None,
        handlers: HandlersId(0),
        pending: Vec::new(),
        itimers: [TimerValue::default(); 3],
        timers: Vec::new(),
        rlimits: vec![[u64::MAX; 2]; 16],
        oom_score_adj: 0,
        child_subreaper: false,
        argv: Vec::new(),
        cgroups: Vec::new(),
        loginuid: u32::MAX,
        autogroup_nice: None,
    }
}

pub(super) fn zombie(pid: i32) -> Zombie {
    Zombie {
        pid: Pid(pid),
        ppid: Pid(100),
        pgid: Pid(100),
        sid: Pid(1),
        comm: b"ended".to_vec(),
        exit_signal: 17,
        status: 3 << 8,
        uid: 0,
        cpu_time: [1, 2],
    }
}

pub(super) fn enrich(process: &mut Process) {
    let mut info = vec![0; 128];
    info[0] = 10;
    process.pending = vec![QueuedSignal { info }];
    process.timers = vec![PosixTimer {
        id: 7,
        clock: 1,
        notify: TimerNotify::Thread(34, Tid(101)),
        value: 5,
        time: TimerValue { remaining: 1, interval: 2 },
        overrun: 0,
    }];
    process.oom_score_adj = -1;
    process.argv = vec![b"sample".to_vec()];
    process.cgroups = vec!["0::/".into()];
    process.autogroup_nice = Some(0);
}

/// A thread that blocks no signal, is in no call, and has nothing registered.
pub fn thread(tid: i32) -> Thread {
    Thread {
        tid: Tid(tid),
        comm: b"sample".to_vec(),
        cpu: Cpu { regs: Registers::default(), xsave: vec![0; 576], debug: None },
        blocked: None,
        fd_table: FdTableId(0),
        fs: FsId(0),
        undo_list: None,
        undo: Vec::new(),
        io_context: None,
        signal_mask: 0,
        pending: Vec::new(),
        alt_stack: AltStack::default(),
        clear_child_tid: Addr::NULL,
        robust_list: RobustList::default(),
        rseq: None,
        credentials: credentials(),
        seccomp: Seccomp::default(),
        scheduling: Scheduling {
            policy: 0,
            flags: 0,
            nice: 0,
            priority: 0,
            deadline: [0; 3],
            uclamp: [0, 1024],
            affinity: Vec::new(),
            io_priority: 0,
            timer_slack: 50_000,
            core_group: 0,
        },
        settings: ThreadSettings {
            parent_death_signal: 0,
            tsc: 1,
            cpuid: true,
            io_flusher: false,
            mce_kill: 2,
            speculation: [0; 3],
            syscall_dispatch: None,
            memory_policy: None,
            personality: 0,
            cpu_time: 0,
        },
    }
}

/// Registers everything that a thread can have, and lets it sleep.
pub(super) fn occupy(thread: &mut Thread) {
    thread.blocked = Some(BlockedSyscall {
        number: 35,
        args: [1, 2, 3, 4, 5, 6],
        resume: Resume::Remaining { nanos: 1000, exact: true },
    });
    thread.signal_mask = 1;
    thread.clear_child_tid = Addr(ANON);
    thread.robust_list = RobustList { head: Addr(ANON + 16), len: 24 };
    thread.rseq = Some(Rseq { address: Addr(ANON + 64), size: 32, signature: 0x5305_3053, flags: 0 });
    thread.seccomp = Seccomp { mode: 2, filters: vec![SeccompId(0)], no_new_privs: true };
    thread.scheduling.affinity = vec![3];
    thread.settings.speculation = [3; 3];
    thread.settings.cpu_time = 3;
}

fn credentials() -> Credentials {
    Credentials {
        uid: [0; 4],
        gid: [0; 4],
        groups: vec![4, 5],
        cap_inheritable: 0,
        cap_permitted: 1,
        cap_effective: 1,
        cap_bounding: 1,
        cap_ambient: 0,
        securebits: 0,
        lsm_label: Vec::new(),
        session_keyring: String::new(),
    }
}
