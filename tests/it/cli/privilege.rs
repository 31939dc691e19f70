//! An ordinary user: dumps of one's own processes, and the ways to restore them.

use crate::support::snap::{BINARY, Snap};
use crate::support::{Room, Victim, facts, isolated, require_root};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user `nobody`, without groups and capabilities.
const NOBODY: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];

/// Copies a program to where every user can run it.
fn public(room: &Room, program: &Path) -> PathBuf {
    let copy = room.path(&format!("public-{}", program.file_name().unwrap_or_default().to_string_lossy()));
    if !copy.exists() {
        fs::copy(program, &copy).expect("a copy");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    copy
}

fn snap(room: &Room, arguments: &[&str]) -> Snap {
    room.snap(arguments).through(NOBODY, &public(room, Path::new(BINARY)))
}

fn victim(room: &Room, kind: &str, arguments: &[&str]) -> Victim {
    let directory = Victim::directory_in(room, kind);
    let mut command = Command::new(NOBODY[0]);
    command
        .args(&NOBODY[1..])
        .arg(public(room, &crate::support::victim::program(kind)))
        .arg(&directory)
        .args(arguments);
    Victim::start_command(command, directory)
}

#[test]
fn dumps_and_restores_into_a_namespace_of_its_own() {
    isolated(|room| {
        require_root!("to become another user");
        let mut victim = victim(room, "threads", &["4"]);
        assert!(facts::status(victim.pid(), "Uid").starts_with("65534"));
        victim.check();
        let before = crate::support::Facts::of(victim.pid());
        let pid = victim.pid().to_string();
        snap(room, &["dump", &pid, "-o", "first.snap"]).run().expect(0);
        before.assert_same(&crate::support::Facts::of(victim.pid()), "after a dump by its user");
        victim.check();
        snap(room, &["dump", &pid, "-o", "second.snap", "--kill"]).run().expect(0);
        victim.killed();

        let run = snap(room, &["restore", "--detach", "second.snap"]).run().expect(4);
        assert!(run.stderr.contains("--new-pid-namespace"), "no way out is offered: {run}");
        assert_eq!(victim.state(), None);

        let run = snap(room, &["restore", "--detach", "--new-pid-namespace", "second.snap"]).run().expect(0);
        let outer: i32 = run.stdout.trim().parse().unwrap_or_else(|_| panic!("no pid: {run}"));
        victim.goes_by(outer);
        victim.check();
        assert!(facts::status(outer, "NSpid").ends_with(&format!(" {pid}")), "{}", facts::status(outer, "NSpid"));
        victim.end();
    });
}

#[test]
fn restores_with_the_same_pid_when_given_the_capability() {
    isolated(|room| {
        require_root!("to become another user");
        let mut victim = victim(room, "c-static", &[]);
        let pid = victim.pid().to_string();
        snap(room, &["dump", &pid, "-o", "x.snap", "--kill"]).run().expect(0);
        victim.killed();
        let capable = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all,+checkpoint_restore",
            "--ambient-caps=-all,+checkpoint_restore",
        ];
        let run =
            room.snap(["restore", "--detach", "x.snap"]).through(&capable, &public(room, Path::new(BINARY))).run();
        assert_eq!(run.expect(0).stdout.trim(), pid);
        victim.check();
    });
}

#[test]
fn other_ids_are_offered_to_nobody_who_may_not_choose_any() {
    isolated(|room| {
        require_root!("to become another user");
        let victim = victim(room, "c-static", &[]);
        snap(room, &["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(0);
        let run =
            snap(room, &["restore", "--detach", "x.snap"]).run().expect(3).says("end it, or use --new-pid-namespace");
        assert!(!run.stderr.contains("--new-pids"), "{run}");
        victim.check();
    });
}

#[test]
fn a_zombie_that_was_another_users_is_refused() {
    isolated(|room| {
        require_root!("to have been another user");
        let victim = room.victim("unsupported", &["foreign-zombie"]);
        let before = crate::support::Facts::of(victim.pid());
        let run = snap(room, &["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
        run.says("its exit status may not be read: it had another user's ids").says("run as root");
        assert_eq!(room.images(), [""; 0]);
        before.assert_same(&crate::support::Facts::of(victim.pid()), "after a refused dump");
        victim.check();
        // Root reads it.
        room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(0);
    });
}

#[test]
fn another_users_process_is_refused() {
    isolated(|room| {
        require_root!("to become another user");
        let victim = room.victim("c-static", &[]);
        victim.check();
        let before = crate::support::Facts::of(victim.pid());
        snap(room, &["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(4);
        before.assert_same(&crate::support::Facts::of(victim.pid()), "after a dump that is not allowed");
        victim.check();
    });
}

#[test]
fn demo_needs_no_privilege() {
    isolated(|room| {
        require_root!("to become another user");
        snap(room, &["demo"]).run().expect(0);
    });
}

#[test]
fn the_image_of_somebody_else_has_the_exit_code_of_one_that_cannot_be_read() {
    isolated(|room| {
        require_root!("to become another user");
        let victim = room.victim("sleeper", &[]);
        room.dump(victim.pid(), "x.snap", &[]);
        for command in [&["restore", "x.snap"][..], &["inspect", "x.snap"], &["restore", "--dry-run", "x.snap"]] {
            snap(room, command).run().expect(6).says("readable for their owner alone");
        }
    });
}

#[test]
fn a_file_that_this_user_may_not_look_at_is_named_as_that() {
    isolated(|room| {
        require_root!("to become another user");
        let closed = room.path("closed");
        fs::create_dir(&closed).expect("a directory");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("chmod");
        fs::copy(crate::support::victim::program("c-static"), closed.join("program")).expect("a copy");
        let directory = Victim::directory_in(room, "closed");
        let mut command = Command::new(closed.join("program"));
        command.arg(&directory);
        let victim = Victim::start_command(command, directory);
        let image = room.dump(victim.pid(), "x.snap", &[]);
        fs::set_permissions(&image, fs::Permissions::from_mode(0o644)).expect("chmod");
        let run = snap(room, &["restore", "--dry-run", "x.snap"]).run().expect(3);
        run.says(&closed.join("program").display().to_string()).says("as a user who may open it");
    });
}
