//! Connections to victim `machine` of which one direction has ended; the other goes on.

use super::network::received;
use super::victim::Victim;
use fixtures::inet::stream;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// The ends outside.
pub struct HalfClosed {
    /// Has ended, behind bytes that the machine has not read: there it is CLOSE-WAIT.
    closed: TcpStream,
    /// The machine has ended: there it is FIN-WAIT-2.
    shut: TcpStream,
    /// The machine has ended, behind bytes for which there is no room: there it is FIN-WAIT-1.
    pub stuck: TcpStream,
    /// How many these are.
    stuffed: usize,
}

impl HalfClosed {
    /// The name of each at the machine, and its state there, as in include/net/tcp_states.h.
    pub const STATES: [(&str, &str); 3] = [("closed", "8"), ("shut", "5"), ("stuck", "4")];

    /// Connects each by its name, and ends one direction of it.
    pub fn between(machine: &Victim, connect: impl Fn(&str) -> TcpStream) -> Self {
        let [closed, shut, stuck] = ["closed", "shut", "stuck"].map(connect);
        (&closed).write_all(&stream(1, 0, 100)).expect("a write");
        closed.shutdown(Shutdown::Write).expect("shutdown");
        machine.ask("send shut 2 0 100");
        machine.ask("shut shut wr");
        let stuffed = machine.ask("stuff stuck 3 0 8000000").parse().expect("a number");
        machine.ask("shut stuck wr");
        Self { closed, shut, stuck, stuffed }
    }

    /// What was on its way comes, then the end, and in the other direction each byte.
    pub fn go_on(&self, machine: &Victim) {
        let Self { closed, shut, stuck, stuffed } = self;
        machine.ask("receive closed 1 0 100");
        machine.ask("end closed");
        machine.ask("send closed 5 0 100");
        assert_eq!(received(closed, 100), stream(5, 0, 100));
        assert_eq!(received(shut, 100), stream(2, 0, 100));
        assert_eq!((&*shut).read(&mut [0]).expect("the end"), 0);
        (&*shut).write_all(&stream(6, 0, 100)).expect("a write");
        machine.ask("receive shut 6 0 100");
        assert_eq!(received(stuck, *stuffed), stream(3, 0, *stuffed));
        assert_eq!((&*stuck).read(&mut [0]).expect("the end"), 0);
    }
}
