//! TCP sockets that nobody is connected to, and what stands in their way.

use crate::support::network::own_network;
use crate::support::{Room, isolated, isolated_for, require_root, wait};
use std::net::TcpListener;
use std::time::Duration;

#[test]
fn exam_16_listeners_and_sockets_without_a_connection() {
    isolated(|room| {
        own_network();
        room.survives(room.victim("tcp", &[]));
    });
}

#[test]
fn a_port_that_is_taken_is_named_with_its_holder_before_anything_runs() {
    isolated(|room| {
        own_network();
        let mut victim = room.victim("tcp", &[]);
        let ports: Vec<u16> = victim.ask("ports").split(' ').map(|port| port.parse().expect("a port")).collect();
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        let holders: Vec<TcpListener> =
            ports.iter().map(|port| TcpListener::bind(("127.0.0.1", *port)).expect("a free port")).collect();
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        let ours = format!("it is taken by pid {} (", std::process::id());
        for port in &ports {
            assert!(run.stderr.contains(&format!("TCP socket bound to 127.0.0.1:{port}")), "{port}: {run}");
        }
        assert!(run.stderr.contains(&ours), "{run}");
        assert_eq!(victim.state(), None, "something runs: {run}");
        let dry = room.snap(["restore", "--dry-run"]).arg(&image).run().expect(3);
        assert!(dry.stderr.contains(&ours), "{dry}");
        drop(holders);
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        victim.end();
        wait::gone(victim.pid());
    });
}

/// Every state of TCP that a descriptor can have, with both ends in the tree or one that belongs to nobody any more. `SNAP_TCP_STATES=1` tries every
/// sequence of operations, which is the default; N tries about one in N, which `SNAP_SEED` chooses.
#[test]
fn exam_16_every_state_of_tcp_that_five_operations_lead_to() {
    isolated_for(Duration::from_secs(180), |room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        every_state(room, &[], "1 2 4 5 7 8 9 10 11");
    });
}

fn connections_inside(room: &Room, family: &str) {
    own_network();
    room.survives(room.victim("connections", &[family]));
}

#[test]
fn exam_16_connections_inside_the_tree_over_ipv4() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        connections_inside(room, "v4");
    });
}

#[test]
fn exam_16_connections_inside_the_tree_over_ipv6() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        connections_inside(room, "v6");
    });
}

#[test]
fn exam_16_connections_inside_the_tree_over_ipv4_in_ipv6() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        connections_inside(room, "mapped");
    });
}

/// Dumps, kills and restores connections in all of these states, numbered as in include/net/tcp_states.h. `SNAP_SEED` and `SNAP_TCP_STATES` say which.
pub fn every_state(room: &Room, ways: &[&str], states: &str) {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| "1".into());
    let (seed, share) = (variable("SNAP_SEED"), variable("SNAP_TCP_STATES"));
    let mut victim = room.victim("tcp_states", &[&[seed.as_str(), &share], ways].concat());
    let count = victim.ask("count");
    if share == "1" {
        assert_eq!(victim.ask("states"), states, "{count}");
    }
    room.dump(victim.pid(), "first.snap", &[]);
    victim.check();
    let image = room.dump_and_kill(&mut victim, "killed.snap");
    assert_eq!(room.restore(&image, &[]), victim.pid());
    victim.check();
    victim.ask("final");
    victim.end();
}
