//! `snap restore` in the foreground: it stands in for the program as its parent.

use crate::support::snap::{BINARY, Running, Snap};
use crate::support::{Room, Victim, facts, isolated, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;

fn foreground(room: &Room, image: &Path, victim: &Victim) -> Running {
    attend(room.snap(["restore"]).arg(image), victim)
}

fn attend(snap: Snap, victim: &Victim) -> Running {
    let run = snap.spawn();
    wait::until("the program to run again", || victim.state().filter(|state| !matches!(state, 'Z' | 'X' | 't')));
    victim.check();
    run
}

/// What a parent does with SIGCHLD, its children inherit.
#[test]
fn ends_with_the_exit_code_whatever_its_parent_did_with_sigchld() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["3"]);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        for option in ["--ignore-signal=CHLD", "--block-signal=CHLD"] {
            let snap = room.snap(["restore"]).arg(&image).through(&["env", option], Path::new(BINARY));
            let run = attend(snap, &victim);
            victim.quit(42);
            run.finish().expect(42);
            wait::gone(victim.pid());
        }
    });
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("kill");
}

#[test]
fn ends_with_the_exit_code_of_the_program() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["3"]);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        for code in [0, 1, 42, 255] {
            let run = foreground(room, &image, &victim);
            assert_eq!(facts::status(victim.pid(), "PPid"), run.pid().to_string());
            victim.quit(code);
            run.finish().expect(code);
            wait::gone(victim.pid());
        }
    });
}

#[test]
fn ends_with_the_signal_of_the_program() {
    isolated(|room| {
        let mut victim = room.victim("c-static", &[]);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGUSR1] {
            let run = foreground(room, &image, &victim);
            send(victim.pid(), signal);
            let output = run.finish();
            assert_eq!(output.signal, Some(signal as i32), "{output}");
            wait::gone(victim.pid());
        }
    });
}

#[test]
fn forwards_signals() {
    isolated(|room| {
        let mut victim = room.victim("c-static", &[]);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            let run = foreground(room, &image, &victim);
            send(run.pid(), signal);
            let output = run.finish();
            assert_eq!(output.signal, Some(signal as i32), "{output}");
            assert_eq!(victim.state(), None, "the program did not get {signal}");
        }
    });
}

#[test]
fn stops_and_continues_with_the_program() {
    isolated(|room| {
        let mut victim = room.victim("c-static", &[]);
        let image = room.dump_and_kill(&mut victim, "x.snap");
        let run = foreground(room, &image, &victim);
        send(run.pid(), Signal::SIGTSTP);
        wait::until("the program to stop", || (victim.state() == Some('T')).then_some(()));
        wait::until("snap to stop too", || (facts::state(run.pid()) == Some('T')).then_some(()));
        send(run.pid(), Signal::SIGCONT);
        wait::until("the program to go on", || (victim.state() != Some('T')).then_some(()));
        victim.check();
        victim.quit(0);
        run.finish().expect(0);
    });
}

/// As [`foreground`], in a pid namespace of its own. The victim goes by the pid that it has outside.
fn foreground_inside(room: &Room, image: &Path, victim: &mut Victim, inner: i32) -> Running {
    let run = room.snap(["restore", "--new-pid-namespace"]).arg(image).spawn();
    let outer = wait::until("the program to run again", || {
        let runs = |pid: &i32| facts::status(*pid, "TracerPid") == "0" && *pid != inner;
        facts::innermost(inner).filter(runs)
    });
    victim.goes_by(outer);
    victim.check();
    run
}

#[test]
fn ends_as_a_program_in_a_pid_namespace_does() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["3"]);
        let inner = victim.pid();
        let image = room.dump(inner, "x.snap", &["--kill"]);
        victim.killed();
        for code in [0, 42] {
            let run = foreground_inside(room, &image, &mut victim, inner);
            victim.quit(code);
            run.finish().expect(code);
        }
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            let run = foreground_inside(room, &image, &mut victim, inner);
            send(victim.pid(), signal);
            let output = run.finish();
            assert_eq!(output.signal, Some(signal as i32), "{output}");
        }
    });
}

#[test]
fn stops_and_continues_with_a_program_in_a_pid_namespace() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["3"]);
        let inner = victim.pid();
        let image = room.dump(inner, "x.snap", &["--kill"]);
        victim.killed();
        let run = foreground_inside(room, &image, &mut victim, inner);
        for _ in 0..3 {
            send(run.pid(), Signal::SIGTSTP);
            wait::until("snap to stop", || (facts::state(run.pid()) == Some('T')).then_some(()));
            assert_eq!(victim.state(), Some('T'), "the program");
            send(run.pid(), Signal::SIGCONT);
            wait::until("the program to go on", || (victim.state() != Some('T')).then_some(()));
            victim.check();
        }
        victim.quit(7);
        run.finish().expect(7);
    });
}
