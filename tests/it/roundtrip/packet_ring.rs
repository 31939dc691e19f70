//! Packet sockets with rings.

use crate::support::network::{ip, own_network, tc};
use crate::support::{Room, isolated, require_root, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;

#[test]
fn exam_16_rings_of_packet_sockets() {
    isolated(|room| {
        own_network();
        room.survives_with_children(room.victim("packet_ring", &["all"]));
    });
}

#[test]
fn exam_16_rings_for_sending() {
    isolated(|room| {
        own_network();
        room.survives_with_children(room.victim("packet_ring", &["sends"]));
    });
}

/// A device holds packets, and the kernel writes to their frames when they are gone.
#[test]
fn packets_on_their_way_are_waited_for() {
    isolated(|room| {
        own_network();
        let limit = |rate: &str| tc(&format!("qdisc replace dev lo root tbf {rate} latency 1000s"));
        limit("rate 1mbit burst 2000");
        let mut victim = room.victim("packet_ring", &["slow"]);
        victim.check();
        limit("rate 100bit burst 200");
        victim.ask("send");
        let dump = room.snap(["dump", &victim.pid().to_string(), "-o", "refused.snap"]).run().expect(3);
        dump.says("in flight: a device still holds them").says("PACKET_TX_RING");
        assert_eq!(room.images(), [""; 0], "an image is left");
        limit("rate 1kbit burst 200");
        let image = room.path("waited.snap");
        let dump = room.snap(["dump", "--timeout", "60", &victim.pid().to_string(), "-o"]).arg(&image).spawn();
        // It comes to its end between two tries.
        victim.ask("come");
        dump.finish().expect(0);
        limit("rate 1mbit burst 2000");
        victim.check();
        victim.end();
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        victim.end();
    });
}

#[test]
fn exam_30_rings_from_which_packets_are_sent_all_the_time() {
    isolated(|room| {
        own_network();
        let mut victim = room.victim("packet_ring", &["stream"]);
        victim.check();
        for round in 0..3 {
            let image = room.dump(victim.pid(), &format!("running-{round}.snap"), &["--timeout", "30"]);
            victim.check();
            let killed = room.dump(victim.pid(), "killed.snap", &["--kill", "--timeout", "30"]);
            victim.killed();
            assert_eq!(room.restore(if round % 2 == 0 { &killed } else { &image }, &[]), victim.pid());
            victim.check();
        }
        victim.end();
    });
}

#[test]
fn a_program_that_cannot_stand_by_is_named_and_stays() {
    isolated(|room| {
        own_network();
        let victim = room.victim("packet_ring", &["alone"]);
        let pid = Pid::from_raw(victim.pid());
        kill(pid, Signal::SIGSTOP).expect("kill");
        wait::until("the group stop", || (victim.state() == Some('T')).then_some(()));
        let dump = room.snap(["dump", &pid.to_string(), "-o", "refused.snap"]).run().expect(3);
        dump.says("where the kernel stands in its ring for sending (PACKET_TX_RING) cannot be asked").says("SIGCONT");
        kill(pid, Signal::SIGCONT).expect("kill");
        victim.check();
        require_root!("to read seccomp filters");
        let words = ["cannot be asked", "a seccomp filter watches what it calls"];
        room.refuses(room.victim("packet_ring", &["filtered"]), &words);
    });
}

#[test]
fn rings_for_sending_that_cannot_be_asked_are_named_and_stay() {
    isolated(|room| {
        own_network();
        ip("link set lo down");
        room.refuses(
            room.victim("packet_ring", &["alone"]),
            &["socket:[", "the loopback interface is not up", "lo up"],
        );
        ip("link set lo up");
        room.refuses(room.victim("packet_ring", &["memory"]), &["socket:[", "two processes that share memory have it"]);
        // A child has the sockets too.
        let mut victim = room.victim("packet_ring", &["sends"]);
        let children = format!("/proc/{0}/task/{0}/children", victim.pid());
        let child = std::fs::read_to_string(children).expect("a child");
        for more in [&[][..], &["--allow-leak"]] {
            let dump = room.snap(["dump", child.trim(), "-o", "refused.snap"]).args(more).run().expect(3);
            dump.says("nobody outside may use while it is asked").says(&format!("pid {}", victim.pid()));
            victim.check();
        }
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        wait::alone();
        ip("link set lo down");
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(7);
        let run = run.says("its ring for sending: loopback interface");
        assert_eq!(victim.state(), None, "something runs: {run}");
    });
}

#[test]
fn rings_at_which_everybody_looks_all_the_time() {
    isolated(|room| {
        own_network();
        room.survives_with_children(room.victim("packet_ring", &["watched"]));
    });
}

#[test]
fn exam_30_rings_that_are_filled_all_the_time() {
    isolated(|room| {
        own_network();
        let mut victim = room.victim("packet_ring", &["busy"]);
        let _flood = room.victim("packet_ring", &["flood"]);
        victim.check();
        for round in 0..3 {
            let image = room.dump(victim.pid(), &format!("running-{round}.snap"), &[]);
            victim.check();
            let killed = room.dump_and_kill(&mut victim, "killed.snap");
            // In the rings of the first image are packets that came before.
            assert_eq!(room.restore(if round % 2 == 0 { &killed } else { &image }, &[]), victim.pid());
            victim.check();
        }
        victim.end();
    });
}

#[test]
fn a_dump_that_is_killed_leaves_rings_as_they_are() {
    isolated(|room| {
        own_network();
        let victim = room.victim("packet_ring", &["all"]);
        for turn in 0..12 {
            let dump = room.snap(["dump", &victim.pid().to_string(), "-o", "killed.snap"]).spawn();
            // The instant is what is tested.
            std::thread::sleep(Duration::from_millis(15 * turn));
            dump.kill();
            victim.check();
        }
        room.survives_with_children(victim);
    });
}

#[test]
fn without_the_loopback_interface_a_used_ring_ends_the_restore_before_anything_runs() {
    isolated(|room| {
        own_network();
        let mut victim = room.victim("packet_ring", &["all"]);
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        wait::alone();
        ip("link set lo down");
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(7);
        let run = run.says("its ring: loopback interface");
        assert_eq!(victim.state(), None, "something runs: {run}");
        ip("link set lo up");
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        victim.end();
    });
}

#[test]
fn exam_21_rings_in_which_nobody_knows_where_the_kernel_stands_are_named_and_stay() {
    isolated(|room: &Room| {
        own_network();
        room.refuses(room.victim("packet_ring", &["part"]), &["mapping ", "a part of the ring"]);
        room.refuses(room.victim("packet_ring", &["closed"]), &["mapping ", "no descriptor of the tree leads to"]);
        room.refuses(
            room.victim("packet_ring", &["wiped"]),
            &["socket:[", "the program has changed headers of frames"],
        );
    });
}

#[test]
fn rings_that_are_too_long_are_named_and_stay() {
    isolated(|room| {
        own_network();
        for (kind, name) in [("sends", "PACKET_TX_RING"), ("receives", "PACKET_RX_RING")] {
            let words = ["socket:[", name, "262148 KiB", "at most 262144 are supported", "close it before the dump"];
            room.refuses(room.victim("packet_ring", &["long", kind]), &words);
        }
    });
}
