//! `/proc/PID/stat` and that of a thread (fs/proc/array.c, `do_task_stat`; proc_pid_stat(5)).

use super::error::{Error, ParseError};
use super::files::Files;
use super::scan;
use crate::image::model::address::Addr;
use crate::image::model::id::{Pid, Tid};

const KIND: &str = "stat";

/// The 52 fields. Addresses are 0 or 1 without PTRACE_MODE_READ. Times are in clock ticks (USER_HZ, 100 a second).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Thread group in `/proc/PID`, thread in `/proc/PID/task/TID`.
    pub pid: Tid,
    /// Command name, unescaped.
    pub comm: Vec<u8>,
    /// The letter of the state: `R`, `S`, `D`, `T`, `t`, `Z`, `X`, `I`, `P`.
    pub state: u8,
    /// Parent.
    pub ppid: Pid,
    /// Process group.
    pub pgrp: Pid,
    /// Session.
    pub session: Pid,
    /// Controlling terminal as `dev_t` in the kernel's new encoding, 0 for none.
    pub tty_nr: i32,
    /// Foreground process group of the terminal, -1 for none.
    pub tpgid: i32,
    /// PF_* of include/linux/sched.h.
    pub flags: u32,
    /// User time.
    pub utime: u64,
    /// System time.
    pub stime: u64,
    /// User time of reaped children.
    pub cutime: i64,
    /// System time of reaped children.
    pub cstime: i64,
    /// The kernel's priority; for real-time policies minus one minus the real-time priority.
    pub priority: i64,
    /// Nice value.
    pub nice: i32,
    /// Threads of the group.
    pub threads: u32,
    /// Time after boot at which it started.
    pub start_time: u64,
    /// Signals of this thread alone that are pending, bit 0 for the first; the real-time ones are not told here.
    pub pending: u64,
    /// Bytes of address space.
    pub vsize: u64,
    /// Resident pages.
    pub rss: i64,
    /// RLIMIT_RSS, soft.
    pub rss_limit: u64,
    /// Bounds of the program's parts.
    pub layout: Layout,
    /// Signal sent to the parent at death.
    pub exit_signal: i32,
    /// CPU it ran on last.
    pub processor: u32,
    /// Real-time priority, 0 for none.
    pub rt_priority: u32,
    /// SCHED_*.
    pub policy: u32,
    /// Ticks it waited for block devices.
    pub delayacct_blkio_ticks: u64,
    /// Time as a guest's CPU.
    pub guest_time: u64,
    /// Guest time of reaped children.
    pub cguest_time: i64,
    /// Exit status as wait(2) has it.
    pub exit_code: i32,
}

/// What `struct mm_struct` keeps of the program's parts; `brk` is not among what the kernel tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub struct Layout {
    pub start_code: Addr,
    pub end_code: Addr,
    pub start_stack: Addr,
    pub start_data: Addr,
    pub end_data: Addr,
    pub start_brk: Addr,
    pub arg_start: Addr,
    pub arg_end: Addr,
    pub env_start: Addr,
    pub env_end: Addr,
}

/// Reads the statistics of a task.
///
/// # Errors
/// See [`Error`].
pub fn read(task: &impl Files, buffer: &mut Vec<u8>) -> Result<Stat, Error> {
    task.parse("stat", buffer, parse)
}

/// Parses the file. The name may hold blanks, newlines and parentheses, so that it ends at the last parenthesis.
///
/// # Errors
/// Names the field that is missing.
pub fn parse(text: &[u8]) -> Result<Stat, ParseError> {
    let fail = |expected| ParseError::new(KIND, 1, expected, text);
    let open = text.iter().position(|&byte| byte == b'(').ok_or_else(|| fail("(comm)"))?;
    let close = text.iter().rposition(|&byte| byte == b')').filter(|&at| at > open).ok_or_else(|| fail("(comm)"))?;
    let words: Vec<&[u8]> = scan::words(scan::trim(&text[close + 1..])).collect();
    let fields = Numbered { words: &words, text };
    Ok(Stat {
        pid: Tid(scan::decimal(scan::trim(&text[..open])).ok_or_else(|| fail("pid"))?),
        comm: text[open + 1..close].to_vec(),
        state: fields.word(3, "state")?.first().copied().ok_or_else(|| fail("state"))?,
        ppid: Pid(fields.signed(4, "ppid")?),
        pgrp: Pid(fields.signed(5, "pgrp")?),
        session: Pid(fields.signed(6, "session")?),
        tty_nr: fields.signed(7, "tty_nr")?,
        tpgid: fields.signed(8, "tpgid")?,
        flags: fields.unsigned(9, "flags")?,
        utime: fields.unsigned(14, "utime")?,
        stime: fields.unsigned(15, "stime")?,
        cutime: fields.signed(16, "cutime")?,
        cstime: fields.signed(17, "cstime")?,
        priority: fields.signed(18, "priority")?,
        nice: fields.signed(19, "nice")?,
        threads: fields.unsigned(20, "num_threads")?,
        start_time: fields.unsigned(22, "starttime")?,
        pending: fields.unsigned(31, "signal")?,
        vsize: fields.unsigned(23, "vsize")?,
        rss: fields.signed(24, "rss")?,
        rss_limit: fields.unsigned(25, "rsslim")?,
        layout: fields.layout()?,
        exit_signal: fields.signed(38, "exit_signal")?,
        processor: fields.unsigned(39, "processor")?,
        rt_priority: fields.unsigned(40, "rt_priority")?,
        policy: fields.unsigned(41, "policy")?,
        delayacct_blkio_ticks: fields.unsigned(42, "delayacct_blkio_ticks")?,
        guest_time: fields.unsigned(43, "guest_time")?,
        cguest_time: fields.signed(44, "cguest_time")?,
        exit_code: fields.signed(52, "exit_code")?,
    })
}

/// The words after the name, numbered as proc_pid_stat(5) does: the state is field 3.
struct Numbered<'a> {
    words: &'a [&'a [u8]],
    text: &'a [u8],
}

impl<'a> Numbered<'a> {
    fn word(&self, number: usize, name: &'static str) -> Result<&'a [u8], ParseError> {
        self.words.get(number - 3).copied().ok_or_else(|| ParseError::new(KIND, 1, name, self.text))
    }

    fn unsigned<T: TryFrom<u64>>(&self, number: usize, name: &'static str) -> Result<T, ParseError> {
        let word = self.word(number, name)?;
        scan::decimal(word).ok_or_else(|| ParseError::new(KIND, 1, name, word))
    }

    fn signed<T: TryFrom<i64>>(&self, number: usize, name: &'static str) -> Result<T, ParseError> {
        let word = self.word(number, name)?;
        scan::signed(word).ok_or_else(|| ParseError::new(KIND, 1, name, word))
    }

    fn layout(&self) -> Result<Layout, ParseError> {
        let at = |number, name| self.unsigned(number, name).map(Addr);
        Ok(Layout {
            start_code: at(26, "start_code")?,
            end_code: at(27, "end_code")?,
            start_stack: at(28, "start_stack")?,
            start_data: at(45, "start_data")?,
            end_data: at(46, "end_data")?,
            start_brk: at(47, "start_brk")?,
            arg_start: at(48, "arg_start")?,
            arg_end: at(49, "arg_end")?,
            env_start: at(50, "env_start")?,
            env_end: at(51, "env_end")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_program_with_an_odd_name() {
        let stat = parse(include_bytes!("../../fixtures/proc/fds/stat")).unwrap();
        let expected = Stat {
            pid: Tid(19853),
            comm: b"a b) (\\\n:c".to_vec(),
            state: b'S',
            ppid: Pid(1),
            pgrp: Pid(19847),
            session: Pid(7094),
            tty_nr: 0,
            tpgid: -1,
            flags: 4_194_560,
            utime: 4,
            stime: 0,
            cutime: 0,
            cstime: 0,
            priority: 20,
            nice: 0,
            threads: 2,
            start_time: 299_015,
            pending: 0,
            vsize: 92_565_504,
            rss: 3087,
            rss_limit: u64::MAX,
            layout: Layout {
                start_code: Addr(4_321_280),
                end_code: Addr(7_148_169),
                start_stack: Addr(140_732_945_241_568),
                start_data: Addr(9_723_336),
                end_data: Addr(11_027_064),
                start_brk: Addr(682_065_920),
                arg_start: Addr(140_732_945_248_181),
                arg_end: Addr(140_732_945_248_211),
                env_start: Addr(140_732_945_248_211),
                env_end: Addr(140_732_945_248_235),
            },
            exit_signal: 17,
            processor: 1,
            rt_priority: 0,
            policy: 0,
            delayacct_blkio_ticks: 0,
            guest_time: 0,
            cguest_time: 0,
            exit_code: 0,
        };
        assert_eq!(stat, expected);
    }

    #[test]
    fn of_a_zombie() {
        let stat = parse(include_bytes!("../../fixtures/proc/zombie/stat")).unwrap();
        assert_eq!((stat.state, stat.exit_code, stat.layout), (b'Z', 3 << 8, Layout::default()));
    }

    #[test]
    fn agrees_with_the_crate_procfs_on_ourselves() {
        let ours =
            read(&super::super::TaskDir::process(Pid(std::process::id().cast_signed())).unwrap(), &mut Vec::new())
                .unwrap();
        let theirs = procfs::process::Process::myself().unwrap().stat().unwrap();
        assert_eq!(ours.comm, theirs.comm.as_bytes());
        assert_eq!((ours.ppid.0, ours.pgrp.0, ours.session.0), (theirs.ppid, theirs.pgrp, theirs.session));
        assert_eq!(ours.start_time, theirs.starttime);
        assert_eq!(Some(ours.layout.start_brk.0), theirs.start_brk);
        assert_eq!(ours.layout.start_stack.0, theirs.startstack);
        assert_eq!(Some(ours.exit_signal), theirs.exit_signal);
        assert_eq!(ours.nice, theirs.nice as i32);
    }

    #[test]
    fn errors_name_the_field() {
        assert_eq!(parse(b"1 (a S 1").unwrap_err().expected, "(comm)");
        assert_eq!(parse(b")1(").unwrap_err().expected, "(comm)");
        assert_eq!(parse(b"1 (a) S 1 2 3").unwrap_err().expected, "tty_nr");
        assert_eq!(parse(b"x (a) S").unwrap_err().expected, "pid");
    }
}
