//! Open MPI: mpirun and the ranks that it has started, which have shared memory and sockets in common, and wait for one another all the time.

use crate::support::network::{own_network, without_network_rights};
use crate::support::{Room, isolated_for, wait};
use nix::sys::wait::WaitStatus;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);
const RANKS: &str = "3";

/// Each rank computes with all others, hands a message to the next one, and finds out whether it got what it had to get. The first writes down each turn.
const PROGRAM: &str = r#"
import os
from mpi4py import MPI
world = MPI.COMM_WORLD
me, count = world.rank, world.size
log = open("turns", "w") if me == 0 else None
turn, ends = 0, False
while not ends:
    turn += 1
    total = world.allreduce(turn * (me + 1))
    assert total == turn * count * (count + 1) // 2, (turn, total)
    message = bytes([turn % 256]) * (turn * 1000 % 200_000)
    received = world.sendrecv(message, dest=(me + 1) % count, source=(me - 1) % count)
    assert received == message, turn
    if log:
        print(turn, file=log, flush=True)
    ends = world.bcast(os.path.exists("stop") if log else None)
"#;

#[allow(clippy::zombie_processes, reason = "reaped by its pid, under which a restore brings it back")]
fn start(room: &Room, more: &[&str]) -> i32 {
    let log = File::create(room.path("log")).expect("a log");
    let mut command = Command::new("mpirun.openmpi");
    command.args(["--allow-run-as-root", "--oversubscribe"]).args(more);
    command.args(["-n", RANKS, "/usr/bin/python3", "-c", PROGRAM]);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("dup")).stderr(log).process_group(0);
    // It makes a directory of its own for each run.
    command.env("TMPDIR", room.path(""));
    command.current_dir(room.path("")).spawn().expect("mpirun").id() as i32
}

fn turns(room: &Room) -> usize {
    std::fs::read_to_string(room.path("turns")).map_or(0, |turns| turns.lines().count())
}

fn goes_on(room: &Room) {
    let before = turns(room);
    wait::until("ten more turns", || (turns(room) >= before + 10).then_some(()));
}

#[test]
fn exam_1_ranks_go_on_after_dumps_and_after_kill_and_restore() {
    isolated_for(LIMIT, |room| {
        own_network();
        go_on(room, start(room, &[]));
    });
}

/// As an ordinary user has it, and with messages that go by TCP instead of shared memory.
#[test]
fn exam_1_ranks_with_messages_by_tcp_go_on_without_rights_in_the_network() {
    isolated_for(LIMIT, |room| {
        own_network();
        without_network_rights();
        go_on(room, start(room, &["--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo"]));
    });
}

fn go_on(room: &Room, pid: i32) {
    goes_on(room);
    for _ in 0..3 {
        room.dump(pid, "living.snap", &[]);
        goes_on(room);
        let image = room.dump(pid, "killed.snap", &["--kill"]);
        wait::gone(pid);
        wait::alone();
        assert_eq!(room.restore(&image, &[]), pid);
        goes_on(room);
    }
    File::create(room.path("stop")).expect("a file");
    let end = wait::gone_within(pid, Duration::from_secs(60));
    let log = std::fs::read_to_string(room.path("log")).expect("the log");
    assert!(matches!(end, Some(WaitStatus::Exited(_, 0))), "ended with {end:?}: {log}");
    let text = std::fs::read_to_string(room.path("turns")).expect("the turns");
    let all: Vec<usize> = text.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(all, (1..=all.len()).collect::<Vec<_>>(), "{log}");
    wait::alone();
}
