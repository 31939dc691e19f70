//! Children that have ended and that nobody has reaped.

use super::{channel, entry, family, tree};
use crate::support::{Facts, isolated};

#[test]
fn exam_13_zombies_are_in_the_image_and_are_reaped_by_their_parent_afterwards() {
    isolated(|room| {
        let victim = room.victim("family", &[channel(), "zombie", "killed", "fork"]);
        let pids = family(&victim);
        let before = Facts::of(victim.pid());
        let image = room.dump(victim.pid(), "x.snap", &[]);
        before.assert_same(&Facts::of(victim.pid()), "after a dump");
        let tree = tree(room, &image);
        // Living children are listed first.
        let zombies = &tree["zombies"];
        let (exited, killed) = (entry(zombies, "pid", pids[2]), entry(zombies, "pid", pids[3]));
        assert_eq!(
            (exited["exit_code"].as_i64(), killed["killed_by"].as_str()),
            (Some(7), Some("SIGKILL")),
            "{tree:#}"
        );
        for zombie in [exited, killed] {
            assert_eq!(zombie["ppid"], victim.pid());
            assert_eq!((&zombie["name"], &zombie["exit_signal"]), (&"family".into(), &"SIGCHLD".into()));
        }
        assert_eq!(tree["processes"].as_array().map(Vec::len), Some(2));
        victim.check();
        victim.ask("final");
    });
}

#[test]
fn exit_signals_other_than_sigchld_are_in_the_image() {
    isolated(|room| {
        let victim = room.victim("family", &[channel(), "fork", "usr1", "no-signal"]);
        let pids = family(&victim);
        let tree = tree(room, &room.dump(victim.pid(), "x.snap", &[]));
        let signals: Vec<_> =
            pids[1..].iter().map(|pid| entry(&tree["processes"], "pid", *pid)["exit_signal"].as_str()).collect();
        assert_eq!(signals, [Some("SIGCHLD"), Some("SIGUSR1"), None], "{tree:#}");
        victim.check();
    });
}
