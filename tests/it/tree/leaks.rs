//! What ties a tree to processes outside is found, and named with that process and what it holds.

use super::{channel, family};
use crate::support::{Facts, Room, Victim, facts, isolated, wait};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};

/// A dump of this process, and a look at it, are refused with all of these words; nothing is left behind.
fn assert_refused(room: &Room, pid: i32, words: &[&str]) {
    let dump = room.snap(["dump", &pid.to_string(), "-o", "leak.snap"]).run().expect(3);
    let check = room.snap(["check", &pid.to_string()]).run().expect(3);
    for word in words {
        assert!(dump.stderr.contains(word), "the dump does not say `{word}`: {dump}");
        assert!(check.stdout.contains(word), "the check does not say `{word}`: {check}");
    }
    assert_eq!(room.images(), [""; 0]);
}

/// A command of the test, killed with its process group when dropped.
struct Group(Child);

impl Group {
    fn start(command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt;
        let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(silent.process_group(0).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Its children, once there are so many of them that run this program.
    fn children(&self, program: &str, count: usize) -> Vec<i32> {
        let comm = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        wait::until(&format!("{count} children that run {program}"), || {
            let text = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).ok()?;
            let pids: Vec<i32> = text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
            (pids.iter().filter(|pid| comm(pid).trim() == program).count() == count).then_some(pids)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(-self.pid());
        let _ = nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

#[test]
fn exam_18_memory_that_a_parent_outside_shares_is_named() {
    isolated(|room| {
        let victim = room.victim("family", &[channel(), "fork"]);
        let child = family(&victim)[1];
        let parent = format!("pid {} (family) mapping", victim.pid());
        assert_refused(room, child, &[&parent, "shares this memory", &format!("pid {child}")]);
        victim.check();
        room.dump(victim.pid(), "whole.snap", &[]);
    });
}

#[test]
fn exam_18_a_memfd_that_somebody_outside_holds_is_named() {
    isolated(|room| {
        let memfd = nix::sys::memfd::memfd_create(c"leak", nix::sys::memfd::MFdFlags::empty()).expect("a memfd");
        let ours = format!("pid {} (", std::process::id());
        let held = format!(") fd {}", memfd.as_raw_fd());
        let directory = Victim::directory_in(room, "memfd");
        let mut command = Command::new(crate::support::victim::program("c-dynamic"));
        command.arg(&directory).stdin(Stdio::from(File::from(memfd.try_clone().expect("dup"))));
        let victim = Victim::start_with_stdin(command, directory);
        assert_refused(room, victim.pid(), &[&ours, &held, "fd 0: /memfd:leak"]);
        drop(memfd);
        victim.check();
        room.dump(victim.pid(), "alone.snap", &[]);
        victim.check();
    });
}

#[test]
fn exam_18_a_part_of_a_pipeline_is_refused_with_the_way_out_and_the_whole_is_dumped() {
    isolated(|room| {
        let shell = Group::start(Command::new("sh").args(["-c", "sleep 1000 | sleep 1000; true"]));
        let children = shell.children("sleep", 2);
        let way_out = format!("snap dump {}", shell.pid());
        let other = format!("pid {} (sleep) fd 0", children[1]);
        assert_refused(room, children[0], &["fd 1: pipe:", &other, &way_out, "> FILE"]);
        let other = format!("pid {} (sleep) fd 1", children[0]);
        assert_refused(room, children[1], &["fd 0: pipe:", &other, &way_out, "< FILE"]);
        let before: Vec<Facts> = children.iter().map(|pid| Facts::of(*pid)).collect();
        room.dump(shell.pid(), "whole.snap", &[]);
        for (pid, before) in children.iter().zip(&before) {
            before.assert_same(&Facts::of(*pid), "after a dump of the pipeline");
        }
    });
}

/// `bash` reads lines that somebody outside sends, and writes them to a file.
fn reader(room: &Room) -> (Child, File) {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
    let mut child = Command::new("bash");
    child.args(["-c", "while read -r line; do echo \"$line\" >> lines; done; echo end >> lines"]);
    use std::os::unix::process::CommandExt;
    let child = child.current_dir(room.path("")).process_group(0).stdin(Stdio::from(reader));
    let child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("bash");
    (child, File::from(writer))
}

fn await_line(room: &Room, line: &str) {
    wait::until(line, || {
        let lines = std::fs::read_to_string(room.path("lines")).ok()?;
        lines.lines().any(|found| found == line).then_some(())
    });
}

#[test]
fn exam_18_another_pipe_takes_the_place_of_one_that_leads_outside() {
    isolated(|room| {
        let (mut child, mut writer) = reader(room);
        writeln!(writer, "before").expect("a line");
        await_line(room, "before");
        let pid = child.id() as i32;
        let link = std::fs::read_link(format!("/proc/{pid}/fd/0")).expect("a link");
        let link = link.to_str().expect("text");
        assert_refused(room, pid, &[&format!("--external '{link}'"), "--allow-leak"]);
        let image = room.path("x.snap");
        let dump = ["dump", &pid.to_string(), "--kill", "--external", link, "--external", "pipe:[1]", "-o"];
        let dumped = room.snap(dump).arg(&image).run().expect(0);
        assert!(dumped.stdout.contains("--external pipe:[1]: no descriptor"), "{dumped}");
        assert!(!dumped.stdout.contains(link), "{dumped}");
        child.wait().expect("its end");
        drop(writer);
        room.snap(["restore", "--detach"]).arg(&image).run().expect(3).says(&format!("--inherit 'FD:{link}'"));
        let wrong = room.snap(["restore", "--detach", "--inherit", "0:pipe:[1]"]).arg(&image).run().expect(3);
        assert!(wrong.stderr.contains("no such external"), "{wrong}");
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
        let mut writer = File::from(writer);
        let given = format!("0:{link}");
        room.snap(["restore", "--detach", "--inherit", &given]).arg(&image).stdin(File::from(reader)).run().expect(0);
        writeln!(writer, "after").expect("a line");
        await_line(room, "after");
        drop(writer);
        await_line(room, "end");
        wait::gone(pid);
    });
}

#[test]
fn exam_18_files_and_terminals_are_given_others_in_their_place() {
    isolated(|room| {
        let old = room.path("old input");
        std::fs::write(&old, "before\n").expect("a file");
        let terminal = nix::pty::openpty(None, None).expect("a terminal");
        crate::support::namespace::close_on_exec();
        let slave = nix::unistd::ttyname(&terminal.slave).expect("its name");
        let slave = slave.to_str().expect("text");
        let mut command = Command::new("bash");
        command.args([
            "-c",
            "read -r line; echo \"$line\"; until read -r line; do sleep 0.01; done; echo \"$line\"; echo end",
        ]);
        let child = command.stdin(File::open(&old).expect("a file")).stdout(Stdio::from(terminal.slave));
        let mut child = child.stderr(Stdio::null()).spawn().expect("bash");
        let pid = child.id() as i32;
        let mut screen = std::io::BufReader::new(File::from(terminal.master));
        let mut line = String::new();
        std::io::BufRead::read_line(&mut screen, &mut line).expect("a line");
        assert_eq!(line, "before\r\n");
        let named = ["--external", old.to_str().expect("text"), "--external", slave];
        let image = room.dump(pid, "x.snap", &[&["--kill"], &named[..]].concat());
        child.wait().expect("its end");
        wait::alone();
        let refused = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        assert!(refused.stderr.contains("FD:/dev/pts/") && refused.stderr.contains("old input'"), "{refused}");
        let new = room.path("new input");
        std::fs::write(&new, "after\n").expect("a file");
        let given = [format!("0:{}", old.display()), format!("1:{slave}")];
        let restore = room.snap(["restore", "--detach", "--inherit", &given[0], "--inherit", &given[1]]).arg(&image);
        let output = room.path("output");
        let restore = restore.stdin(File::open(&new).expect("a file"));
        restore.stdout(File::create(&output).expect("a file")).run().expect(0);
        wait::gone(pid);
        let written = std::fs::read_to_string(&output).expect("the output");
        assert!(written.contains("after\nend\n"), "{written}");
    });
}

#[test]
fn exam_18_a_lock_that_a_process_outside_has_too_is_said() {
    isolated(|room| {
        let lock = room.path("lock");
        let flock = Group::start(Command::new("flock").arg(&lock).args(["sleep", "1000"]));
        let sleep = flock.children("sleep", 1)[0];
        let image = room.path("x.snap");
        let dump = room.snap(["dump", "--kill", &sleep.to_string(), "-o"]).arg(&image).run().expect(0);
        let said = format!("taken by pid {} (flock), which is outside", flock.pid());
        assert!(dump.stderr.contains(&said) || dump.stdout.contains(&said), "{dump}");
        drop(flock);
        wait::alone();
        assert_eq!(room.restore(&image, &[]), sleep);
        let held = File::open(&lock).expect("a file").try_lock();
        assert!(matches!(held, Err(std::fs::TryLockError::WouldBlock)), "{held:?}");
    });
}

#[test]
fn exam_18_a_leak_that_is_allowed_is_closed() {
    isolated(|room| {
        let (mut child, mut writer) = reader(room);
        writeln!(writer, "before").expect("a line");
        await_line(room, "before");
        let pid = child.id() as i32;
        let image = room.dump(pid, "x.snap", &["--kill", "--allow-leak"]);
        child.wait().expect("its end");
        assert_eq!(room.restore(&image, &[]), pid);
        await_line(room, "end");
        wait::gone(pid);
    });
}

#[test]
fn exam_06_a_tree_with_its_tracer_in_it_is_refused_before_anything_is_touched() {
    isolated(|room| {
        let strace = Group::start(Command::new("strace").args(["-f", "-o", "/dev/null", "sleep", "1000"]));
        let sleep = strace.children("sleep", 1)[0];
        let traced = || (facts::status(sleep, "TracerPid") == strace.pid().to_string()).then_some(());
        wait::until("strace to trace", traced);
        let tracer = format!("traced by pid {} (strace)", strace.pid());
        assert_refused(room, strace.pid(), &[&tracer, "itself in the tree", &format!("pid {sleep}")]);
        assert_refused(room, sleep, &[]);
        assert_eq!(facts::status(sleep, "TracerPid"), strace.pid().to_string());
        assert_eq!(facts::status(strace.pid(), "TracerPid"), "0");
    });
}

#[test]
fn exam_06_a_child_that_somebody_outside_traces_is_named() {
    isolated(|room| {
        let victim = room.victim("family", &[channel(), "fork", "fork"]);
        let pids = family(&victim);
        let before = Facts::of(pids[1]);
        let strace = Group::start(Command::new("strace").args(["-o", "/dev/null", "-p", &pids[2].to_string()]));
        let traced = || (facts::status(pids[2], "TracerPid") == strace.pid().to_string()).then_some(());
        wait::until("strace to trace", traced);
        let run = room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
        let tracer = format!("pid {} (strace)", strace.pid());
        assert!(run.stderr.contains(&tracer) && run.stderr.contains(&format!("pid {}", pids[2])), "{run}");
        before.assert_same(&Facts::of(pids[1]), "after a refused dump");
        assert_eq!(facts::status(pids[2], "TracerPid"), strace.pid().to_string());
        drop(strace);
        room.dump(victim.pid(), "x.snap", &[]);
    });
}

#[test]
fn exam_18_a_terminal_that_somebody_outside_has_open_is_named() {
    isolated(|room| {
        let script = Group::start(Command::new("script").args(["-qc", "exec sleep 1000", "/dev/null"]));
        let sleep = script.children("sleep", 1)[0];
        let slave = std::fs::read_link(format!("/proc/{sleep}/fd/0")).expect("a terminal");
        let open = || {
            use std::os::unix::fs::OpenOptionsExt;
            File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(&slave).expect("the terminal")
        };
        let held = open();
        let ours = format!("it is the terminal of pid {} (", std::process::id());
        let fd = format!(") fd {}, which is outside", held.as_raw_fd());
        assert_refused(room, script.pid(), &[&ours, &fd, &slave.display().to_string()]);
        drop(held);
        room.dump(script.pid(), "whole.snap", &[]);
    });
}
