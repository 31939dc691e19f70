//! A desktop in one tree: an X server, a window manager, a terminal with an editor, a client that paints through shared memory.

use crate::support::network::own_network;
use crate::support::{Room, Victim, isolated, require_root, wait};
use crate::tree::end;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The test has its own network, and so its own abstract names, and its own directory of sockets.
const DISPLAY: &str = ":77";

/// How often the screen must look the same to stand still.
const LOOKS: usize = 10;

fn own_sockets(room: &Room) {
    let (place, own) = ("/tmp/.X11-unix", room.path("x"));
    if !Path::new(place).exists() {
        fs::create_dir(place).expect("a directory");
        fs::set_permissions(place, fs::Permissions::from_mode(0o1777)).expect("chmod");
    }
    fs::create_dir(&own).expect("a directory");
    let status = Command::new("mount").arg("--bind").arg(own).arg(place).status().expect("mount");
    assert!(status.success(), "mounting over {place}");
}

fn desktop(room: &Room) -> Victim {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scripts/desktop.py");
    let directory = Victim::directory_in(room, "desktop");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).arg(&directory).env("DISPLAY", DISPLAY);
    Victim::start_command(command, directory)
}

/// What a client from outside sees, which comes and goes.
fn screenshot() -> Vec<u8> {
    let output = Command::new("xwd").args(["-root", "-silent", "-display", DISPLAY]).output().expect("xwd");
    assert!(output.status.success(), "xwd: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn still_screen() -> Vec<u8> {
    wait::until("a screen that stands still", || {
        let first = screenshot();
        (0..LOOKS).all(|_| screenshot() == first).then_some(first)
    })
}

fn saves(victim: &Victim) {
    victim.check();
    victim.ask("save");
    assert_eq!(fs::read_to_string(victim.path("text")).expect("the file of vim"), "never saved, and more\n");
    fs::remove_file(victim.path("text")).expect("unlink");
}

#[test]
fn xvfb_twm_xterm_and_vim() {
    isolated(|room| {
        require_root!("xterm gives its terminal to group tty, which a user namespace of one user does not have");
        own_network();
        own_sockets(room);
        let mut victim = desktop(room);
        let before = still_screen();
        let first = room.dump(victim.pid(), "first.snap", &[]);
        assert!(screenshot() == before, "another screen after a dump");
        victim.check();
        let painted = still_screen();
        assert!(painted != before, "nothing was painted");
        let second = room.dump_and_kill(&mut victim, "second.snap");
        wait::alone();
        for (image, screen) in [(second, painted), (first, before)] {
            assert_eq!(room.restore(&image, &["--files", "ignore"]), victim.pid());
            assert!(screenshot() == screen, "another screen after a restore");
            saves(&victim);
            end(&mut victim);
        }
    });
}
