//! `snap inspect FILE timers`: interval timers and POSIX timers.

use super::Report;
use super::json::{Hex, Raw};
use super::names::{signals, tasks};
use super::table::{lines, table};
use super::text::nanos;
use crate::image::model::Snapshot;
use crate::image::model::process::Process;
use crate::image::model::timer::{PosixTimer, TimerNotify, TimerValue};
use serde::Serialize;
use std::fmt::Write;

/// The report.
#[derive(Debug, Serialize)]
pub struct Timers {
    schema: &'static str,
    processes: Vec<One>,
}

#[derive(Debug, Serialize)]
struct One {
    pid: i32,
    name: Raw,
    interval: Vec<Interval>,
    posix: Vec<Posix>,
}

#[derive(Debug, Serialize)]
struct Interval {
    which: &'static str,
    armed: bool,
    remaining_ns: u64,
    interval_ns: u64,
}

#[derive(Debug, Serialize)]
struct Posix {
    id: i32,
    clock: String,
    notify: String,
    signal: Option<String>,
    thread: Option<i32>,
    value: Hex,
    armed: bool,
    remaining_ns: u64,
    interval_ns: u64,
    overrun: i32,
}

/// Makes it.
#[must_use]
pub fn report(snapshot: &Snapshot) -> Timers {
    Timers { schema: "snap.inspect.timers/1", processes: snapshot.processes.iter().map(one).collect() }
}

fn one(process: &Process) -> One {
    let interval = |(which, value): (&'static str, &TimerValue)| Interval {
        which,
        armed: value.remaining != 0,
        remaining_ns: value.remaining,
        interval_ns: value.interval,
    };
    One {
        pid: process.pid.0,
        name: Raw(process.threads.first().map_or_else(Vec::new, |main| main.comm.clone())),
        interval: ["ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"]
            .into_iter()
            .zip(&process.itimers)
            .map(interval)
            .collect(),
        posix: process.timers.iter().map(posix).collect(),
    }
}

fn posix(timer: &PosixTimer) -> Posix {
    let (notify, signal, thread) = match timer.notify {
        TimerNotify::None => ("SIGEV_NONE", None, None),
        TimerNotify::Signal(signal) => ("SIGEV_SIGNAL", Some(signal), None),
        TimerNotify::Thread(signal, tid) => ("SIGEV_THREAD_ID", Some(signal), Some(tid.0)),
    };
    Posix {
        id: timer.id,
        clock: tasks::clock(timer.clock),
        notify: notify.to_owned(),
        signal: signal.map(signals::name),
        thread,
        value: Hex(timer.value),
        armed: timer.time.remaining != 0,
        remaining_ns: timer.time.remaining,
        interval_ns: timer.time.interval,
        overrun: timer.overrun,
    }
}

impl Report for Timers {
    fn text(&self, width: Option<u16>) -> String {
        let mut out = String::new();
        for process in &self.processes {
            let _ = writeln!(out, "process {} {}", process.pid, process.name.printable());
            let armed: Vec<&Interval> = process.interval.iter().filter(|timer| timer.armed).collect();
            if armed.is_empty() && process.posix.is_empty() {
                out.push_str("no timers\n");
                continue;
            }
            let mut table = table(&["TIMER", "CLOCK", ">FIRES IN", ">EVERY", ">OVERRUN", "TELLS"], width);
            for timer in armed {
                table.add_row([
                    timer.which.to_owned(),
                    String::new(),
                    due(true, timer.remaining_ns),
                    period(timer.interval_ns),
                    String::new(),
                    String::new(),
                ]);
            }
            for timer in &process.posix {
                table.add_row([
                    timer.id.to_string(),
                    timer.clock.clone(),
                    due(timer.armed, timer.remaining_ns),
                    period(timer.interval_ns),
                    timer.overrun.to_string(),
                    tells(timer),
                ]);
            }
            out.push_str(&lines(&mut table));
        }
        out
    }
}

fn due(armed: bool, remaining: u64) -> String {
    if armed { nanos(remaining) } else { "disarmed".to_owned() }
}

fn period(interval: u64) -> String {
    if interval == 0 { "once".to_owned() } else { nanos(interval) }
}

fn tells(timer: &Posix) -> String {
    match (&timer.signal, timer.thread) {
        (Some(signal), Some(thread)) => format!("{signal} to thread {thread}, value {}", timer.value),
        (Some(signal), None) => format!("{signal}, value {}", timer.value),
        (None, _) => "nobody".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample::snapshot;

    #[test]
    fn armed_and_disarmed_timers() {
        let mut snapshot = snapshot();
        snapshot.processes[0].itimers[0] = TimerValue { remaining: 1_500_000_000, interval: 0 };
        let mut idle = snapshot.processes[0].timers[0];
        (idle.id, idle.notify, idle.time) = (9, TimerNotify::None, TimerValue::default());
        snapshot.processes[0].timers.push(idle);
        insta::assert_snapshot!(report(&snapshot).text(None), @r"
        process 100 sample
        TIMER        CLOCK            FIRES IN  EVERY  OVERRUN  TELLS
        ITIMER_REAL                     1.50 s   once
        7            CLOCK_MONOTONIC      1 ns   2 ns        0  SIGRTMIN to thread 101, value 0x5
        9            CLOCK_MONOTONIC  disarmed   once        0  nobody
        ");
    }
}
