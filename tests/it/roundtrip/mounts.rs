//! Files that were opened in another mount namespace, as whoever is started in a container inherits some.

use crate::support::snap::BINARY;
use crate::support::{Facts, Room, isolated, needs, wait};
use crate::tree::members;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// A file that is inherited.
fn open(path: impl AsRef<Path>) -> File {
    let file = File::options().read(true).write(true).open(&path).expect("a file");
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).expect("F_SETFD");
    file
}

fn named(room: &Room, name: &str) -> File {
    fs::write(room.path(name), name).expect("a file");
    open(room.path(name))
}

fn run(program: &str, arguments: &[&OsStr]) {
    let status = Command::new(program).args(arguments).status().expect("mount and umount");
    assert!(status.success(), "{program} {arguments:?}");
}

fn bind(what: &Path, on: &Path) {
    run("mount", &["--bind".as_ref(), what.as_ref(), on.as_ref()]);
}

/// What a process has as this descriptor: the file and what is in it.
fn behind(pid: i32, file: i32) -> (u64, String) {
    let file = File::open(format!("/proc/{pid}/fd/{file}")).expect("its descriptor");
    let mut content = [0; 16];
    let count = file.read_at(&mut content, 0).expect("its content");
    (file.metadata().expect("fstat").rdev(), String::from_utf8_lossy(&content[..count]).into_owned())
}

#[test]
fn devices_and_files_that_are_the_same_here() {
    isolated(|room| {
        let held = [open("/dev/null"), open("/dev/zero"), named(room, "named"), named(room, "unlinked")];
        fs::remove_file(room.path("unlinked")).expect("unlink");
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        if needs::privileged() {
            // The same device, as every /dev has one.
            let zero = room.path("zero");
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
            nix::sys::stat::mknod(&zero, nix::sys::stat::SFlag::S_IFCHR, mode, libc::makedev(1, 5)).expect("mknod");
            bind(&zero, "/dev/zero".as_ref());
        }
        let mut victim = room.victim("c-dynamic", &[]);
        let numbers = held.each_ref().map(AsRawFd::as_raw_fd);
        drop(held);
        let portrait = |pid| numbers.map(|number| behind(pid, number));
        let (facts, before) = (Facts::of(victim.pid()), portrait(victim.pid()));
        assert_eq!((before[2].1.as_str(), before[3].1.as_str()), ("named", "unlinked"));

        let first = room.dump(victim.pid(), "first.snap", &[]);
        facts.assert_same(&Facts::of(victim.pid()), "after a dump that left it running");
        let second = room.dump_and_kill(&mut victim, "second.snap");
        for image in [second, first] {
            assert_eq!(room.restore(&image, &[]), victim.pid());
            victim.check();
            facts.assert_same(&Facts::of(victim.pid()), "after the restore");
            assert_eq!(portrait(victim.pid()), before);
            victim.end();
        }
    });
}

#[test]
fn files_of_other_mounts_to_which_no_path_leads_are_refused() {
    isolated(|room| {
        let covered = named(room, "covered");
        fs::write(room.path("other"), "other").expect("a file");
        let tree = room.path("tree");
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        bind(&room.path("other"), &room.path("covered"));
        fs::create_dir(&tree).expect("a directory");
        run("mount", &["-t".as_ref(), "tmpfs".as_ref(), "none".as_ref(), tree.as_ref()]);
        fs::write(tree.join("away"), "away").expect("a file");
        let away = open(tree.join("away"));
        run("umount", &["-l".as_ref(), tree.as_ref()]);
        let victim = room.victim("c-dynamic", &[]);
        let names = [covered, away].map(|file| format!("fd {}: /", file.as_raw_fd()));
        room.refuses(victim, &[&names[0], &names[1], "another mount namespace", "no path here leads to it"]);
        // So that the room can be removed.
        run("umount", &[room.path("covered").as_ref()]);
    });
}

#[test]
fn what_is_in_other_namespaces_is_dumped_from_inside_as_the_refusal_says() {
    isolated(|room| {
        let null = open("/dev/null");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "1000"]);
        let streams = || Stdio::from(null.try_clone().expect("dup"));
        let mut outer = unshare.stdin(streams()).stdout(streams()).stderr(streams()).spawn().expect("unshare");
        let pid = wait::until("its child", || {
            let pid: i32 = members(outer.id() as i32).get(1).copied()?;
            (fs::read_to_string(format!("/proc/{pid}/comm")).ok()? == "sleep\n").then_some(pid)
        });
        let run = room.snap(["dump", &pid.to_string(), "-o", "x.snap"]).run().expect(3);
        run.says(&format!("run snap inside: nsenter --target {pid} --mount --pid snap dump 1"));
        let image = room.path("inside.snap");
        let inside = ["nsenter", "--target", &pid.to_string(), "--mount", "--pid"];
        room.snap(["dump", "1", "-o"]).arg(&image).through(&inside, BINARY.as_ref()).run().expect(0);
        outer.kill().expect("kill");
        outer.wait().expect("wait");
        // Its number is that of whoever restores it.
        let run = room.snap(["restore", "--detach", "--new-pid-namespace"]).arg(&image).run().expect(3);
        run.says("id 1").says("remedy: use --new-pids");
        let restored = room.restore(&image, &["--new-pids"]);
        assert_eq!(fs::read_to_string(format!("/proc/{restored}/comm")).expect("comm"), "sleep\n");
        kill(Pid::from_raw(restored), Signal::SIGKILL).expect("kill");
        wait::gone(restored);
    });
}
