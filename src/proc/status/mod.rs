//! `/proc/PID/status` and that of a thread (fs/proc/array.c, `proc_pid_status`).

use super::error::{Error, ParseError};
use super::files::Files;
use super::scan::{self, Fields};
use crate::image::model::id::{Pid, Tid};

const KIND: &str = "status";

/// All that is of use in `status`. `None` where a kernel, a zombie or a kernel thread has no such line. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Command name, escapes decoded.
    pub name: Vec<u8>,
    /// umask(2); `None` once the task has left its directory context (a zombie).
    pub umask: Option<u32>,
    /// The letter of the state: `R`, `S`, `D`, `T`, `t`, `Z`, `X`, `I`, `P`.
    pub state: u8,
    /// Thread group.
    pub tgid: Pid,
    /// Thread.
    pub pid: Tid,
    /// Parent.
    pub ppid: Pid,
    /// Who traces it, 0 for nobody.
    pub tracer: Tid,
    /// Real, effective, saved and file system user id.
    pub uid: [u32; 4],
    /// Real, effective, saved and file system group id.
    pub gid: [u32; 4],
    /// Slots of the table of descriptors, 0 when it has none.
    pub fd_slots: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Thread group id in each pid namespace, ours first.
    pub ns_tgid: Vec<i32>,
    /// Thread id in each pid namespace, ours first.
    pub ns_pid: Vec<i32>,
    /// Process group in each pid namespace, ours first.
    pub ns_pgid: Vec<i32>,
    /// Session in each pid namespace, ours first.
    pub ns_sid: Vec<i32>,
    /// Whether it is a thread of the kernel, from 6.8.
    pub kernel_thread: Option<bool>,
    /// The address space; `None` for a zombie or a kernel thread.
    pub memory: Option<Memory>,
    /// Whether it is dumping core.
    pub core_dumping: Option<bool>,
    /// Whether it may have transparent huge pages (PR_SET_THP_DISABLE clears it).
    pub thp_enabled: Option<bool>,
    /// Address bits that the CPU looks at: all ones without LAM.
    pub untag_mask: Option<u64>,
    /// Shadow stack features in use: `shstk`, `wrss`.
    pub thread_features: Vec<String>,
    /// Of these and those off, which may no longer be changed.
    pub thread_features_locked: Vec<String>,
    /// Threads of the group.
    pub threads: u32,
    /// Signals queued for the user, and the limit.
    pub queued_signals: [u64; 2],
    /// Signal sets, bit N-1 for signal N.
    pub signals: SignalSets,
    /// Capability sets, bit N for capability N.
    pub capabilities: Capabilities,
    /// PR_GET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// 0 off, 1 strict, 2 filter.
    pub seccomp: Option<u8>,
    /// Number of seccomp filters, from 5.9.
    pub seccomp_filters: Option<u32>,
    /// Words of the kernel on speculative store bypass.
    pub speculation_store_bypass: Option<String>,
    /// Words of the kernel on indirect branch speculation.
    pub speculation_indirect_branch: Option<String>,
    /// CPUs allowed, bit N of word N/64.
    pub cpus_allowed: Vec<u64>,
    /// Memory nodes allowed, bit N of word N/64.
    pub mems_allowed: Vec<u64>,
    /// How often it gave up the CPU by itself.
    pub voluntary_switches: Option<u64>,
}

/// Sizes of an address space in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub struct Memory {
    pub peak: u64,
    pub size: u64,
    pub locked: u64,
    pub pinned: u64,
    pub resident_peak: u64,
    pub resident: u64,
    pub resident_anonymous: u64,
    pub resident_file: u64,
    pub resident_shared: u64,
    pub page_tables: u64,
    pub swap: u64,
    pub hugetlb: u64,
}

/// Signal sets, bit N-1 for signal N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSets {
    /// Pending for the thread.
    pub pending: u64,
    /// Pending for the process.
    pub shared_pending: u64,
    /// Blocked.
    pub blocked: u64,
    /// Ignored.
    pub ignored: u64,
    /// Caught by a handler.
    pub caught: u64,
}

/// Capability sets, bit N for capability N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub struct Capabilities {
    pub inheritable: u64,
    pub permitted: u64,
    pub effective: u64,
    pub bounding: u64,
    pub ambient: u64,
}

/// Reads the status of a task.
///
/// # Errors
/// See [`Error`].
pub fn read(task: &impl Files, buffer: &mut Vec<u8>) -> Result<Status, Error> {
    task.parse("status", buffer, parse)
}

/// Parses the whole file. Lines of later kernels are passed over.
///
/// # Errors
/// Names the line; a line that every kernel since 5.4 has must be there.
pub fn parse(text: &[u8]) -> Result<Status, ParseError> {
    let mut file = File { fields: Fields::new(text) };
    Ok(Status {
        name: file.required("Name", "Name", |value| Some(unescape_name(value)))?,
        umask: file.optional("Umask", scan::octal)?,
        state: file.required("State", "State", |value| value.first().copied())?,
        tgid: Pid(file.required("Tgid", "Tgid", scan::decimal)?),
        pid: Tid(file.required("Pid", "Pid", scan::decimal)?),
        ppid: Pid(file.required("PPid", "PPid", scan::decimal)?),
        tracer: Tid(file.required("TracerPid", "TracerPid", scan::decimal)?),
        uid: file.required("Uid", "four user ids", four)?,
        gid: file.required("Gid", "four group ids", four)?,
        fd_slots: file.required("FDSize", "FDSize", scan::decimal)?,
        groups: file.required("Groups", "group ids", list)?,
        ns_tgid: file.optional("NStgid", list)?.unwrap_or_default(),
        ns_pid: file.optional("NSpid", list)?.unwrap_or_default(),
        ns_pgid: file.optional("NSpgid", list)?.unwrap_or_default(),
        ns_sid: file.optional("NSsid", list)?.unwrap_or_default(),
        kernel_thread: file.optional("Kthread", flag)?,
        memory: file.memory()?,
        core_dumping: file.optional("CoreDumping", flag)?,
        thp_enabled: file.optional("THP_enabled", flag)?,
        untag_mask: file.optional("untag_mask", scan::prefixed_hex)?,
        thread_features: file.optional("x86_Thread_features", words)?.unwrap_or_default(),
        thread_features_locked: file.optional("x86_Thread_features_locked", words)?.unwrap_or_default(),
        threads: file.required("Threads", "Threads", scan::decimal)?,
        queued_signals: file.required("SigQ", "queued/limit", queued)?,
        signals: file.signals()?,
        capabilities: file.capabilities()?,
        no_new_privs: file.required("NoNewPrivs", "0 or 1", flag)?,
        seccomp: file.optional("Seccomp", scan::decimal)?,
        seccomp_filters: file.optional("Seccomp_filters", scan::decimal)?,
        speculation_store_bypass: file.optional("Speculation_Store_Bypass", phrase)?,
        speculation_indirect_branch: file.optional("SpeculationIndirectBranch", phrase)?,
        cpus_allowed: file.required("Cpus_allowed", "a bitmap", scan::bitmap)?,
        mems_allowed: file.required("Mems_allowed", "a bitmap", scan::bitmap)?,
        voluntary_switches: file.optional("voluntary_ctxt_switches", scan::decimal)?,
    })
}

struct File<'a> {
    fields: Fields<'a>,
}

impl<'a> File<'a> {
    fn required<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<T, ParseError> {
        let (line, value) = self.fields.get(key.as_bytes()).ok_or_else(|| ParseError::new(KIND, 0, key, b""))?;
        parse(value).ok_or_else(|| ParseError::new(KIND, line, expected, value))
    }

    fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<Option<T>, ParseError> {
        let Some((line, value)) = self.fields.get(key.as_bytes()) else {
            return Ok(None);
        };
        parse(value).map(Some).ok_or_else(|| ParseError::new(KIND, line, key, value))
    }

    fn memory(&mut self) -> Result<Option<Memory>, ParseError> {
        let Some(peak) = self.optional("VmPeak", kilobytes)? else {
            return Ok(None);
        };
        let mut size = |key| Ok(self.optional(key, kilobytes)?.unwrap_or(0));
        Ok(Some(Memory {
            peak,
            size: size("VmSize")?,
            locked: size("VmLck")?,
            pinned: size("VmPin")?,
            resident_peak: size("VmHWM")?,
            resident: size("VmRSS")?,
            resident_anonymous: size("RssAnon")?,
            resident_file: size("RssFile")?,
            resident_shared: size("RssShmem")?,
            page_tables: size("VmPTE")?,
            swap: size("VmSwap")?,
            hugetlb: size("HugetlbPages")?,
        }))
    }

    fn signals(&mut self) -> Result<SignalSets, ParseError> {
        let mut set = |key| self.required(key, "a signal set", scan::hex);
        Ok(SignalSets {
            pending: set("SigPnd")?,
            shared_pending: set("ShdPnd")?,
            blocked: set("SigBlk")?,
            ignored: set("SigIgn")?,
            caught: set("SigCgt")?,
        })
    }

    fn capabilities(&mut self) -> Result<Capabilities, ParseError> {
        let mut set = |key| self.required(key, "a capability set", scan::hex);
        Ok(Capabilities {
            inheritable: set("CapInh")?,
            permitted: set("CapPrm")?,
            effective: set("CapEff")?,
            bounding: set("CapBnd")?,
            ambient: set("CapAmb")?,
        })
    }
}

/// `proc_task_name` escapes the newline as `\n` and the backslash as `\\`, and here alone.
fn unescape_name(text: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let decoded = match (byte, bytes.peek()) {
            (b'\\', Some(b'n')) => Some(b'\n'),
            (b'\\', Some(b'\\')) => Some(b'\\'),
            _ => None,
        };
        if decoded.is_some() {
            bytes.next();
        }
        name.push(decoded.unwrap_or(byte));
    }
    name
}

fn list<T: TryFrom<u64>>(text: &[u8]) -> Option<Vec<T>> {
    scan::words(text).map(scan::decimal).collect()
}

fn four(text: &[u8]) -> Option<[u32; 4]> {
    list(text)?.try_into().ok()
}

fn flag(text: &[u8]) -> Option<bool> {
    match text {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}

fn words(text: &[u8]) -> Option<Vec<String>> {
    scan::words(text).map(phrase).collect()
}

fn phrase(text: &[u8]) -> Option<String> {
    String::from_utf8(text.to_vec()).ok()
}

fn queued(text: &[u8]) -> Option<[u64; 2]> {
    let (queued, limit) = scan::split_once(text, b'/')?;
    Some([scan::decimal(queued)?, scan::decimal(limit)?])
}

fn kilobytes(text: &[u8]) -> Option<u64> {
    scan::decimal::<u64>(scan::trim(text).strip_suffix(b" kB")?)?.checked_mul(1024)
}

#[cfg(test)]
mod tests;
