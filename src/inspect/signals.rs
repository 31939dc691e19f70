//! `snap inspect FILE signals`: dispositions, masks, and what waits in the queues.

use super::json::{Hex, Raw};
use super::names::signals;
use super::table::{lines, table};
use super::text::count;
use super::{Report, place};
use crate::image::model::Snapshot;
use crate::image::model::process::Process;
use crate::image::model::signal::{QueuedSignal, SignalAction};
use serde::Serialize;
use std::fmt::{self, Write};

/// The report.
#[derive(Debug, Serialize)]
pub struct Signals {
    schema: &'static str,
    processes: Vec<One>,
}

#[derive(Debug, Serialize)]
struct One {
    pid: i32,
    name: Raw,
    actions: Vec<Action>,
    pending: Vec<Queued>,
    threads: Vec<ThreadSignals>,
}

#[derive(Debug, Serialize)]
struct Action {
    signal: String,
    number: i32,
    /// `default`, `ignore` or `handler`.
    disposition: &'static str,
    handler: Option<Hex>,
    place: Option<String>,
    flags: Vec<String>,
    mask: Vec<String>,
    restorer: Hex,
    #[serde(skip)]
    blocked: u64,
}

#[derive(Debug, Serialize)]
struct ThreadSignals {
    tid: i32,
    name: Raw,
    blocked: Vec<String>,
    pending: Vec<Queued>,
    #[serde(skip)]
    mask: u64,
}

/// A queued signal with what its `siginfo_t` says (sigaction(2)).
#[derive(Debug, Serialize)]
pub struct Queued {
    signal: String,
    number: i32,
    code: String,
    pid: Option<i32>,
    uid: Option<u32>,
    value: Option<Hex>,
}

impl From<&QueuedSignal> for Queued {
    fn from(queued: &QueuedSignal) -> Self {
        let word = |at: usize| {
            queued.info.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_le_bytes)
        };
        let value = queued.info.get(24..32).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        let (number, code) = (word(0), word(8));
        // Which of the union's members is valid, si_code tells: sent by a task, with or without a value.
        let sent = matches!(code, 0 | -1 | -3 | -6) || number == 17 && code > 0;
        Self {
            signal: signals::name(number),
            number,
            code: signals::code(number, code),
            pid: sent.then(|| word(16)),
            uid: sent.then(|| word(20).cast_unsigned()),
            value: matches!(code, -3..=-1).then_some(Hex(value)),
        }
    }
}

impl fmt::Display for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.signal, self.code)?;
        if let (Some(pid), Some(uid)) = (self.pid, self.uid) {
            write!(f, " from pid {pid} uid {uid}")?;
        }
        if let Some(value) = self.value {
            write!(f, " value {value}")?;
        }
        f.write_str(")")
    }
}

/// Makes it.
#[must_use]
pub fn report(snapshot: &Snapshot) -> Signals {
    Signals {
        schema: "snap.inspect.signals/1",
        processes: snapshot.processes.iter().map(|process| one(snapshot, process)).collect(),
    }
}

fn one(snapshot: &Snapshot, process: &Process) -> One {
    let number = |index: usize| i32::try_from(index + 1).unwrap_or(i32::MAX);
    One {
        pid: process.pid.0,
        name: Raw(process.threads.first().map_or_else(Vec::new, |main| main.comm.clone())),
        actions: snapshot
            .signal_handlers
            .get(process.handlers.0 as usize)
            .map_or(&[][..], |handlers| &handlers.actions)
            .iter()
            .enumerate()
            .map(|(index, action)| describe(snapshot, process, number(index), action))
            .collect(),
        pending: process.pending.iter().map(Queued::from).collect(),
        threads: process
            .threads
            .iter()
            .map(|thread| ThreadSignals {
                tid: thread.tid.0,
                name: Raw(thread.comm.clone()),
                blocked: signals::mask(thread.signal_mask),
                pending: thread.pending.iter().map(Queued::from).collect(),
                mask: thread.signal_mask,
            })
            .collect(),
    }
}

fn describe(snapshot: &Snapshot, process: &Process, number: i32, action: &SignalAction) -> Action {
    let (disposition, handler) = match action.handler.0 {
        0 => ("default", None),
        1 => ("ignore", None),
        _ => ("handler", Some(action.handler)),
    };
    let mm = snapshot.mms.get(process.mm.0 as usize);
    Action {
        signal: signals::name(number),
        number,
        disposition,
        handler: handler.map(Hex::from),
        place: handler.and_then(|handler| place::of(snapshot, mm?, handler)),
        flags: signals::action_flags(action.flags),
        mask: signals::mask(action.mask),
        restorer: action.restorer.into(),
        blocked: action.mask,
    }
}

impl Report for Signals {
    fn text(&self, width: Option<u16>) -> String {
        let mut out = String::new();
        for process in &self.processes {
            let _ = writeln!(out, "process {} {}", process.pid, process.name.printable());
            out.push_str(&actions(process, width));
            for queued in &process.pending {
                let _ = writeln!(out, "pending for the process: {queued}");
            }
            out.push_str(&masks(process, width));
            for thread in &process.threads {
                for queued in &thread.pending {
                    let _ = writeln!(out, "pending for thread {}: {queued}", thread.tid);
                }
            }
            out.push('\n');
        }
        out
    }
}

fn actions(process: &One, width: Option<u16>) -> String {
    let mut table = table(&["SIGNAL", "DISPOSITION", "HANDLER", "WHILE IT RUNS, BLOCKED", "FLAGS"], width);
    let mut defaults = 0;
    for action in &process.actions {
        if action.disposition == "default" && action.flags.is_empty() && action.mask.is_empty() {
            defaults += 1;
            continue;
        }
        let handler = match (&action.place, action.handler) {
            (Some(place), _) => place.clone(),
            (None, Some(handler)) => handler.to_string(),
            (None, None) => String::new(),
        };
        let blocked = if action.handler.is_some() { signals::mask_text(action.blocked) } else { String::new() };
        table.add_row([action.signal.clone(), action.disposition.into(), handler, blocked, action.flags.join(" ")]);
    }
    let rest = format!("{} at the default\n", count(defaults, "signal"));
    if table.row_count() == 0 { rest } else { lines(&mut table) + &rest }
}

fn masks(process: &One, width: Option<u16>) -> String {
    let mut table = table(&[">THREAD", "NAME", "BLOCKED"], width);
    for thread in &process.threads {
        table.add_row([thread.tid.to_string(), thread.name.printable(), signals::mask_text(thread.mask)]);
    }
    lines(&mut table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::address::Addr;
    use crate::image::tests::sample::{PRIVATE_FILE, snapshot};

    fn info(signal: i32, code: i32, pid: i32, uid: i32, value: u64) -> QueuedSignal {
        let mut info = vec![0; 128];
        for (at, word) in [(0, signal), (8, code), (16, pid), (20, uid)] {
            info[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        info[24..32].copy_from_slice(&value.to_le_bytes());
        QueuedSignal { info }
    }

    #[test]
    fn queued_signals_say_who_sent_them() {
        let say = |queued: &QueuedSignal| Queued::from(queued).to_string();
        assert_eq!(say(&info(10, 0, 5, 1000, 9)), "SIGUSR1 (SI_USER from pid 5 uid 1000)");
        assert_eq!(say(&info(36, -1, 5, 0, 9)), "SIGRTMIN+2 (SI_QUEUE from pid 5 uid 0 value 0x9)");
        assert_eq!(say(&info(14, -2, 0, 0, 7)), "SIGALRM (SI_TIMER value 0x7)");
        assert_eq!(say(&info(2, 0x80, 0, 0, 7)), "SIGINT (SI_KERNEL)");
        assert_eq!(say(&QueuedSignal { info: vec![1] }), "SIG0 (SI_USER from pid 0 uid 0)");
    }

    #[test]
    fn only_what_is_not_default_is_shown_to_people() {
        let mut snapshot = snapshot();
        let actions = &mut snapshot.signal_handlers[0].actions;
        actions[1] = SignalAction { handler: Addr(PRIVATE_FILE), flags: 0x1400_0000, restorer: Addr(1), mask: 1 << 14 };
        actions[12].handler = Addr(1);
        insta::assert_snapshot!(report(&snapshot).text(None), @r"
        process 100 sample
        SIGNAL   DISPOSITION  HANDLER        WHILE IT RUNS, BLOCKED  FLAGS
        SIGINT   handler      sample+0x1000  SIGTERM                 SA_RESTORER SA_RESTART
        SIGPIPE  ignore
        62 signals at the default
        pending for the process: SIGUSR1 (SI_USER from pid 0 uid 0)
        THREAD  NAME    BLOCKED
           100  sample  SIGHUP
           101  sample  SIGHUP
        ");
    }
}
