//! `snap check`: what this kernel lacks, and what stands against a dump, seen without touching the target.

use crate::support::{Facts, isolated, wait};

#[test]
fn the_host() {
    isolated(|room| {
        let run = room.snap(["check"]).run().expect(0);
        assert!(run.stdout.lines().count() > 5, "{run}");
        let json = room.snap(["check", "--json"]).run().expect(0).json();
        assert!(json["schema"].as_str().is_some_and(|schema| schema.starts_with("snap.")), "{json}");
    });
}

#[test]
fn a_process_that_can_be_dumped() {
    isolated(|room| {
        for (program, arguments) in [
            ("threads", &["3"][..]),
            ("unix", &[]),
            ("unix_family", &[]),
            ("unix_states", &[]),
            ("sysv", &["semaphores"]),
        ] {
            let mut victim = room.victim(program, arguments);
            let before = Facts::of(victim.pid());
            room.snap(["check", &victim.pid().to_string()]).run().expect(0);
            before.assert_same(&Facts::of(victim.pid()), &format!("after a check of {program}"));
            victim.check();
            victim.end();
            wait::alone();
        }
    });
}

#[test]
fn a_process_that_cannot_be_dumped() {
    isolated(|room| {
        let victim = room.victim("refused", &[]);
        let before = Facts::of(victim.pid());
        let run = room.snap(["check", &victim.pid().to_string()]).run().expect(3);
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(said.contains("- options of sockets"), "it does not say that these are seen later: {run}");
        for kind in victim.ask("kinds").split(' ').filter(|kind| !kind.ends_with("=ebpf-filter")) {
            let fd = kind.split('=').next().unwrap_or_default();
            assert!(said.contains(&format!("fd {fd}:")), "{kind} is not named: {run}");
        }
        before.assert_same(&Facts::of(victim.pid()), "after a check");
        room.snap(["check", "--json", &victim.pid().to_string()]).run().json();
    });
}
