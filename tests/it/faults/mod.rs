//! `snap` is killed: at every named fault point and at random instants. The victim must not know.

mod hostile;
mod named;
mod random;
mod restore;
mod tcp;

use crate::support::code::Code;
use crate::support::network::own_network;
use crate::support::{Facts, Room, Victim, facts, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Instant;

/// A victim of this suite: its program, and what is special about its state while it is dumped.
#[derive(Clone, Copy)]
pub struct Kind {
    program: &'static str,
    arguments: &'static [&'static str],
    /// In group stop while it is dumped.
    stopped: bool,
    /// Facts that change by themselves.
    restless: &'static [&'static str],
    /// Only root may dump it.
    privileged: bool,
    /// Whether it has threads that can be asked in one go: without a filter, in no group stop, and with a signal that nobody would notice.
    answers: bool,
    /// Whether threads of ours may copy its memory.
    copies: bool,
    /// Whether it has sockets in which something waits.
    sockets: bool,
    /// Whether it has message queues with something in them, or rings for sending: one of its processes works for us while all others stand by.
    queues: bool,
    /// Whether it has AIO contexts.
    contexts: bool,
    /// How many threads it has in the middle of a transfer.
    transfers: u64,
    /// Whether it needs a network of its own.
    network: bool,
}

const PLAIN: Kind = Kind {
    program: "c-dynamic",
    arguments: &[],
    stopped: false,
    restless: &[],
    privileged: false,
    answers: true,
    copies: true,
    sockets: false,
    queues: false,
    contexts: false,
    transfers: 0,
    network: false,
};
const STATIC: Kind = Kind { program: "c-static", ..PLAIN };
const NO_LIBRARY: Kind = Kind { program: "c-nolibc", answers: false, ..PLAIN };
const GO: Kind = Kind { program: "go-goroutines", restless: &["task ", "map "], answers: false, ..PLAIN };
const FILTERED: Kind =
    Kind { program: "seccomp", arguments: &["errno"], privileged: true, answers: false, copies: false, ..PLAIN };
const STOPPED: Kind = Kind { stopped: true, answers: false, ..PLAIN };
const RSEQ: Kind = Kind { program: "c-rseq", ..PLAIN };
const PENDING: Kind = Kind { program: "signals", answers: false, ..PLAIN };
const BUSY: Kind = Kind { program: "busy", ..PLAIN };
const BLOCKED: Kind = Kind { program: "blocked", arguments: &["200", "tolerant"], answers: false, ..PLAIN };
const VECTOR: Kind = Kind { program: "c-vector", ..PLAIN };
/// Sockets that have options which a dump changes meanwhile.
const SOCKETS: Kind = Kind { program: "unix", sockets: true, ..PLAIN };
/// Two processes with several threads and a queue with messages, of which one is told; both look at it all the time.
const QUEUES: Kind = Kind { program: "mqueue", arguments: &["family"], queues: true, ..PLAIN };
/// Rings for sending at which two processes and a thread look all the time.
const SENDING: Kind = Kind { program: "packet_ring", arguments: &["watched"], queues: true, network: true, ..PLAIN };
/// Threads with semaphores to undo apart from their process, which are asked of each by calls that fail.
const SEMAPHORES: Kind = Kind { program: "sysv", arguments: &["own"], ..PLAIN };
/// AIO contexts in which events wait.
const CONTEXTS: Kind = Kind { program: "aio", arguments: &["waiting"], contexts: true, ..PLAIN };
/// AIO contexts that threads use as fast as they can.
const RINGS: Kind = Kind { arguments: &["threads", "tolerant"], ..CONTEXTS };
/// The same of processes with one memory.
const SHARED_RINGS: Kind = Kind { arguments: &["shared", "tolerant"], ..CONTEXTS };
/// Threads in the middle of a transfer.
const TRANSFERS: Kind =
    Kind { program: "transfer", arguments: &["two", "tolerant"], answers: false, transfers: 2, ..PLAIN };
/// One whose bytes are in pieces. Each short count makes it another call, and there is room for two.
const PIECES: Kind = Kind { arguments: &["writev", "tolerant"], transfers: 1, ..TRANSFERS };
/// One whose pieces are filled, each by a call of its own.
const FILLING: Kind = Kind { arguments: &["filling", "tolerant"], ..PIECES };
/// One that sends a file.
const SENT_FILE: Kind = Kind { arguments: &["file", "tolerant"], ..PIECES };
/// Threads in the middle of several messages that are sent or received.
const MESSAGES: Kind = Kind { arguments: &["messages", "tolerant"], transfers: 3, ..TRANSFERS };
/// The same on streams, where a part of one is moved.
const STREAM_SENT: Kind = Kind { arguments: &["stream-sent", "tolerant"], ..PIECES };
/// The same that are received.
const STREAM_FILLED: Kind = Kind { arguments: &["stream-filled", "tolerant"], ..PIECES };
/// Messages in C programs.
const C_MESSAGES: Kind = Kind { program: "c-messages", arguments: &["tolerant"], answers: true, transfers: 2, ..PLAIN };
const STATIC_MESSAGES: Kind = Kind { program: "c-messages-static", ..C_MESSAGES };
/// Enough memory for a copy of it, in which threads of ours work.
const LARGE: Kind = Kind { program: "ballast", arguments: &["48"], answers: false, ..PLAIN };
/// The same without a copy: they work in its own memory.
const SUBREAPER: Kind = Kind { arguments: &["48", "subreaper"], ..LARGE };

/// A victim and what must still be true of it when `snap` has died.
pub struct Subject {
    kind: Kind,
    victim: Victim,
    facts: Facts,
    code: Code,
}

impl Subject {
    /// Starts a victim, brings it into its state, and notes everything about it.
    pub fn start(room: &Room, kind: Kind) -> Self {
        if kind.network {
            own_network();
        }
        let victim = room.victim(kind.program, kind.arguments);
        victim.check();
        let subject = Self { kind, facts: kind.facts(victim.pid()), code: Code::of(victim.pid()), victim };
        subject.stop();
        subject
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.victim.pid()
    }

    /// Brings transfers into the middle again that a dump has found there: a call that it has cut short begins anew.
    pub fn stir(&self) {
        if self.kind.transfers > 0 {
            self.victim.ask("some");
        }
    }

    /// Panics unless the victim is what an undisturbed one would be, save for the permitted residue.
    pub fn assert_unharmed(&self, when: &str) {
        let when = format!("{} {:?}: {when}", self.kind.program, self.kind.arguments);
        if self.kind.stopped {
            wait::until(&format!("{when}: the group stop"), || (self.victim.state() == Some('T')).then_some(()));
            self.signal(Signal::SIGCONT);
        }
        self.assert_settles(&when);
        self.victim.try_ask("check").unwrap_or_else(|what| panic!("{when}: {what}"));
        self.assert_settles(&when);
        self.stop();
    }

    /// Waits until nothing is left that differs. A thread that was in the stub needs a moment to run through its tail, and on a busy machine it may not even have begun the
    /// call that the tail will undo.
    fn assert_settles(&self, when: &str) {
        let end = Instant::now() + wait::PATIENCE;
        while let Some(difference) = self.difference() {
            assert!(Instant::now() < end, "{when}, it differs for good:\n{difference}");
            std::thread::yield_now();
        }
    }

    fn difference(&self) -> Option<String> {
        let facts = self.facts.differences(&self.kind.facts(self.pid()));
        if !facts.is_empty() {
            return Some(facts);
        }
        let traced = Some(facts::status(self.pid(), "TracerPid")).filter(|tracer| tracer != "0");
        traced
            .map(|tracer| format!("traced by {tracer}"))
            .or_else(|| self.code.more_than_residue(self.pid(), self.kind.transfers > 0 || self.kind.queues))
    }

    /// Calls that the kernel never restarts and that have returned EINTR, and transfers that have returned a short count: the permitted residue of a
    /// death in the time between a thread's stop and the mark that has the call made again.
    pub fn interrupted_calls(&self) -> u64 {
        if !self.kind.arguments.contains(&"tolerant") {
            return 0;
        }
        self.victim.ask("residue").trim().parse().expect("a number")
    }

    /// Dumps it once more, kills it, restores it; its last check must hold.
    pub fn assert_survives(mut self, room: &Room) {
        let image = room.dump_and_kill(&mut self.victim, "afterwards.snap");
        // A copy of its memory that died with snap before it had a session of its own is a zombie in the victim's until its parent, which
        // is this test, reaps it.
        wait::alone();
        room.restore(&image, &[]);
        if self.kind.stopped {
            self.signal(Signal::SIGCONT);
        }
        self.victim.ask("final");
        self.victim.end();
    }

    fn stop(&self) {
        if self.kind.stopped {
            self.signal(Signal::SIGSTOP);
            wait::until("the group stop", || (self.victim.state() == Some('T')).then_some(()));
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("kill");
    }
}

impl Kind {
    fn facts(self, pid: i32) -> Facts {
        self.restless.iter().fold(Facts::of(pid), |facts, prefix| facts.without(prefix))
    }
}
