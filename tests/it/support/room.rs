//! The room of one test: a directory of its own in memory, removed with everything in it.

use super::facts::Facts;
use super::snap::Snap;
use super::victim::Victim;
use super::wait;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a test keeps its images and victims. Gone, it takes with it what they have left in /dev/shm under a name of their own.
pub struct Room {
    directory: tempfile::TempDir,
}

impl Drop for Room {
    fn drop(&mut self) {
        let names = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let marks: Vec<String> = names(self.directory.path()).map(|victim| fixtures::mark(&victim)).collect();
        let is_theirs = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.contains("snap-") && marks.iter().any(|mark| name.ends_with(mark))
        };
        for left in names(Path::new("/dev/shm")).filter(is_theirs) {
            let _ = fs::remove_file(left);
        }
    }
}

impl Room {
    /// A directory on /dev/shm that every user may enter.
    pub fn new(test: &str) -> Self {
        let prefix = format!("snap-{}-", test.rsplit("::").next().unwrap_or(test));
        let directory =
            tempfile::Builder::new().prefix(&prefix).tempdir_in("/dev/shm").expect("a directory on /dev/shm");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("chmod of the room");
        Self { directory }
    }

    /// A path in the room.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Names in the room that look like an image, temporary ones included.
    pub fn images(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).expect("the room");
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.contains(".snap"))
            .collect()
    }

    /// `snap` with these arguments, to be run in the room.
    pub fn snap<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(&self, arguments: I) -> Snap {
        Snap::new(self.directory.path(), arguments)
    }

    /// Dumps `pid` into `image`, successfully.
    pub fn dump(&self, pid: i32, image: &str, more: &[&str]) -> PathBuf {
        let path = self.path(image);
        self.snap(["dump", &pid.to_string(), "-o"]).arg(&path).args(more).run().expect(0);
        assert!(path.is_file(), "the dump reported success but left no image");
        path
    }

    /// Dumps a victim into `image` with `--kill`, and waits for its end.
    pub fn dump_and_kill(&self, victim: &mut Victim, image: &str) -> PathBuf {
        let image = self.dump(victim.pid(), image, &["--kill"]);
        victim.killed();
        image
    }

    /// Restores `image` with `--detach`, successfully, and returns the pid that it reports.
    pub fn restore(&self, image: &Path, more: &[&str]) -> i32 {
        let output = self.snap(["restore", "--detach"]).arg(image).args(more).run().expect(0);
        output.stdout.trim().parse().unwrap_or_else(|_| panic!("--detach printed no pid: {output}"))
    }

    /// From now on this is another boot: the kernel shows its boot id in a file, and here that file is another one, in the mount
    /// namespace of the test.
    pub fn reboot(&self) {
        const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
        let other = self.path("boot_id");
        fs::write(&other, "00000000-1111-4222-8333-444444444444\n").expect("another boot id");
        let status = Command::new("mount").arg("--bind").arg(&other).arg(BOOT_ID).status().expect("mount");
        assert!(status.success(), "mounting over {BOOT_ID}");
    }

    /// Starts a victim of package `fixtures`, waits until it is ready.
    pub fn victim(&self, kind: &str, arguments: &[&str]) -> Victim {
        Victim::start(self, kind, arguments)
    }

    /// The whole promise for one victim: a dump that leaves it running changes nothing; dump, kill and restore neither; and the image of
    /// the first dump still restores after that.
    pub fn survives(&self, victim: Victim) {
        self.survives_but(victim, &[]);
    }

    /// As [`Room::survives`], for a victim some of whose facts change by themselves.
    pub fn survives_but(&self, victim: Victim, restless: &[&str]) {
        self.survives_and(victim, restless, || {});
    }

    /// As [`Room::survives`], for a victim with children, which nobody but this process reaps once it has ended.
    pub fn survives_with_children(&self, victim: Victim) {
        self.survives_and(victim, &[], wait::alone);
    }

    fn survives_and(&self, mut victim: Victim, restless: &[&str], ended: impl Fn()) {
        let facts =
            |victim: &Victim| restless.iter().fold(Facts::of(victim.pid()), |facts, prefix| facts.without(prefix));
        victim.check();
        let before = facts(&victim);
        let first = self.dump(victim.pid(), "first.snap", &[]);
        before.assert_same(&facts(&victim), "after a dump that left it running");
        victim.check();

        let before = facts(&victim);
        let second = self.dump_and_kill(&mut victim, "second.snap");
        ended();
        let restored = self.restore(&second, &[]);
        assert_eq!(restored, victim.pid(), "another pid after the restore");
        before.assert_same(&facts(&victim), "after the restore");
        victim.check();
        victim.ask("final");
        victim.end();
        ended();

        assert_eq!(self.restore(&first, &["--files", "truncate"]), victim.pid());
        victim.check();
        victim.ask("final");
        victim.end();
    }

    /// For a victim that this user may not dump: every reason is named with these words, and it is as before.
    pub fn refuses(&self, victim: Victim, words: &[&str]) {
        victim.check();
        let before = Facts::of(victim.pid());
        for fate in ["--leave-running", "--kill"] {
            let mut run = self.snap(["dump", fate, &victim.pid().to_string(), "-o", "refused.snap"]).run().expect(3);
            for word in words {
                run = run.says(word);
            }
            assert_eq!(self.images(), [""; 0], "{fate}: an image is left: {run}");
            before.assert_same(&Facts::of(victim.pid()), "after a refused dump");
            victim.check();
        }
        victim.ask("final");
    }
}
