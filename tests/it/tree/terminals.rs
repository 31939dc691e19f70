//! Terminals both of whose ends are in the tree.

use super::{end, survives};
use crate::support::{Room, Victim, isolated, wait};
use std::path::Path;
use std::process::Command;

/// A script that holds terminals.
fn holder(room: &Room, name: &str) -> Victim {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scripts").join(name);
    let directory = Victim::directory_in(room, name);
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).arg(&directory);
    Victim::start_command(command, directory)
}

#[test]
fn terminals_that_have_hung_up_or_that_nobody_has_open_and_dev_tty() {
    // Others on this machine may take the numbers of terminals.
    isolated(|room| survives(room, room.victim("pty", &[]), &["fd "]));
}

/// Both ways of looking at a holder, which has vim with text that it saves on request.
fn is_driven_on(room: &Room, name: &str) {
    let mut victim = holder(room, name);
    victim.check();
    let first = room.dump(victim.pid(), "first.snap", &[]);
    victim.check();
    let second = room.dump_and_kill(&mut victim, "second.snap");
    wait::alone();
    assert_eq!(room.restore(&second, &[]), victim.pid());
    victim.check();
    victim.ask("save");
    victim.ask("end");
    end(&mut victim);

    std::fs::remove_file(victim.path("text")).expect("the text that vim has saved");
    assert_eq!(room.restore(&first, &["--files", "ignore"]), victim.pid());
    victim.check();
    victim.ask("save");
    end(&mut victim);
}

#[test]
fn exam_20_vim_with_unsaved_text_less_top_and_a_shell_with_jobs_are_driven_on_with_keys() {
    isolated(|room| is_driven_on(room, "terminal.py"));
}

#[test]
fn exam_20_tmux() {
    // The name of a socket is short, and so must be that of the test.
    isolated(|room| is_driven_on(room, "tmux.py"));
}
