//! Tasks: scheduling, limits, clocks, CPU state (sched(7), getrlimit(2), clock_getres(2)).

use super::{at, bits};
use crate::image::model::inventory::XSAVE_COMPONENTS;

/// SCHED_*.
#[must_use]
pub fn policy(policy: u32) -> String {
    at(
        u64::from(policy),
        &[
            "SCHED_OTHER",
            "SCHED_FIFO",
            "SCHED_RR",
            "SCHED_BATCH",
            "SCHED_ISO",
            "SCHED_IDLE",
            "SCHED_DEADLINE",
            "SCHED_EXT",
        ],
    )
}

/// ioprio_get(2): class and level.
#[must_use]
pub fn io_priority(value: u32) -> String {
    let class = at(u64::from(value >> 13), &["none", "realtime", "best-effort", "idle"]);
    format!("{class}:{}", value & 0x1fff)
}

/// The name of RLIMIT_ number N.
#[must_use]
pub fn rlimit(number: usize) -> String {
    const NAMES: [&str; 16] = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];
    at(number as u64, &NAMES)
}

/// The name of a clock; CPU clocks of other tasks are negative (clock_getcpuclockid(3)).
#[must_use]
pub fn clock(clock: i32) -> String {
    const NAMES: [&str; 12] = [
        "CLOCK_REALTIME",
        "CLOCK_MONOTONIC",
        "CLOCK_PROCESS_CPUTIME_ID",
        "CLOCK_THREAD_CPUTIME_ID",
        "CLOCK_MONOTONIC_RAW",
        "CLOCK_REALTIME_COARSE",
        "CLOCK_MONOTONIC_COARSE",
        "CLOCK_BOOTTIME",
        "CLOCK_REALTIME_ALARM",
        "CLOCK_BOOTTIME_ALARM",
        "10",
        "CLOCK_TAI",
    ];
    match u64::try_from(clock) {
        Ok(number) => at(number, &NAMES),
        Err(_) => {
            let whose = if clock & 4 != 0 { "tid" } else { "pid" };
            format!("CPU clock of {whose} {}", !(clock >> 3))
        }
    }
}

/// State components of XSAVE that are set in a bit vector such as XCR0.
#[must_use]
pub fn xsave(features: u64) -> Vec<String> {
    bits(features, XSAVE_COMPONENTS)
}

/// CPUs of an affinity mask as a list: `0-3,8`.
#[must_use]
pub fn cpus(words: &[u64]) -> String {
    let set: Vec<usize> = (0..words.len() * 64).filter(|cpu| words[cpu / 64] >> (cpu % 64) & 1 == 1).collect();
    let mut text = String::new();
    let mut rest = set.as_slice();
    while let Some(&first) = rest.first() {
        let len = rest.iter().zip(first..).take_while(|(cpu, expected)| *cpu == expected).count();
        if !text.is_empty() {
            text.push(',');
        }
        match len {
            1 => text.push_str(&first.to_string()),
            _ => text.push_str(&format!("{first}-{}", first + len - 1)),
        }
        rest = &rest[len..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_is_a_list_of_ranges() {
        assert_eq!(cpus(&[0b1_0000_1111, 1]), "0-3,8,64");
        assert_eq!(cpus(&[u64::MAX, u64::MAX]), "0-127");
        assert_eq!(cpus(&[]), "");
    }

    #[test]
    fn clocks_of_tasks_name_the_task() {
        assert_eq!(clock(1), "CLOCK_MONOTONIC");
        // MAKE_PROCESS_CPUCLOCK(4711, CPUCLOCK_SCHED) of include/linux/posix-timers.h.
        assert_eq!(clock((!4711 << 3) | 2), "CPU clock of pid 4711");
        assert_eq!(clock((!4712 << 3) | 6), "CPU clock of tid 4712");
    }

    #[test]
    fn cpu_state_is_named_by_component() {
        assert_eq!(xsave(0xe7), ["x87", "SSE", "AVX", "AVX-512"]);
        assert_eq!(xsave(1 << 18 | 1 << 62), ["AMX-tiles", "0x4000000000000000"]);
    }
}
