//! What /proc says about a process: taken before and after, it must be the same.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

/// Facts by name. Only what a dump or a restore must not change: nothing that counts time or memory use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts(BTreeMap<String, String>);

/// Lines of `/proc/PID/task/TID/status` that stay the same while a program does nothing new.
const STATUS: [&str; 25] = [
    "Name",
    "Umask",
    "Tgid",
    "Ngid",
    "Pid",
    "TracerPid",
    "Uid",
    "Gid",
    "Groups",
    "NSpgid",
    "NSsid",
    "Threads",
    "SigPnd",
    "ShdPnd",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "THP_enabled",
];

/// Fields of `/proc/PID/task/TID/stat`, numbered as in proc_pid_stat(5).
const STAT: [(usize, &str); 18] = [
    (5, "pgrp"),
    (6, "session"),
    (18, "priority"),
    (19, "nice"),
    (20, "num_threads"),
    (26, "startcode"),
    (27, "endcode"),
    (28, "startstack"),
    (38, "exit_signal"),
    (40, "rt_priority"),
    (41, "policy"),
    (45, "start_data"),
    (46, "end_data"),
    (47, "start_brk"),
    (48, "arg_start"),
    (49, "arg_end"),
    (50, "env_start"),
    (51, "env_end"),
];

/// Files of a process that are compared as a whole.
const FILES: [&str; 9] =
    ["cmdline", "environ", "auxv", "limits", "oom_score_adj", "coredump_filter", "personality", "timers", "cgroup"];

/// Flags in the `VmFlags` line that say what a mapping is used for at the moment, not what it is: soft-dirty, userfaultfd.
const PASSING: [&str; 4] = ["sd", "uw", "um", "ui"];

impl Facts {
    /// The facts about a live process.
    pub fn of(pid: i32) -> Self {
        let mut facts = Self(BTreeMap::new());
        let (process, pid) = (pid, shown_as(pid));
        for name in FILES {
            // The kernel writes some of these at once and leaves out others (timers without CONFIG_CHECKPOINT_RESTORE).
            if let Ok(bytes) = fs::read(format!("/proc/{pid}/{name}")) {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                facts.put(name, &if name == "timers" { by_id(&text) } else { text });
            }
        }
        for name in ["cwd", "root", "exe"] {
            facts.put(name, &link(&format!("/proc/{pid}/{name}")));
        }
        facts.mappings(pid);
        facts.descriptors(pid);
        for tid in threads(process) {
            facts.thread(process, tid);
        }
        facts
    }

    /// Takes one-shot items of epoll that have fired for the same whether they report errors or not, before they are armed again: who adds an item
    /// adds these, and the kernel takes them away by an event alone (docs/unsupported.md).
    pub fn without_armed_errors(mut self) -> Self {
        for text in self.0.values_mut() {
            *text = text.replace("events: 40000018", "events: 40000000");
        }
        self
    }

    /// Leaves out how many descriptors wait in each UNIX socket: of those that the kernel throws away with what waits in a datagram socket whose
    /// peer is gone, it takes none off (net/unix/af_unix.c, `unix_dgram_disconnected`).
    pub fn without_waiting_descriptors(mut self) -> Self {
        for text in self.0.values_mut() {
            let words: Vec<&str> = text.split(' ').collect();
            if let Some(at) = words.iter().position(|word| *word == "scm_fds:") {
                *text = [&words[..at], &words[at + 2..]].concat().join(" ");
            }
        }
        self
    }

    /// Leaves out the facts whose name starts with `prefix`.
    pub fn without(mut self, prefix: &str) -> Self {
        self.0.retain(|name, _| !name.starts_with(prefix));
        self
    }

    /// Panics with every difference.
    pub fn assert_same(&self, after: &Self, when: &str) {
        let differences = self.differences(after);
        assert!(differences.is_empty(), "{when}, /proc differs:\n{differences}");
    }

    /// Every difference, one a line; empty when there is none.
    pub fn differences(&self, after: &Self) -> String {
        let mut text = String::new();
        for (name, old) in &self.0 {
            match after.0.get(name) {
                Some(new) if new == old => {}
                Some(new) => writeln!(text, "  {name}: was `{old}`, is `{new}`").expect("a string"),
                None => writeln!(text, "  {name}: was `{old}`, is gone").expect("a string"),
            }
        }
        for (name, new) in after.0.iter().filter(|(name, _)| !self.0.contains_key(*name)) {
            writeln!(text, "  {name}: is new: `{new}`").expect("a string");
        }
        text
    }

    fn put(&mut self, name: impl Into<String>, value: &str) {
        self.0.insert(name.into(), value.trim_end().to_owned());
    }

    /// Each mapping: bounds, protection, offset, file, and the flags that the kernel keeps. Neighbours that differ in nothing are one, because
    /// the kernel merges them or not by what happened to them earlier.
    fn mappings(&mut self, pid: i32) {
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("smaps");
        let (mut header, mut key) = ("", "");
        let mut last: Option<(u64, u64, String)> = None;
        for line in smaps.lines() {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                let (start, end, text) = mapping(header, flags, std::mem::take(&mut key));
                match &mut last {
                    Some((_, until, before))
                        if *until == start && *before == text && text.contains("00000000 00:00 0") =>
                    {
                        *until = end;
                    }
                    _ => self.put_mapping(last.replace((start, end, text))),
                }
            } else if let Some(number) = line.strip_prefix("ProtectionKey:") {
                key = number.trim();
            } else if is_mapping(line) {
                header = line;
            }
        }
        self.put_mapping(last);
    }

    fn put_mapping(&mut self, mapping: Option<(u64, u64, String)>) {
        if let Some((start, end, text)) = mapping {
            self.put(format!("map {start:016x}-{end:016x}"), &text);
        }
    }

    /// Each descriptor: what it refers to, flags and position.
    fn descriptors(&mut self, pid: i32) {
        for fd in numbers(&format!("/proc/{pid}/fd")) {
            let information = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
            let mut kept: Vec<String> = information.lines().filter(|line| !is_passing(line)).map(watched).collect();
            // The kernel lists what is watched by the addresses of the files.
            kept.sort_by_key(|line| if line.starts_with("tfd:") { line.clone() } else { String::new() });
            let target = link(&format!("/proc/{pid}/fd/{fd}"));
            let is_closed_again = target.is_empty() && information.is_empty();
            if is_closed_again || is_question(&target) {
                continue;
            }
            let target = match target.as_str() {
                pipe if pipe.starts_with("pipe:") => "pipe",
                socket if socket.starts_with("socket:") => "socket",
                // What has no name has none that could stay the same.
                deleted if deleted.ends_with(" (deleted)") && !deleted.starts_with("/memfd:") => "deleted file",
                other => other,
            };
            self.put(format!("fd {fd:0>5}"), &format!("{target} {}", words(&kept.join(" "))));
        }
    }

    fn thread(&mut self, pid: i32, tid: i32) {
        let base = format!("/proc/{pid}/task/{tid}");
        let status = fs::read_to_string(format!("{base}/status")).expect("status");
        for line in status.lines() {
            if let Some((name, value)) =
                line.split_once(':').filter(|(name, _)| STATUS.contains(name) || *name == "Cpus_allowed_list")
            {
                self.put(format!("task {tid} {name}"), &words(value));
            }
        }
        let stat = fs::read_to_string(format!("{base}/stat")).expect("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name in brackets").1.split_whitespace().collect();
        for (number, name) in STAT {
            self.put(format!("task {tid} stat {name}"), fields[number - 3]);
        }
        // Children that nobody has reaped are listed here too.
        if let Ok(children) = fs::read_to_string(format!("{base}/children")) {
            self.put(format!("task {tid} children"), &children);
        }
        for name in ["timerslack_ns", "timens_offsets"] {
            if let Ok(text) = fs::read_to_string(format!("/proc/{tid}/{name}")) {
                self.put(format!("task {tid} {name}"), &words(&text));
            }
        }
    }
}

/// Lines of fdinfo that say where and when, not what: mounts, inodes, the kernel's own numbers, the time that a timer has left and how often
/// it has fired.
fn is_passing(line: &str) -> bool {
    ["mnt_id", "ino:", "eventfd-id", "map_id", "btf_id", "it_value", "ticks"]
        .iter()
        .any(|passing| line.starts_with(passing))
}

/// An item of an epoll instance or a watch without the inode of its file, which may have none that could stay the same.
fn watched(line: &str) -> String {
    match line.split_once(' ') {
        Some(("tfd:", _)) => line.split(" pos:").next().unwrap_or(line).to_owned(),
        Some(("inotify", rest)) => {
            let kept = rest.split(' ').filter(|word| word.starts_with("wd:") || word.starts_with("mask:"));
            kept.collect::<Vec<_>>().join(" ")
        }
        _ => line.to_owned(),
    }
}

/// Thread ids of a process, in ascending order.
pub fn threads(pid: i32) -> Vec<i32> {
    numbers(&format!("/proc/{pid}/task"))
}

/// The number under which /proc shows what threads share: that of another one when the main thread has ended.
pub fn shown_as(pid: i32) -> i32 {
    if state(pid) != Some('Z') {
        return pid;
    }
    threads(pid).into_iter().find(|tid| state(*tid) != Some('Z')).unwrap_or(pid)
}

/// The state letter of a process; `None` when there is no such process.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// One line of the status of a process.
pub fn status(pid: i32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(words).unwrap_or_default()
}

fn numbers(directory: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut numbers: Vec<i32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

fn link(path: &str) -> String {
    fs::read_link(path).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether it is the file in which a victim looks for what it is asked, again and again; one that was asked before has no name any more.
fn is_question(target: &str) -> bool {
    target.strip_suffix(" (deleted)").unwrap_or(target).ends_with("/ask")
}

/// A header of smaps starts with a range in small hexadecimal digits; every other line with a capital letter.
fn is_mapping(line: &str) -> bool {
    line.split_once('-')
        .is_some_and(|(start, _)| start.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
}

/// POSIX timers in the order of their ids; the kernel lists them by age.
fn by_id(timers: &str) -> String {
    let mut blocks: Vec<_> = timers.split("ID: ").map(words).filter(|block| !block.is_empty()).collect();
    blocks.sort();
    blocks.join("\n")
}

/// Bounds of a mapping, and everything else about it.
fn mapping(header: &str, flags: &str, key: &str) -> (u64, u64, String) {
    let (range, rest) = header.split_once(' ').expect("a range and the rest");
    let (start, end) = range.split_once('-').expect("two bounds");
    let number = |text: &str| u64::from_str_radix(text, 16).expect("an address");
    // `ac` on memory that cannot be written says that it once could.
    let counts = |flag: &&str| *flag != "ac" || rest.as_bytes()[1] == b'w';
    let kept: Vec<_> = flags.split_whitespace().filter(|flag| !PASSING.contains(flag)).filter(counts).collect();
    let rest = match rest.strip_suffix(" (deleted)") {
        // The inode of a file without a name is a new one after a restore, and so is the name that the kernel shows.
        Some(deleted) => format!("{} deleted file", deleted.get(..13).unwrap_or(deleted)),
        // So is that of a socket whose ring is mapped.
        None if rest.trim_end().ends_with(']') && rest.contains(" socket:[") => {
            format!("{} socket", rest.get(..13).unwrap_or(rest))
        }
        None => words(rest),
    };
    (number(start), number(end), format!("{rest} [{}] key {key}", kept.join(" ")))
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The process that has this pid in its innermost pid namespace.
pub fn innermost(pid: i32) -> Option<i32> {
    let wanted = pid.to_string();
    let is_it = |outer: &i32| {
        let status = fs::read_to_string(format!("/proc/{outer}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        numbers.split_whitespace().next_back() == Some(&wanted)
    };
    let entries = fs::read_dir("/proc").expect("proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_it)
}
