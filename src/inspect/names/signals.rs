//! Signals, their flags and their origins (signal(7), sigaction(2)).

use super::bits;

const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The name of a signal: `SIGINT`, `SIGRTMIN+2`; 32 and 33, which libraries keep for themselves, are `SIG32`, `SIG33`.
#[must_use]
pub fn name(signal: i32) -> String {
    match signal {
        1..=31 => NAMES[signal as usize - 1].to_owned(),
        34 => "SIGRTMIN".to_owned(),
        35..=49 => format!("SIGRTMIN+{}", signal - 34),
        50..=63 => format!("SIGRTMAX-{}", 64 - signal),
        64 => "SIGRTMAX".to_owned(),
        _ => format!("SIG{signal}"),
    }
}

/// The names of the signals in a mask, bit N-1 for signal N.
#[must_use]
pub fn mask(mask: u64) -> Vec<String> {
    (1..=64).filter(|signal| mask & (1 << (signal - 1)) != 0).map(name).collect()
}

/// A mask for people: where most signals are in it, those that are not.
#[must_use]
pub fn mask_text(set: u64) -> String {
    // SIGKILL and SIGSTOP cannot be blocked; nobody wants to read that they are not.
    const UNBLOCKABLE: u64 = 1 << 8 | 1 << 18;
    match set.count_ones() {
        0 => "none".to_owned(),
        1..=40 => mask(set).join(" "),
        _ if set | UNBLOCKABLE == u64::MAX => "all".to_owned(),
        _ => format!("all but {}", mask(!set & !UNBLOCKABLE).join(" ")),
    }
}

/// SA_* flags.
#[must_use]
pub fn action_flags(flags: u64) -> Vec<String> {
    bits(
        flags,
        &[
            (0x1, "SA_NOCLDSTOP"),
            (0x2, "SA_NOCLDWAIT"),
            (0x4, "SA_SIGINFO"),
            (0x800, "SA_EXPOSE_TAGBITS"),
            (0x0400_0000, "SA_RESTORER"),
            (0x0800_0000, "SA_ONSTACK"),
            (0x1000_0000, "SA_RESTART"),
            (0x4000_0000, "SA_NODEFER"),
            (0x8000_0000, "SA_RESETHAND"),
        ],
    )
}

/// Where a signal comes from: `si_code`.
#[must_use]
pub fn code(signal: i32, code: i32) -> String {
    const ORIGINS: [(i32, &str); 9] = [
        (0, "SI_USER"),
        (0x80, "SI_KERNEL"),
        (-1, "SI_QUEUE"),
        (-2, "SI_TIMER"),
        (-3, "SI_MESGQ"),
        (-4, "SI_ASYNCIO"),
        (-5, "SI_SIGIO"),
        (-6, "SI_TKILL"),
        (-60, "SI_ASYNCNL"),
    ];
    const CHILD: [&str; 6] = ["CLD_EXITED", "CLD_KILLED", "CLD_DUMPED", "CLD_TRAPPED", "CLD_STOPPED", "CLD_CONTINUED"];
    if let Some((_, name)) = ORIGINS.iter().find(|(number, _)| *number == code) {
        return (*name).to_owned();
    }
    match (signal, code) {
        (17, 1..=6) => CHILD[code as usize - 1].to_owned(),
        (11, 1) => "SEGV_MAPERR".to_owned(),
        (11, 2) => "SEGV_ACCERR".to_owned(),
        _ => code.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_names_of_signal_7() {
        for (number, expected) in [
            (1, "SIGHUP"),
            (9, "SIGKILL"),
            (17, "SIGCHLD"),
            (31, "SIGSYS"),
            (32, "SIG32"),
            (34, "SIGRTMIN"),
            (49, "SIGRTMIN+15"),
            (50, "SIGRTMAX-14"),
            (64, "SIGRTMAX"),
            (65, "SIG65"),
            (0, "SIG0"),
        ] {
            assert_eq!(name(number), expected);
        }
    }

    #[test]
    fn masks_name_the_smaller_part() {
        assert_eq!(mask_text(0), "none");
        assert_eq!(mask_text(0b10), "SIGINT");
        assert_eq!(mask_text(u64::MAX), "all");
        assert_eq!(mask_text(!(1 << 8 | 1 << 18)), "all");
        assert_eq!(mask_text(!(1 << 14)), "all but SIGTERM");
        assert_eq!(mask(1 << 63 | 1), ["SIGHUP", "SIGRTMAX"]);
    }
}
