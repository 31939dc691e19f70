//! The harness tests itself: every victim holds its own checks when nobody disturbs it, and a broken one is noticed.
//!
//! Without these, a victim whose check always fails or never fails would say nothing about `snap`.

use crate::support::facts;
use crate::support::{Facts, isolated};

/// Every victim with the arguments that it knows; what only root or a certain CPU can run is tested where it is used.
const KINDS: &[(&str, &[&str])] = &[
    ("c-dynamic", &[]),
    ("c-static", &[]),
    ("c-static-pie", &[]),
    ("c-nolibc", &[]),
    ("c-sanitised", &[]),
    ("toil", &["4"]),
    ("deaf", &["ignores"]),
    ("deaf", &["blocks"]),
    ("deaf", &["handles"]),
    ("c-rseq", &[]),
    ("go-goroutines", &[]),
    ("threads", &[]),
    ("apart", &[]),
    ("leaderless", &[]),
    ("relatives", &["daemons"]),
    ("relatives", &["history"]),
    ("relatives", &["jobs"]),
    ("busy", &[]),
    ("memory", &["anonymous"]),
    ("memory", &["files"]),
    ("memory", &["deleted"]),
    ("memory", &["shared"]),
    ("memory", &["advice"]),
    ("memory", &["locked"]),
    ("memory", &["future"]),
    ("memory", &["protection"]),
    ("memory", &["huge"]),
    ("memory", &["sealed"]),
    ("memory", &["guards"]),
    ("memory", &["policy"]),
    ("memory", &["policy-much"]),
    ("nameless", &["untouched"]),
    ("nameless", &["sparse"]),
    ("nameless", &["closed"]),
    ("nameless", &["holed"]),
    ("nameless", &["sealed"]),
    ("nameless", &["elsewhere"]),
    ("nameless", &["beyond"]),
    ("vmas", &[]),
    ("hoard", &["600", "2"]),
    ("files", &["regular"]),
    ("files", &["sharing"]),
    ("files", &["directories"]),
    ("files", &["unlinked"]),
    ("files", &["devices"]),
    ("files", &["pseudo"]),
    ("files", &["owners"]),
    ("files", &["memfd"]),
    ("files", &["many"]),
    ("pipe", &[]),
    ("socket", &[]),
    ("unix", &[]),
    ("unix_states", &[]),
    ("unix_family", &[]),
    ("in_flight", &[]),
    ("urgent", &[]),
    ("unix_edges", &["error"]),
    ("datagram", &["plain"]),
    ("datagram", &["queued"]),
    ("netlink", &["plain"]),
    ("netlink", &["unread"]),
    ("netlink", &["list"]),
    ("datagram", &["options"]),
    ("datagram", &["groups"]),
    ("datagram", &["more"]),
    ("datagram", &["error"]),
    ("aio", &["waiting"]),
    ("aio", &["threads"]),
    ("aio", &["flight"]),
    ("aio", &["forked"]),
    ("aio", &["shared"]),
    ("fifo", &[]),
    ("pty", &[]),
    ("tcp", &[]),
    ("timerfd", &[]),
    ("timeouts", &[]),
    ("pidfd", &[]),
    ("epoll", &[]),
    ("procfs", &[]),
    ("locks", &["file"]),
    ("inotify", &[]),
    ("machine", &[]),
    ("tcp_states", &["1", "8"]),
    ("echo", &["127.0.0.1"]),
    ("medley", &["100"]),
    ("connections", &["v4"]),
    ("connections", &["v6"]),
    ("signals", &[]),
    ("timers", &[]),
    ("blocked", &[]),
    ("transfer", &[]),
    ("transfer", &["messages"]),
    ("c-messages", &[]),
    ("robust", &[]),
    ("churn", &["memory"]),
    ("churn", &["much", "32"]),
    ("crowd", &["200", "20"]),
    ("churn", &["maps"]),
    ("churn", &["threads"]),
    ("churn", &["descriptors"]),
    ("churn", &["signals"]),
    ("churn", &["forks"]),
    ("attacker", &["mappings"]),
    ("attacker", &["descriptors"]),
    ("attacker", &["vdso-gone"]),
    ("attacker", &["no-address-space"]),
    ("c-vdso", &["flickers"]),
    ("c-outsider", &["counts"]),
    ("debug", &[]),
    ("dispatch", &["open"]),
    ("dispatch", &["blocked"]),
    ("scheduling", &["plain"]),
    ("vdso", &[]),
    ("settings", &["process"]),
    ("settings", &["prctl"]),
    ("settings", &["mdwe"]),
    ("settings", &["membarrier"]),
    ("settings", &["gs"]),
    ("settings", &["cwd-gone"]),
    ("mqueue", &["empty"]),
    ("mqueue", &["messages"]),
    ("mqueue", &["notified"]),
    ("mqueue", &["thread"]),
    ("mqueue", &["family"]),
    ("named", &[]),
    ("sysv", &["segments"]),
    ("sysv", &["detached"]),
    ("sysv", &["semaphores"]),
    ("sysv", &["queues"]),
    ("sysv", &["blocked"]),
    ("sysv", &["apart"]),
    ("sysv", &["own"]),
    ("sysv", &["headless"]),
    ("seccomp", &["errno"]),
    ("seccomp", &["kill"]),
];

#[test]
fn every_victim_passes_its_own_check_undisturbed() {
    isolated(|room| {
        for (kind, arguments) in KINDS {
            let victim = room.victim(kind, arguments);
            victim.check();
            victim.check();
            victim.ask("final");
        }
    });
}

#[test]
fn the_facts_of_an_undisturbed_victim_do_not_change() {
    isolated(|room| {
        // The Go runtime starts threads and sends signals to itself whenever it likes; the others exist to change.
        let restless = |kind: &str| ["go-goroutines", "churn", "attacker", "c-vdso", "c-outsider"].contains(&kind);
        for (kind, arguments) in KINDS.iter().filter(|(kind, _)| !restless(kind)) {
            let victim = room.victim(kind, arguments);
            victim.check();
            let looks = || {
                let before = Facts::of(victim.pid());
                victim.check();
                (before, Facts::of(victim.pid()))
            };
            // On a busy machine a signal that has come may wait for the thread that takes it.
            if (0..20).map(|_| looks()).all(|(before, after)| !before.differences(&after).is_empty()) {
                let (before, after) = looks();
                before.assert_same(&after, &format!("{kind} {arguments:?}"));
            }
        }
    });
}

#[test]
fn the_facts_differ_when_something_has_changed() {
    isolated(|room| {
        let (one, other) = (room.victim("c-dynamic", &[]), room.victim("c-dynamic", &[]));
        let differences = Facts::of(one.pid()).differences(&Facts::of(other.pid()));
        assert!(differences.contains("cmdline") && differences.contains("map "), "{differences}");
    });
}

#[test]
fn a_test_runs_as_pid_1_of_its_own_namespace() {
    isolated(|room| {
        assert_eq!(std::process::id(), 1);
        let victim = room.victim("threads", &["3"]);
        assert_eq!(victim.threads(), 4);
        assert_eq!(facts::status(victim.pid(), "TracerPid"), "0");
        assert!(victim.pid() < 100, "pids are drawn from a pool of our own");
    });
}

#[test]
fn a_victim_that_is_killed_frees_its_pid() {
    isolated(|room| {
        let mut victim = room.victim("c-nolibc", &[]);
        victim.end();
        assert_eq!(facts::state(victim.pid()), None);
    });
}
