//! POSIX shared memory, and what processes wait for in it.

use crate::support::victim::program;
use crate::support::{Facts, Room, Victim, isolated, wait};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

/// What a victim has in memory under a name, removed at the end.
struct Names(Vec<PathBuf>);

impl Names {
    fn of(victim: &mut Victim) -> Self {
        let names = victim.ask("names");
        let names = names.split_whitespace().map(|name| PathBuf::from("/dev/shm").join(name));
        Self(names.chain([victim.path("memory")]).collect())
    }

    fn remove(&self) {
        self.0.iter().for_each(|name| fs::remove_file(name).unwrap_or_else(|e| panic!("{}: {e}", name.display())));
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = fs::remove_file(name);
        }
    }
}

fn killed(room: &Room) -> (Victim, PathBuf, Facts, Names) {
    killed_of(room, room.victim("named", &[]))
}

fn killed_of(room: &Room, mut victim: Victim) -> (Victim, PathBuf, Facts, Names) {
    let names = Names::of(&mut victim);
    victim.check();
    let facts = Facts::of(victim.pid());
    let image = room.dump_and_kill(&mut victim, "killed.snap");
    wait::alone();
    (victim, image, facts, names)
}

#[test]
fn a_robust_mutex_and_semaphores_between_processes() {
    isolated(|room| {
        let (mut victim, image, before, _names) = killed(room);
        assert_eq!(room.restore(&image, &[]), victim.pid());
        before.without("map ").assert_same(&Facts::of(victim.pid()).without("map "), "after the restore");
        victim.check();
        victim.ask("final");
        victim.end();
    });
}

#[test]
fn memory_with_a_name_is_made_again_when_it_is_gone() {
    isolated(|room| {
        let (mut victim, image, before, names) = killed(room);
        let look = |path: &PathBuf| {
            let meta = fs::metadata(path).expect("the file");
            (meta.mode(), meta.len(), meta.uid(), meta.gid())
        };
        let attributes: Vec<_> = names.0.iter().map(look).collect();
        names.remove();
        for fault in ["unmapped", "barrier", "barrier:error"] {
            let run = room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", fault).run();
            assert_ne!(run.code, Some(0), "{fault}: {run}");
            let none = || names.0.iter().all(|name| !name.exists()).then_some(());
            wait::until(&format!("no file to be left after {fault}"), none);
            wait::alone();
        }
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(0);
        run.says("is made again with what it held at the dump");
        before.without("map ").assert_same(&Facts::of(victim.pid()).without("map "), "after the restore");
        assert_eq!(names.0.iter().map(look).collect::<Vec<_>>(), attributes);
        victim.check();
        victim.ask("final");
        victim.end();
    });
}

#[test]
fn small_memory_in_tmp_is_made_again_too() {
    isolated(|room| {
        // On a disk, where /tmp is on one.
        let directory = tempfile::Builder::new().prefix("snap-named-").tempdir_in("/tmp").expect("a directory");
        let mut command = Command::new(program("named"));
        command.arg(directory.path());
        let victim = Victim::start_command(command, directory.path().to_path_buf());
        let (mut victim, image, before, names) = killed_of(room, victim);
        names.remove();
        // With all that a start of the machine takes away.
        let (path, aside) = (directory.path(), directory.path().with_extension("aside"));
        fs::rename(path, &aside).expect("rename");
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        fs::rename(aside, path).expect("rename");
        run.says(&format!("in which it is made again: mkdir -p {}", path.display()));
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(0);
        run.says("/memory, which is gone, is made again with what it held at the dump");
        before.without("map ").assert_same(&Facts::of(victim.pid()).without("map "), "after the restore");
        victim.check();
        victim.ask("final");
        victim.end();
    });
}

#[test]
fn memory_that_has_changed_since_is_not_taken_for_what_it_was() {
    isolated(|room| {
        let mut victim = room.victim("named", &[]);
        let names = Names::of(&mut victim);
        let image = room.dump(victim.pid(), "first.snap", &[]);
        victim.ask("change");
        victim.end();
        wait::alone();
        let memory = victim.path("memory");
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        run.says("what it holds has changed since the dump").says("remove it").says("--files ignore");
        fs::remove_file(&memory).expect("the file");
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        victim.ask("final");
        victim.end();
        drop(names);
    });
}
