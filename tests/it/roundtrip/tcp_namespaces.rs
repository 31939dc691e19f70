//! TCP connections between two network namespaces: one end is killed and comes back, in its namespace or in another one that has taken over its address.

use crate::support::exchange::{Exchange, Use};
use crate::support::half_closed::HalfClosed;
use crate::support::network::{Bridge, Namespace};
use crate::support::{Room, Victim, isolated, require_root, wait};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

/// Addresses of the two ends.
type Ends = [IpAddr; 2];

const V4: [&str; 2] = ["10.9.0.1", "10.9.0.2"];
const V6: [&str; 2] = ["fd09::1", "fd09::2"];

/// A bridge with two namespaces, of which the second stays.
struct Net {
    bridge: Bridge,
    near: Namespace,
    far: Namespace,
    ends: Ends,
}

impl Net {
    fn new(ends: [&str; 2]) -> Self {
        let ends = ends.map(|ip| ip.parse().expect("an address"));
        let bridge = Bridge::new();
        let [near, far] = [("near", ends[0]), ("far", ends[1])].map(|(name, ip)| {
            let namespace = bridge.attach(name);
            namespace.take(ip);
            namespace
        });
        Self { bridge, near, far, ends }
    }

    fn victim(&self, room: &Room, kind: &str) -> Victim {
        let address = self.ends[0].to_string();
        self.near.inside(|| room.victim(kind, &[&address]))
    }

    fn killed(&self, room: &Room, victim: &mut Victim) -> PathBuf {
        let image = self.near.inside(|| room.dump(victim.pid(), "moved.snap", &["--kill"]));
        victim.killed();
        image
    }

    /// The first namespace is no more; another one holds the packets of the image back and then takes the address over.
    fn moved(&mut self, room: &Room, image: &Path) {
        let third = self.bridge.attach("third");
        let old = std::mem::replace(&mut self.near, third);
        self.bridge.ends(old);
        let lock = self.near.inside(|| room.snap(["net", "lock"]).arg(image).run().expect(0));
        assert!(lock.stdout.contains("held back"), "{lock}");
        self.near.take(self.ends[0]);
    }
}

fn exchanges(net: &Net, victim: &Victim) -> Vec<Exchange> {
    let port = victim.ask("port").parse().expect("a port");
    let to = SocketAddr::new(net.ends[0], port);
    net.far.inside(|| [Use::Echo, Use::Echo, Use::Stream].map(|wanted| Exchange::start(to, wanted)).into())
}

fn all_go_on(exchanges: &[Exchange], when: &str) {
    exchanges.iter().for_each(|exchange| exchange.goes_on(when));
}

fn comes_back(room: &Room, ends: [&str; 2], moves: bool) {
    let mut net = Net::new(ends);
    let mut victim = net.victim(room, "echo");
    let exchanges = exchanges(&net, &victim);
    all_go_on(&exchanges, "before");
    let image = net.killed(room, &mut victim);
    if moves {
        net.moved(room, &image);
    }
    net.near.inside(|| assert_eq!(room.restore(&image, &[]), victim.pid()));
    all_go_on(&exchanges, "afterwards");
    assert_eq!(victim.ask("check"), "3");
    // Whoever comes new is served too.
    let port = victim.ask("port").parse().expect("a port");
    let new = net.far.inside(|| Exchange::start(SocketAddr::new(net.ends[0], port), Use::Echo));
    new.goes_on("a new one");
    exchanges.into_iter().chain([new]).for_each(Exchange::finish);
    victim.end();
}

#[test]
fn exam_16_an_end_in_a_namespace_is_killed_and_comes_back() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        comes_back(room, V4, false);
    });
}

#[test]
fn exam_16_an_end_moves_to_a_third_namespace_that_takes_over_its_address() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        comes_back(room, V4, true);
    });
}

#[test]
fn exam_16_an_end_moves_to_a_third_namespace_over_ipv6() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        comes_back(room, V6, true);
    });
}

/// The other side has ended, this one has, or it has behind bytes for which there is no room.
#[test]
fn exam_16_half_closed_ends_move_to_a_third_namespace() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        let mut net = Net::new(V4);
        let mut machine = net.victim(room, "machine");
        let connections = HalfClosed::between(&machine, |name| connected(&net, &machine, name));
        for (name, state) in HalfClosed::STATES {
            wait::until(name, || (machine.ask(&format!("state {name}")) == state).then_some(()));
        }
        let image = net.killed(room, &mut machine);
        net.moved(room, &image);
        net.near.inside(|| assert_eq!(room.restore(&image, &[]), machine.pid()));
        connections.go_on(&machine);
        machine.end();
    });
}

fn connected(net: &Net, machine: &Victim, name: &str) -> TcpStream {
    let port = machine.ask(&format!("listen {name}-listener {}:0", net.ends[0]));
    let to = SocketAddr::new(net.ends[0], port.parse().expect("a port"));
    let stream = net.far.inside(|| TcpStream::connect(to).expect("the machine listens"));
    machine.ask(&format!("accept {name}-listener {name}"));
    machine.ask(&format!("close {name}-listener"));
    stream.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    stream
}
