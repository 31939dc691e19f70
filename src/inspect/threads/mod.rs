//! `snap inspect FILE threads`: registers, what each thread was doing, masks, scheduling, credentials.

mod detail;
mod text;

use super::json::{Hex, Raw};
use super::names::syscalls;
use super::place;
use super::signals::Queued;
use crate::image::model::Snapshot;
use crate::image::model::address::Addr;
use crate::image::model::memory::Mm;
use crate::image::model::process::Process;
use crate::image::model::thread::{BlockedSyscall, Registers, Resume, Thread};
use detail::{Credentials, Kernel, Scheduling, Seccomp};
use serde::{Serialize, Serializer};

/// The report: every thread, main threads first in each process.
#[derive(Debug, Serialize)]
pub struct Threads {
    schema: &'static str,
    threads: Vec<One>,
}

#[derive(Debug, Serialize)]
struct One {
    tid: i32,
    pid: i32,
    name: Raw,
    syscall: Option<Syscall>,
    place: Option<String>,
    registers: Named,
    xsave: Xsave,
    debug_registers: Option<[Hex; 6]>,
    signal_mask: Vec<String>,
    #[serde(skip)]
    mask: u64,
    pending: Vec<Queued>,
    fd_table: u32,
    kernel: Kernel,
    credentials: Credentials,
    seccomp: Seccomp,
    scheduling: Scheduling,
}

/// A system call that goes on after the restore.
#[derive(Debug, Serialize)]
struct Syscall {
    number: u64,
    name: String,
    arguments: Vec<Hex>,
    /// Nanoseconds of its timeout that are left; absent where it has none or waits for an absolute time.
    remaining_ns: Option<u64>,
    /// False where `remaining_ns` is the full timeout because the remainder could not be known.
    exact: bool,
}

#[derive(Debug, Serialize)]
struct Xsave {
    bytes: usize,
    in_use: Vec<String>,
}

/// Registers as an object, in the order in which people expect them.
#[derive(Debug)]
struct Named([(&'static str, u64); 27]);

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|&(name, value)| (name, Hex(value))))
    }
}

/// Makes it.
#[must_use]
pub fn report(snapshot: &Snapshot) -> Threads {
    let threads = snapshot
        .processes
        .iter()
        .flat_map(|process| process.threads.iter().map(|thread| one(snapshot, process, thread)))
        .collect();
    Threads { schema: "snap.inspect.threads/1", threads }
}

/// `futex`, or `syscall 999`.
#[must_use]
pub fn syscall_name(number: u64) -> String {
    syscalls::name(number).map_or_else(|| format!("syscall {number}"), str::to_owned)
}

fn one(snapshot: &Snapshot, process: &Process, thread: &Thread) -> One {
    let mm: Option<&Mm> = snapshot.mms.get(process.mm.0 as usize);
    One {
        tid: thread.tid.0,
        pid: process.pid.0,
        name: Raw(thread.comm.clone()),
        syscall: thread.blocked.as_ref().map(syscall),
        place: mm.and_then(|mm| place::of(snapshot, mm, Addr(thread.cpu.regs.rip))),
        registers: named(&thread.cpu.regs),
        xsave: xsave(&thread.cpu.xsave),
        debug_registers: thread.cpu.debug.map(|debug| debug.map(Hex)),
        signal_mask: super::names::signals::mask(thread.signal_mask),
        mask: thread.signal_mask,
        pending: thread.pending.iter().map(Queued::from).collect(),
        fd_table: thread.fd_table.0,
        kernel: detail::kernel(thread),
        credentials: detail::credentials(&thread.credentials),
        seccomp: detail::seccomp(&thread.seccomp),
        scheduling: detail::scheduling(&thread.scheduling, thread.settings.memory_policy.as_ref()),
    }
}

fn syscall(blocked: &BlockedSyscall) -> Syscall {
    let name = syscall_name(blocked.number);
    let (remaining_ns, exact) = match blocked.resume {
        Resume::Again => (None, true),
        Resume::Remaining { nanos, exact } => (Some(nanos), exact),
        Resume::Shortened { nanos } => (Some(nanos), true),
        Resume::Anew => (None, false),
    };
    let used = syscalls::arguments(&name);
    Syscall {
        number: blocked.number,
        name,
        arguments: blocked.args.iter().take(used).copied().map(Hex).collect(),
        remaining_ns,
        exact,
    }
}

/// XSTATE_BV stands at byte 512 of the standard format (Intel SDM volume 1, 13.4.2).
fn xsave(area: &[u8]) -> Xsave {
    let vector = area.get(512..520).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    Xsave { bytes: area.len(), in_use: super::names::tasks::xsave(vector) }
}

fn named(regs: &Registers) -> Named {
    let &Registers {
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        orig_rax,
        rip,
        cs,
        eflags,
        rsp,
        ss,
        fs_base,
        gs_base,
        ds,
        es,
        fs,
        gs,
    } = regs;
    Named([
        ("rip", rip),
        ("rsp", rsp),
        ("rbp", rbp),
        ("rflags", eflags),
        ("rax", rax),
        ("rbx", rbx),
        ("rcx", rcx),
        ("rdx", rdx),
        ("rsi", rsi),
        ("rdi", rdi),
        ("r8", r8),
        ("r9", r9),
        ("r10", r10),
        ("r11", r11),
        ("r12", r12),
        ("r13", r13),
        ("r14", r14),
        ("r15", r15),
        ("fs_base", fs_base),
        ("gs_base", gs_base),
        ("orig_rax", orig_rax),
        ("cs", cs),
        ("ss", ss),
        ("ds", ds),
        ("es", es),
        ("fs", fs),
        ("gs", gs),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample::{PRIVATE_FILE, snapshot};
    use crate::inspect::Report;

    fn with_registers() -> Snapshot {
        let mut snapshot = snapshot();
        let cpu = &mut snapshot.processes[0].threads[0].cpu;
        cpu.regs.rip = PRIVATE_FILE + 0x123;
        cpu.regs.r15 = u64::MAX;
        cpu.xsave[512] = 7;
        snapshot
    }

    #[test]
    fn json_has_every_register_as_hex() {
        let json = serde_json::to_value(report(&with_registers())).expect("JSON");
        let thread = &json["threads"][0];
        assert_eq!(thread["registers"].as_object().map(serde_json::Map::len), Some(27));
        assert_eq!(thread["registers"]["r15"], "0xffffffffffffffff");
        assert_eq!(thread["place"], "sample+0x1123");
        assert_eq!(thread["syscall"]["name"], "nanosleep");
        assert_eq!(thread["syscall"]["arguments"], serde_json::json!(["0x1", "0x2"]));
        assert_eq!(thread["syscall"]["remaining_ns"], 1000);
        assert_eq!(thread["xsave"]["in_use"], serde_json::json!(["x87", "SSE", "AVX"]));
        assert_eq!(thread["signal_mask"], serde_json::json!(["SIGHUP"]));
        assert_eq!(thread["kernel"]["rseq"]["signature"], "0x53053053");
        assert_eq!(json["threads"][1]["place"], serde_json::Value::Null);
        assert_eq!(json["threads"][0]["scheduling"]["core_group"], serde_json::Value::Null);
        assert_eq!(json["threads"][1]["scheduling"]["core_group"], 1);
    }

    #[test]
    fn text_says_what_each_thread_is_doing() {
        let text = report(&with_registers()).text(Some(100));
        for part in [
            "nanosleep(0x1, 0x2)",
            "1.0 us left",
            "sample+0x1123",
            "blocked  SIGHUP",
            "r15 ffffffffffffffff",
            "core scheduling group 1",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_hostile_xsave_area_is_just_short() {
        let mut snapshot = snapshot();
        snapshot.processes[0].threads[0].cpu.xsave = vec![0xff; 515];
        assert_eq!(report(&snapshot).threads[0].xsave.in_use, Vec::<String>::new());
    }
}
