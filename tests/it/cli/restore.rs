//! `snap restore`: pids, files that changed, repetition, stopping, plans.

use crate::support::{Facts, facts, isolated, isolated_for, require_cpu, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[test]
fn exam_14_fifty_restores_in_a_row() {
    isolated_for(Duration::from_secs(300), |room| {
        let mut victim = room.victim("threads", &["8"]);
        victim.check();
        let before = Facts::of(victim.pid());
        let image = room.dump_and_kill(&mut victim, "x.snap");
        for turn in 0..50 {
            assert_eq!(room.restore(&image, &[]), victim.pid(), "restore {turn}");
            before.assert_same(&Facts::of(victim.pid()), &format!("after restore {turn}"));
            victim.check();
            victim.end();
        }
    });
}

#[test]
fn what_was_restored_is_dumped_and_restored_again() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["8"]);
        let before = Facts::of(victim.pid());
        for turn in 0..10 {
            let image = room.dump_and_kill(&mut victim, &format!("{turn}.snap"));
            room.restore(&image, &[]);
            before.assert_same(&Facts::of(victim.pid()), &format!("generation {turn}"));
            victim.check();
        }
    });
}

#[test]
fn exam_12_a_pid_that_is_taken_is_named_and_its_holder_unharmed() {
    isolated(|room| {
        let victim = room.victim("threads", &["4"]);
        let image = room.dump(victim.pid(), "x.snap", &[]);
        let before = Facts::of(victim.pid());
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        run.says(&victim.pid().to_string()).says("--new-pid-namespace");
        before.assert_same(&Facts::of(victim.pid()), "the holder of the pid");
        victim.check();
    });
}

#[test]
fn exam_12_a_pid_of_a_zombie_is_refused_and_who_has_to_reap_it_named() {
    isolated(|room| {
        let mut victim = room.victim("c-static", &[]);
        let image = room.dump(victim.pid(), "x.snap", &["--kill"]);
        assert_eq!(victim.state(), Some('Z'), "we are its parent and have not reaped it");
        // Nobody would end the first process of a pid namespace.
        let ourselves = format!("let pid 1 ({}) reap it (wait(2)), or use", facts::status(1, "Name"));
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        let id = format!("id {}", victim.pid());
        let _ = run.says(&id).says("taken by c-static").says(&ourselves).says("--new-pid-namespace or --new-pids");
        victim.killed();
        room.restore(&image, &[]);
        victim.check();
    });
}

#[test]
fn exam_12_a_pid_of_a_group_is_refused_and_its_members_named() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["4"]);
        let mut member = Command::new("sleep");
        let mut member = member.arg("1000").process_group(victim.pid()).spawn().expect("sleep of coreutils");
        let image = room.dump_and_kill(&mut victim, "x.snap");
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        let named = format!("of pid {} (sleep)", member.id());
        let _ = run.says("taken by a process group or session").says(&named).says("end its members");
        member.kill().expect("kill");
        member.wait().expect("wait");
        room.restore(&image, &[]);
        victim.check();
    });
}

#[test]
fn a_new_pid_namespace_on_request() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["4"]);
        let inner = victim.pid();
        let image = room.dump(inner, "x.snap", &["--kill"]);
        victim.killed();
        let outer = room.restore(&image, &["--new-pid-namespace"]);
        victim.goes_by(outer);
        let numbers = facts::status(outer, "NSpid");
        assert_eq!(numbers.split(' ').next_back(), Some(inner.to_string().as_str()), "NSpid: {numbers}");
        victim.check();
        kill(Pid::from_raw(outer), Signal::SIGKILL).expect("kill");
        wait::gone(outer);
    });
}

#[test]
fn stopped_leaves_it_at_the_instant_of_the_dump() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["4"]);
        victim.check();
        let before = Facts::of(victim.pid());
        let image = room.dump_and_kill(&mut victim, "x.snap");
        let run = room.snap(["restore", "--stopped"]).arg(&image).run().expect(0);
        assert!(run.stdout.contains(&victim.pid().to_string()), "{run}");
        // Its threads pass through the kernel into the stop, without an instruction of their own.
        wait::until("the stop", || (victim.state() == Some('T')).then_some(()));
        before.assert_same(&Facts::of(victim.pid()), "stopped after the restore");
        kill(Pid::from_raw(victim.pid()), Signal::SIGCONT).expect("kill");
        victim.check();
        victim.ask("final");
    });
}

#[test]
fn a_dry_run_prints_the_plan_and_starts_nothing() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["4"]);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        // Where our own mappings are is a fact of the host, which setarch holds still.
        let dry = || {
            let run = room.snap(["restore", "--dry-run"]).arg(&image);
            run.through(&["setarch", "-R"], Path::new(crate::support::snap::BINARY)).run().expect(0)
        };
        let plan = dry();
        assert!(plan.stdout.contains(&victim.pid().to_string()), "{plan}");
        assert_eq!(victim.state(), None, "a dry run has started something");
        let again = dry();
        let steps = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (first, second) = (steps(&plan.stdout), steps(&again.stdout));
        let differ: Vec<_> = first.iter().zip(&second).filter(|(one, other)| one != other).collect();
        assert!(differ.is_empty(), "the same image and host give the same plan: {differ:?}");
        let run = room.snap(["restore", "--dry-run", "--json"]).arg(&image).run().expect(0);
        assert!(run.json()["schema"].as_str().is_some_and(|schema| schema.starts_with("snap.")), "{run}");
    });
}

#[test]
fn detach_as_json() {
    isolated(|room| {
        let mut victim = room.victim("c-static", &[]);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        let run = room.snap(["restore", "--detach", "--json"]).arg(&image).run().expect(0);
        assert_eq!(run.json()["schema"], "snap.restore/1");
        assert_eq!(run.json()["pid"], victim.pid());
        victim.check();
    });
}

#[test]
fn files_open_for_writing_follow_the_policy() {
    isolated(|room| {
        let mut victim = room.victim("files", &["regular"]);
        victim.check();
        let image = room.dump_and_kill(&mut victim, "x.snap");
        let path = victim.path("append");
        let size = fs::metadata(&path).expect("the file").len();
        File::options().append(true).open(&path).and_then(|mut file| file.write_all(b"grown")).expect("growth");
        room.snap(["restore", "--detach"]).arg(&image).run().expect(3).says("append").says("--files");
        assert_eq!(victim.state(), None);
        room.restore(&image, &["--files", "ignore"]);
        assert_eq!(fs::metadata(&path).expect("the file").len(), size + 5);
        victim.end();
        room.restore(&image, &["--files", "truncate"]);
        assert_eq!(fs::metadata(&path).expect("the file").len(), size);
        victim.check();
    });
}

#[test]
fn exam_26_a_cpu_without_registers_that_are_in_use_is_refused() {
    isolated(|room| {
        require_cpu!("avx512bw", "the CPU has no AVX-512, which the victim uses");
        let mut victim = room.victim("c-vector", &[]);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        let restore = room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", "no-avx");
        restore.run().expect(3).says("XSAVE component 2").says("this CPU does not have it");
        assert_eq!(victim.state(), None, "something runs");
        room.restore(&image, &[]);
        victim.check();
        victim.end();
    });
}

#[test]
fn exam_26_a_program_that_was_replaced_is_refused_by_its_name() {
    isolated(|room| {
        let program = room.path("program");
        fs::copy(crate::support::victim::program("c-dynamic"), &program).expect("a copy");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
        let directory = crate::support::Victim::directory_in(room, "replaced");
        let mut command = Command::new(&program);
        command.arg(&directory);
        let mut victim = crate::support::Victim::start_command(command, directory);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        fs::remove_file(&program).expect("rm");
        fs::copy(crate::support::victim::program("c-static"), &program).expect("another program");
        room.snap(["restore", "--detach"]).arg(&image).run().expect(3).says("program").says("--ignore-changed");
        assert_eq!(victim.state(), None);
        fs::remove_file(&program).expect("rm");
        room.snap(["restore", "--detach"]).arg(&image).run().expect(3).says("program").says("put the file back");
    });
}

#[test]
fn exam_27_a_restore_leaves_nothing_of_ours_behind() {
    isolated(|room| {
        let mut victim = room.victim("c-dynamic", &[]);
        victim.check();
        let before = Facts::of(victim.pid());
        let image = room.dump_and_kill(&mut victim, "x.snap");
        room.restore(&image, &[]);
        before.assert_same(&Facts::of(victim.pid()), "exam 27: after the restore");
        assert_eq!(facts::status(victim.pid(), "TracerPid"), "0");
        assert_eq!(facts::status(victim.pid(), "PPid"), "1", "snap is gone, so the orphan is ours");
        victim.end();
        let processes = fs::read_dir("/proc").expect("proc").flatten();
        let others: Vec<_> = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).collect();
        assert_eq!(others, [1], "processes that the restore left");
    });
}
