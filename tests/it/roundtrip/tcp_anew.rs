//! TCP connections within a tree without CAP_NET_ADMIN, with which they could be repaired: they are made anew.

use super::tcp::every_state;
use crate::support::network::{own_network, without_network_rights};
use crate::support::snap::BINARY;
use crate::support::victim::program;
use crate::support::{Room, Victim, isolated, isolated_for, wait};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn connections_without_rights(room: &Room, family: &str) {
    own_network();
    without_network_rights();
    room.survives(room.victim("connections", &[family, "modest"]));
}

#[test]
fn exam_16_connections_inside_the_tree_without_rights_over_ipv4() {
    isolated(|room| connections_without_rights(room, "v4"));
}

#[test]
fn exam_16_connections_inside_the_tree_without_rights_over_ipv6() {
    isolated(|room| connections_without_rights(room, "v6"));
}

#[test]
fn exam_16_connections_inside_the_tree_without_rights_over_ipv4_in_ipv6() {
    isolated(|room| connections_without_rights(room, "mapped"));
}

#[test]
fn exam_16_connections_inside_the_tree_without_rights_of_a_listener_of_both_versions() {
    isolated(|room| connections_without_rights(room, "dual"));
}

/// Every state in which nobody has sent more than the other side takes; `SNAP_SEED` and `SNAP_TCP_STATES` as with all rights.
#[test]
fn exam_16_every_state_of_tcp_without_rights_that_five_operations_lead_to() {
    isolated(|room| {
        own_network();
        without_network_rights();
        every_state(room, &["modest"], "1 2 5 7 8 10");
    });
}

/// Runs a command without CAP_NET_ADMIN.
const POWERLESS: [&str; 6] = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"];

fn powerless(room: &Room, kind: &str, argument: &str) -> Victim {
    let directory = Victim::directory_in(room, kind);
    let mut command = Command::new(POWERLESS[0]);
    command.args(&POWERLESS[1..]).arg(program(kind)).arg(&directory).arg(argument);
    Victim::start_command(command, directory)
}

/// It has no sequence numbers, whoever restores it.
#[test]
fn connections_of_an_image_that_was_made_without_rights_are_made_anew_with_them_too() {
    isolated(|room| {
        own_network();
        let mut victim = room.victim("connections", &["v6", "modest"]);
        let image = room.path("without.snap");
        let dump = room.snap(["dump", "--kill", &victim.pid().to_string(), "-o"]).arg(&image);
        dump.through(&POWERLESS, Path::new(BINARY)).run().expect(0);
        victim.killed();
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        victim.ask("final");
        victim.end();
    });
}

#[test]
fn a_connection_to_the_outside_is_named_by_a_restore_without_rights_before_anything_runs() {
    isolated(|room| {
        own_network();
        let mut victim = powerless(room, "echo", "127.0.0.1");
        let port: u16 = victim.ask("port").parse().expect("a port");
        let outside = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let served = || (victim.ask("check") == "1").then_some(());
        wait::until("that it is accepted", served);
        let image = room.dump_and_kill(&mut victim, "outside.snap");
        without_network_rights();
        let own = outside.local_addr().expect("an address");
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        run.says(&format!("TCP socket bound to 127.0.0.1:{port}"))
            .says(&format!("its connection with {own} leads outside"))
            .says("CAP_NET_ADMIN in this network namespace");
        assert_eq!(victim.state(), None);
    });
}

/// What fills all buffers is refused and goes on. From an image that was made with the right to read it, every byte comes back without it too.
#[test]
fn what_waits_to_be_sent_is_refused_without_rights_and_restored_from_an_image_that_has_it() {
    isolated(|room| {
        own_network();
        let mut victim = powerless(room, "connections", "v4");
        let dump = room.snap(["dump", &victim.pid().to_string(), "-o", "without.snap"]);
        let run = dump.through(&POWERLESS, Path::new(BINARY)).run().expect(3);
        run.says("it has sent more than its other end takes").says("try again in a moment");
        assert_eq!(room.images(), [""; 0]);
        victim.check();
        let image = room.dump_and_kill(&mut victim, "with.snap");
        without_network_rights();
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        victim.ask("final");
        victim.end();
    });
}

/// A server of objects, and two who use them all the time. None of them has asked to share its port (SO_REUSEADDR).
const MANAGER: &str = r#"
import multiprocessing, multiprocessing.managers, os, sys, time

def work(address, name):
    manager = multiprocessing.managers.SyncManager(address=address, authkey=b"key")
    manager.connect()
    box, turn, file = manager.dict(), 0, os.open(name, os.O_WRONLY | os.O_CREAT)
    while not os.path.exists(name + "stop"):
        turn += 1
        box["turn"] = turn
        assert box["turn"] == turn and box.copy() == {"turn": turn}
        os.pwrite(file, b"%020d" % turn, 0)

if __name__ == "__main__":
    manager = multiprocessing.managers.SyncManager(address=("127.0.0.1", 0), authkey=b"key")
    manager.start()
    workers = [multiprocessing.Process(target=work, args=(manager.address, name)) for name in ("one", "two")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.exit(sum(worker.exitcode for worker in workers))
"#;

/// Killed and restored again and again, at once, and last of all from the first image, after it has ended by itself, which keeps names for a minute.
#[test]
fn exam_16_a_manager_of_python_and_its_clients_without_rights() {
    isolated_for(Duration::from_secs(240), |room| {
        own_network();
        without_network_rights();
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", MANAGER]).stdin(Stdio::null()).current_dir(room.path(""));
        let log = fs::File::create(room.path("log")).expect("a log");
        python.stdout(log.try_clone().expect("dup")).stderr(log);
        let pid = python.spawn().expect("python").id() as i32;
        goes_on(room);
        let first = room.dump(pid, "first.snap", &[]);
        goes_on(room);
        for _ in 0..4 {
            let image = room.dump(pid, "killed.snap", &["--kill"]);
            wait::gone(pid);
            wait::alone();
            assert_eq!(room.restore(&image, &[]), pid);
            goes_on(room);
        }
        ends(room, pid);
        assert_eq!(room.restore(&first, &["--files", "ignore"]), pid);
        goes_on(room);
        ends(room, pid);
    });
}

fn turn(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn goes_on(room: &Room) {
    for name in ["one", "two"] {
        let (path, log) = (room.path(name), room.path("log"));
        let before = turn(&path);
        let log = || fs::read_to_string(&log).unwrap_or_default();
        wait::until(&format!("other turns of {name}: {}", log()), || {
            // It starts from an earlier one after a restore of an earlier image.
            let now = turn(&path);
            (now > before + 5 || now < before).then_some(())
        });
    }
}

fn ends(room: &Room, pid: i32) {
    let stops = ["onestop", "twostop"].map(|name| room.path(name));
    stops.iter().for_each(|stop| drop(fs::File::create(stop).expect("a file")));
    let end = wait::gone(pid);
    let log = fs::read_to_string(room.path("log")).expect("the log");
    assert!(matches!(end, Some(nix::sys::wait::WaitStatus::Exited(_, 0))), "{end:?}: {log}");
    wait::alone();
    stops.iter().for_each(|stop| fs::remove_file(stop).expect("the file"));
}
