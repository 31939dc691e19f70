//! What tasks share is in the image once, and what they do not share is not.

use super::{channel, descriptors, entry, family, tree};
use crate::support::{Facts, facts, isolated};
use serde_json::Value;
use std::collections::HashSet;

#[test]
fn exam_10_what_processes_share_is_in_the_image_once() {
    isolated(|room| {
        let victim = room.victim("family", &[channel(), "fork", "files", "fs", "memory", "thread"]);
        let pids = family(&victim);
        let before: Vec<Facts> = pids.iter().map(|pid| Facts::of(*pid)).collect();
        let image = room.dump(victim.pid(), "x.snap", &[]);
        for (pid, before) in pids.iter().zip(&before) {
            before.assert_same(&Facts::of(*pid), &format!("pid {pid} after a dump"));
        }
        victim.check();

        let tree = tree(room, &image);
        let of = |pid: i32| entry(&tree["processes"], "pid", pid);
        let main = |pid: i32| &of(pid)["threads"][0];
        let shared: Vec<[bool; 3]> = pids[1..]
            .iter()
            .map(|pid| {
                [
                    main(*pid)["fd_table"] == main(pids[0])["fd_table"],
                    main(*pid)["fs"] == main(pids[0])["fs"],
                    of(*pid)["memory"] == of(pids[0])["memory"],
                ]
            })
            .collect();
        assert_eq!(
            shared,
            [[false, false, false], [true, false, false], [false, true, false], [false, false, true]],
            "{tree:#}"
        );
        let order: Vec<i64> =
            tree["processes"].as_array().expect("a list").iter().filter_map(|p| p["pid"].as_i64()).collect();
        assert_eq!(order, pids.iter().map(|pid| i64::from(*pid)).collect::<Vec<_>>());
        assert_eq!(of(pids[0])["threads"].as_array().map(Vec::len), Some(2));
    });
}

#[test]
fn exam_10_inherited_descriptors_share_a_description_and_files_opened_twice_do_not() {
    isolated(|room| {
        let victim = room.victim("family", &[channel(), "fork", "fork"]);
        let image = room.dump(victim.pid(), "x.snap", &[]);
        let report = descriptors(room, &image);
        let tables = report["tables"].as_array().expect("tables");
        assert_eq!(tables.len(), 3);
        let description = |table: &Value, fd: i32| entry(&table["descriptors"], "fd", fd)["description"].as_i64();
        let of = |fd: i32| tables.iter().map(|table| description(table, fd)).collect::<HashSet<_>>();
        assert_eq!(of(20).len(), 1, "{report:#}");
        assert_eq!(of(20), of(22), "{report:#}");
        assert_eq!(of(21).len(), 1, "{report:#}");
        assert_ne!(of(20), of(21), "{report:#}");
        assert_eq!(entry(&tables[0]["descriptors"], "fd", 20)["shared_by"], 6);
        victim.check();
    });
}

#[test]
fn shared_anonymous_memory_is_one_object() {
    isolated(|room| {
        let victim = room.victim("family", &[channel(), "fork", "fork"]);
        let image = room.dump(victim.pid(), "x.snap", &[]);
        let maps = room.snap(["inspect", "--json"]).arg(&image).arg("maps").run().expect(0).json();
        let spaces = maps["address_spaces"].as_array().expect("address spaces");
        let shared = |space: &Value| -> Vec<String> {
            let mappings = space["mappings"].as_array().expect("mappings").iter();
            mappings.filter(|m| m["kind"] == "shared-memory").map(|m| m["name"].to_string()).collect()
        };
        let names: HashSet<Vec<String>> = spaces.iter().map(shared).collect();
        assert_eq!((spaces.len(), names.len()), (3, 1), "{names:?}");
        assert_eq!(names.iter().next().map(Vec::len), Some(1), "{names:?}");
        victim.check();
    });
}

#[test]
fn the_whole_tree_is_killed_or_stopped_on_request() {
    isolated(|room| {
        let mut victim = room.victim("family", &[channel(), "fork", "fork", "memory"]);
        let pids = family(&victim);
        room.dump(victim.pid(), "x.snap", &["--leave-stopped"]);
        let states: Vec<_> = pids.iter().map(|pid| facts::state(*pid)).collect();
        assert_eq!(states, [Some('T'); 4]);
        for pid in pids.iter().rev() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGCONT).expect("kill");
        }
        victim.check();
        room.dump_and_kill(&mut victim, "y.snap");
        crate::support::wait::alone();
        assert!(pids.iter().all(|pid| facts::state(*pid).is_none()));
    });
}
