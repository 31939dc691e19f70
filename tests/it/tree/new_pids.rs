//! `--new-pids`: one image many times side by side, under whatever ids are free.

use super::{channel, family};
use crate::support::snap::Output;
use crate::support::{Room, facts, isolated, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Restores under new ids; the report, and what was said.
fn restore(room: &Room, image: &Path) -> (Value, Output) {
    let run =
        room.snap(["restore", "--detach", "--json", "--new-pids", "--files", "ignore"]).arg(image).run().expect(0);
    (run.json(), run)
}

fn new_id(report: &Value, old: i32) -> i32 {
    let id = report["ids"][old.to_string()].as_i64().unwrap_or_else(|| panic!("no new id for {old}: {report}"));
    i32::try_from(id).expect("an id")
}

/// Parent, group, session.
fn relations(pid: i32) -> [i32; 3] {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let mut fields = stat.rsplit_once(") ").expect("a name").1.split(' ').skip(1);
    std::array::from_fn(|_| fields.next().expect("a field").parse().expect("a number"))
}

#[test]
fn exam_12_a_tree_comes_back_twice_beside_the_living_one() {
    isolated(|room| {
        let mut victim = room.victim("family", &[channel(), "fork", "zombie", "memory", "thread"]);
        let old = family(&victim);
        let threads = facts::threads(old[0]);
        let image = room.dump(victim.pid(), "x.snap", &[]);
        let reports: Vec<(Value, Output)> = (0..2).map(|_| restore(room, &image)).collect();
        for (report, run) in &reports {
            let root = new_id(report, old[0]);
            assert_eq!(report["pid"], root);
            assert!(run.stderr.contains(&format!("{} is {root} now", old[0])), "{run}");
            for pid in &old[1..] {
                assert_eq!(relations(new_id(report, *pid))[0], root);
                let [_, group, session] = relations(*pid);
                let map = |id: i32| report["ids"].get(id.to_string()).map_or(id, |_| new_id(report, id));
                assert_eq!(relations(new_id(report, *pid))[1..], [map(group), map(session)]);
            }
            let now: Vec<i32> = threads.iter().map(|tid| new_id(report, *tid)).collect();
            assert_eq!(
                now.into_iter().collect::<std::collections::BTreeSet<_>>(),
                facts::threads(root).into_iter().collect()
            );
        }
        let roots: Vec<i32> = reports.iter().map(|(report, _)| new_id(report, old[0])).collect();
        assert_ne!(roots[0], roots[1]);
        victim.check();
        // One of them goes on alone: they share the channel through which they are asked.
        let others = old.iter().copied().chain(old.iter().map(|pid| new_id(&reports[1].0, *pid)));
        for pid in others {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        wait::gone(old[0]);
        wait::gone(roots[1]);
        victim.goes_by(roots[0]);
        victim.check();
        for pid in &old {
            let _ = kill(Pid::from_raw(new_id(&reports[0].0, *pid)), Signal::SIGKILL);
        }
        victim.end();
        wait::alone();
    });
}

#[test]
fn timers_of_threads_and_files_of_tasks_are_those_of_the_new_ones() {
    isolated(|room| {
        for (kind, arguments) in [("timers", &[][..]), ("files", &["pseudo"])] {
            let mut victim = room.victim(kind, arguments);
            let image = room.dump(victim.pid(), "x.snap", &["--kill"]);
            let old = victim.pid();
            victim.killed();
            let (report, _) = restore(room, &image);
            assert_ne!(new_id(&report, old), old);
            victim.goes_by(new_id(&report, old));
            victim.check();
            victim.end();
            wait::alone();
        }
    });
}

#[test]
fn a_restore_in_the_foreground_tells_the_ids_before_the_program_runs() {
    isolated(|room| {
        let mut victim = room.victim("c-dynamic", &[]);
        let old = victim.pid();
        let image = room.dump(old, "x.snap", &["--kill"]);
        victim.killed();
        let run = room.snap(["restore", "--new-pids"]).arg(&image).spawn();
        let said = wait::until("the new id", || {
            let stderr = run.stderr();
            let (_, rest) = stderr.split_once(&format!("{old} is "))?;
            rest.split_once(' ')?.0.parse::<i32>().ok()
        });
        wait::until("the program to run", || facts::state(said).filter(|state| !matches!(state, 'Z' | 'X' | 't')));
        victim.goes_by(said);
        victim.check();
        kill(Pid::from_raw(said), Signal::SIGKILL).expect("kill");
        assert_eq!(run.finish().signal, Some(9));
        wait::alone();
    });
}

/// A refusal is about the process that was dumped: no other is there yet.
#[test]
fn a_refusal_names_the_process_by_the_id_that_it_had() {
    isolated(|room| {
        let path = room.path("output");
        let output = File::create(&path).expect("a file");
        let mut sleeper = Command::new("sleep");
        let sleeper = sleeper.arg("1000").stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
        let mut sleeper = sleeper.process_group(0).spawn().expect("sleep of coreutils");
        let old = sleeper.id() as i32;
        wait::until("the program", || Some(()).filter(|()| facts::status(old, "Name") == "sleep"));
        let image = room.dump(old, "x.snap", &[]);
        std::fs::write(&path, "more").expect("a longer file");
        for more in [&["--detach"][..], &["--dry-run"]] {
            let run = room.snap(["restore", "--new-pids"]).args(more).arg(&image).run().expect(3);
            let run = run.says(&format!("pid {old}\n")).says("open for writing");
            assert!(!run.stderr.contains("ids are new"), "it speaks of ids that nobody has: {run}");
        }
        sleeper.kill().expect("kill");
        sleeper.wait().expect("wait");
    });
}
