//! Threads that read from a terminal outside: after a restore, from the terminal of `snap restore`.

use crate::support::snap::{BINARY, Running};
use crate::support::{Facts, Room, Victim, facts, isolated, wait};
use nix::pty::{OpenptyResult, Winsize, openpty};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// A terminal of ours: the test writes what a user would type.
struct Terminal {
    keyboard: File,
    slave: OwnedFd,
}

impl Terminal {
    fn new(columns: u16, rows: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).expect("a terminal");
        crate::support::namespace::close_on_exec();
        Self { keyboard: master.into(), slave }
    }

    fn slave(&self) -> File {
        self.slave.try_clone().expect("dup").into()
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("the terminal");
    }
}

impl Terminal {
    /// Waits until a program of this name leads the group in the foreground.
    fn awaits_foreground(&self, name: &str) {
        wait::until(&format!("{name} in the foreground"), || {
            let group = nix::unistd::tcgetpgrp(&self.keyboard).ok()?;
            std::fs::read_to_string(format!("/proc/{group}/comm")).is_ok_and(|comm| comm.trim() == name).then_some(())
        });
    }
}

/// A reader on this terminal.
fn reader(room: &Room, terminal: &Terminal) -> Victim {
    let directory = Victim::directory_in(room, "terminal");
    let mut command = Command::new(crate::support::victim::program("terminal"));
    command.arg(&directory).stdin(terminal.slave());
    Victim::start_with_stdin(command, directory)
}

/// A reader whose session this terminal belongs to, and which leads it.
fn leader(room: &Room, terminal: &Terminal) -> Victim {
    let directory = Victim::directory_in(room, "leader");
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(crate::support::victim::program("terminal")).arg(&directory).stdin(terminal.slave());
    Victim::start_in_our_group(command, directory)
}

fn assert_reads(victim: &Victim, wanted: &str) {
    wait::until(&format!("the line `{wanted}`"), || (victim.ask("line") == wanted).then_some(()));
}

/// `snap restore` on a terminal, whose controlling terminal it is.
fn restore_on(room: &Room, image: &Path, terminal: &Terminal, victim: &Victim) -> Running {
    let run = room.snap(["restore"]).arg(image).stdin(terminal.slave());
    let run = run.through(&["setsid", "--ctty", "--wait"], Path::new(BINARY)).spawn();
    wait::until("the program to run again", || {
        assert!(!matches!(facts::state(run.pid()), None | Some('Z')), "the restore has ended: {}", run.stderr());
        victim.state().filter(|state| !matches!(state, 'Z' | 'X' | 't'))
    });
    victim.check();
    run
}

#[test]
fn a_blocked_read_goes_on_when_the_program_is_left_running() {
    isolated(|room| {
        let mut terminal = Terminal::new(80, 24);
        let victim = reader(room, &terminal);
        let before = Facts::of(victim.pid());
        room.dump(victim.pid(), "living.snap", &[]);
        before.assert_same(&Facts::of(victim.pid()), "after a dump that left it running");
        assert_eq!(victim.ask("line"), "", "the read has ended although nobody has typed");
        terminal.types("first\n");
        assert_reads(&victim, "first");
    });
}

#[test]
fn a_blocked_read_goes_on_at_the_terminal_of_the_restore() {
    isolated(|room| {
        let mut old = Terminal::new(80, 24);
        let mut victim = reader(room, &old);
        old.types("typed before\n");
        assert_reads(&victim, "typed before");
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        drop(old);
        // The name of the old one may be that of another, or of none.
        let (_another, mut new) = (Terminal::new(80, 24), Terminal::new(132, 50));
        let run = restore_on(room, &image, &new, &victim);
        assert_eq!(victim.ask("line"), "typed before", "the read has ended although nobody has typed");
        assert_eq!(victim.ask("size"), "132x50");
        new.types("typed after\n");
        assert_reads(&victim, "typed before,typed after");
        victim.quit(7);
        let output = run.finish().expect(7);
        assert!(output.stderr.contains("stands in for the terminal"), "the new terminal is not named: {output}");
    });
}

/// As a login gives it: the leader of a session, in the foreground of its terminal.
#[test]
fn a_session_leader_has_the_new_terminal_in_the_foreground() {
    isolated(|room| {
        let mut old = Terminal::new(80, 24);
        let mut victim = leader(room, &old);
        victim.ask("foreground");
        old.types("typed before\n");
        assert_reads(&victim, "typed before");
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        let mut new = Terminal::new(132, 50);
        drop(old);
        let run = restore_on(room, &image, &new, &victim);
        victim.ask("foreground");
        new.types("typed after\n");
        assert_reads(&victim, "typed before,typed after");
        // Control-C reaches the program as it would any job in the foreground.
        new.types("\u{3}");
        let output = run.finish();
        assert_eq!(output.code.or(output.signal.map(|signal| 128 + signal)), Some(130), "{output}");
        wait::gone(victim.pid());
    });
}

/// Everything that a program has written to a terminal.
fn screen(terminal: &Terminal) -> Arc<Mutex<Vec<u8>>> {
    let screen = Arc::new(Mutex::new(Vec::new()));
    let (mut master, seen) = (terminal.keyboard.try_clone().expect("dup"), Arc::clone(&screen));
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = master.read(&mut bytes) {
            seen.lock().expect("the screen").extend_from_slice(&bytes[..count]);
        }
    });
    screen
}

fn await_on(screen: &Mutex<Vec<u8>>, text: &str) {
    wait::until(&format!("`{text}` on the screen"), || {
        let seen = screen.lock().expect("the screen");
        seen.windows(text.len()).any(|window| window == text.as_bytes()).then_some(())
    });
}

fn is_raw(terminal: &Terminal) -> bool {
    let modes = nix::sys::termios::tcgetattr(&terminal.slave).expect("modes");
    !modes.local_flags.contains(nix::sys::termios::LocalFlags::ICANON)
}

/// A program in the foreground of a terminal of its own.
struct Started {
    child: std::process::Child,
    terminal: Terminal,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Started {
    fn new(program: &[&str]) -> Self {
        let terminal = Terminal::new(80, 24);
        let mut command = Command::new("setsid");
        command.arg("--ctty").args(program).env("TERM", "xterm").env("PS1", "ready> ").env_remove("HISTFILE");
        let command = command.stdin(terminal.slave()).stdout(terminal.slave()).stderr(terminal.slave());
        let child = command.spawn().unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let screen = screen(&terminal);
        Self { child, terminal, screen }
    }

    fn awaits(&self, text: &str) {
        await_on(&self.screen, text);
    }

    fn types(&mut self, text: &str) {
        self.terminal.types(text);
    }

    /// Dumps it and ends it with its terminal; it goes on in another one.
    fn moves(mut self, room: &Room) -> (Running, Terminal, Arc<Mutex<Vec<u8>>>) {
        let image = room.dump(self.child.id() as i32, "moved.snap", &["--kill"]);
        self.child.wait().expect("its end");
        drop(self.terminal);
        wait::alone();
        let new = Terminal::new(132, 50);
        let after = screen(&new);
        assert!(!is_raw(&new));
        let run = room.snap(["restore"]).arg(&image).stdin(new.slave());
        (run.through(&["setsid", "--ctty", "--wait"], Path::new(BINARY)).spawn(), new, after)
    }
}

#[test]
fn exam_20_vim_goes_on_in_another_terminal() {
    isolated(|room| {
        let text = room.path("text");
        let mut vim = Started::new(&["vim", "-N", "-u", "NONE", "-i", "NONE", "-n", text.to_str().expect("a path")]);
        vim.awaits("text");
        vim.types("ihello\u{1b}");
        vim.awaits("hello");
        let (run, mut new, after) = vim.moves(room);
        await_on(&after, "hello");
        assert!(is_raw(&new), "the terminal is not as vim had set it");
        new.types("A, world\u{1b}:wq\r");
        run.finish().expect(0);
        assert_eq!(std::fs::read_to_string(&text).expect("the text"), "hello, world\n");
        assert!(!is_raw(&new), "the terminal is as vim had set it");
    });
}

#[test]
fn exam_20_a_job_in_the_foreground_of_a_shell_stays_there_in_another_terminal() {
    isolated(|room| {
        let text = room.path("text");
        let mut shell = Started::new(&["bash", "--norc", "-i"]);
        shell.types(&format!("vim -N -u NONE -i NONE -n {}\n", text.display()));
        shell.awaits("text\" [New]");
        shell.types("ihello\u{1b}");
        shell.awaits("hello");
        let (run, mut new, after) = shell.moves(room);
        await_on(&after, "hello");
        new.types("A, world\u{1b}:wq\r");
        // The prompt: until then vim reads whatever is typed.
        await_on(&after, "ready> ");
        new.types("exit 7\n");
        run.finish().expect(7);
        assert_eq!(std::fs::read_to_string(&text).expect("the text"), "hello, world\n");
    });
}

#[test]
fn exam_20_less_goes_on_in_another_terminal() {
    isolated(|room| {
        let text = room.path("long");
        std::fs::write(&text, (0..5000).map(|line| format!("line {line}.\n")).collect::<String>()).expect("a file");
        let mut less = Started::new(&["less", text.to_str().expect("a path")]);
        less.awaits("line 0.");
        less.types("2000g");
        less.awaits("line 1999.");
        let (run, mut new, after) = less.moves(room);
        // The new terminal has more rows, which are all filled.
        await_on(&after, "line 2040.");
        new.types("G");
        await_on(&after, "line 4999.");
        new.types("q");
        run.finish().expect(0);
        assert!(!is_raw(&new), "the terminal is as less had set it");
    });
}

#[test]
fn exam_20_top_goes_on_in_another_terminal() {
    isolated(|room| {
        let top = Started::new(&["top", "-d", "0.2"]);
        top.awaits("PID");
        let (run, mut new, after) = top.moves(room);
        await_on(&after, "PID");
        after.lock().expect("the screen").clear();
        await_on(&after, "top");
        new.types("q");
        run.finish().expect(0);
        assert!(!is_raw(&new), "the terminal is as top had set it");
    });
}

#[test]
fn exam_20_a_shell_with_jobs_goes_on_in_another_terminal() {
    isolated(|room| {
        let mut bash = Started::new(&["bash", "--norc", "--noprofile", "-i"]);
        bash.awaits("ready> ");
        bash.types("sleep 1000 &\ncat\n");
        bash.terminal.awaits_foreground("cat");
        bash.types("to and fro\n");
        bash.awaits("to and fro\r\nto and fro\r\n");
        bash.types("\u{1a}");
        bash.awaits("Stopped");
        bash.types("echo $((6 * 7))\n");
        bash.awaits("42");
        let (run, mut new, after) = bash.moves(room);
        new.types("jobs; echo $((6 * 8))\n");
        await_on(&after, "48");
        let seen = String::from_utf8_lossy(&after.lock().expect("the screen")).into_owned();
        assert!(seen.contains("Running") && seen.contains("sleep 1000") && seen.contains("Stopped"), "{seen}");
        new.types("fg\n");
        new.awaits_foreground("cat");
        new.types("once more\n");
        await_on(&after, "once more\r\nonce more\r\n");
        // Control-D ends what is in the foreground, Control-C the other.
        new.types("\u{4}");
        new.awaits_foreground("bash");
        new.types("fg\n");
        new.awaits_foreground("sleep");
        new.types("\u{3}");
        new.awaits_foreground("bash");
        new.types("exit 9\n");
        run.finish().expect(9);
    });
}

#[test]
fn without_a_terminal_the_restore_is_refused() {
    isolated(|room| {
        let old = Terminal::new(80, 24);
        let mut victim = reader(room, &old);
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        let run = room.snap(["restore"]).arg(&image).run().expect(3).says("run snap restore on a terminal");
        assert_eq!(victim.state(), None, "something runs: {run}");
    });
}
