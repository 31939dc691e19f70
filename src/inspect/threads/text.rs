//! Threads for people: a block of lines for each.

use super::{One, Syscall, Threads};
use crate::inspect::Report;
use crate::inspect::names::{credentials, signals};
use crate::inspect::text::{count, escape_controls, nanos};
use std::fmt::Write;

/// Registers in one line of a terminal of 80 columns.
const IN_A_LINE: usize = 3;

impl Report for Threads {
    fn text(&self, width: Option<u16>) -> String {
        let in_a_line = if width.is_some_and(|width| width >= 104) { IN_A_LINE + 1 } else { IN_A_LINE };
        let mut out = String::new();
        for thread in &self.threads {
            head(&mut out, thread);
            registers(&mut out, thread, in_a_line);
            state(&mut out, thread);
            out.push('\n');
        }
        out
    }
}

fn head(out: &mut String, thread: &One) {
    let _ = writeln!(out, "thread {} {}  (process {})", thread.tid, thread.name.printable(), thread.pid);
    let doing = thread.syscall.as_ref().map_or_else(|| "computing".to_owned(), call);
    let place = thread.place.as_deref().map_or_else(String::new, |place| format!("  at {place}"));
    let _ = writeln!(out, "  {doing}{place}");
}

fn call(syscall: &Syscall) -> String {
    let arguments: Vec<String> = syscall.arguments.iter().map(ToString::to_string).collect();
    let rest = match (syscall.remaining_ns, syscall.exact) {
        (None, true) => String::new(),
        (None, false) => ", starts again with its full timeout".to_owned(),
        (Some(left), true) => format!(", {} left", nanos(left)),
        (Some(full), false) => format!(", starts again with the full {}", nanos(full)),
    };
    format!("in {}({}){rest}", syscall.name, arguments.join(", "))
}

fn registers(out: &mut String, thread: &One, in_a_line: usize) {
    // Segments are the same in every 64-bit program; JSON has them.
    for line in thread.registers.0[..20].chunks(in_a_line) {
        let cells: Vec<String> = line.iter().map(|(name, value)| format!("{name:>7} {value:016x}")).collect();
        let _ = writeln!(out, "  {}", cells.join(" ").trim_end());
    }
    let _ = writeln!(out, "  vector state {}, {} bytes", or_none(&thread.xsave.in_use), thread.xsave.bytes);
    if let Some(debug) = &thread.debug_registers {
        let cells: Vec<String> = debug.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "  debug registers {}", cells.join(" "));
    }
}

fn state(out: &mut String, thread: &One) {
    let _ = writeln!(out, "  blocked  {}", signals::mask_text(thread.mask));
    for queued in &thread.pending {
        let _ = writeln!(out, "  pending  {queued}");
    }
    let user = &thread.credentials;
    let _ = writeln!(
        out,
        "  user     {}, group {}, capabilities {}",
        user.uid[1],
        user.gid[1],
        credentials::capabilities_text(user.effective_set)
    );
    let kernel = &thread.kernel;
    if let Some(stack) = &kernel.alternate_stack {
        let _ = writeln!(out, "  altstack {} {} bytes", stack.base, stack.bytes);
    }
    let rseq = kernel.rseq.as_ref().map_or_else(|| "none".to_owned(), |rseq| rseq.address.to_string());
    let _ = writeln!(
        out,
        "  kernel   rseq {rseq}, robust list {}, clear tid {}",
        kernel.robust_list, kernel.clear_child_tid
    );
    let _ = writeln!(
        out,
        "  seccomp  {}, {}{}",
        thread.seccomp.mode,
        count(thread.seccomp.filters.len() as u64, "filter"),
        if thread.seccomp.no_new_privs { ", no new privileges" } else { "" }
    );
    let scheduling = &thread.scheduling;
    let _ = writeln!(
        out,
        "  schedule {} nice {} priority {}, cpus {}, used {} of CPU time{}",
        escape_controls(&scheduling.policy),
        scheduling.nice,
        scheduling.priority,
        scheduling.cpus,
        nanos(kernel.cpu_time_ns),
        scheduling.core_group.map_or_else(String::new, |group| format!(", core scheduling group {group}"))
    );
}

fn or_none(words: &[String]) -> String {
    if words.is_empty() { "initial".to_owned() } else { words.join(" ") }
}
