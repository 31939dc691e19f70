//! Death at random instants of a dump. `SNAP_RANDOM_KILLS` says how many in all, `SNAP_SEED` repeats a run.

use super::{
    BLOCKED, BUSY, CONTEXTS, FILLING, FILTERED, GO, Kind, LARGE, MESSAGES, NO_LIBRARY, PENDING, PIECES, PLAIN, QUEUES,
    RINGS, RSEQ, SENDING, SENT_FILE, SHARED_RINGS, STATIC, STATIC_MESSAGES, STOPPED, STREAM_FILLED, STREAM_SENT,
    SUBREAPER, Subject, TRANSFERS, VECTOR,
};
use crate::support::{Room, isolated_as, require_root};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tests that share the number of kills.
const SHARES: u64 = 26;

/// Kills in all when the environment says nothing.
const MODEST: u64 = 160;

const LIMIT: Duration = Duration::from_secs(900);

/// A small generator (xorshift64*), so that a failure can be repeated from the seed it prints.
pub struct Random(pub u64);

impl Random {
    /// A number below this one.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound.max(1)
    }
}

/// Of the environment, or else of the clock.
pub fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    number("SNAP_SEED").unwrap_or(now) | 1
}

/// A number of the environment.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is `{text}`, which is no number")))
}

fn dies_anywhere<Test: Fn() -> Kind>(kind: Test) {
    isolated_as::<Test>(LIMIT, |room| {
        let kind = kind();
        if kind.privileged {
            require_root!("to read seccomp filters");
        }
        let seed = seed();
        let kills = number("SNAP_RANDOM_KILLS").unwrap_or(MODEST).div_ceil(SHARES);
        let mut random = Random(seed);
        let subject = Subject::start(room, kind);
        let whole = longest_dump(room, &subject);
        let (mut turn, mut in_time) = (0, 0);
        // On a busy machine the measured time may be far too long.
        while turn < kills || (in_time == 0 && turn < kills + 50) {
            let instant = Duration::from_nanos(random.below(whole.as_nanos() as u64));
            subject.stir();
            in_time += u64::from(killed_after(room, &subject, instant));
            subject.assert_unharmed(&format!("seed {seed}, kill {turn} after {instant:?} of {whole:?}"));
            // A second dump starts right after the kill.
            if turn % 8 == 0 {
                room.dump(subject.pid(), "whole.snap", &[]);
                subject.assert_unharmed(&format!("seed {seed}, dump after kill {turn}"));
            }
            turn += 1;
        }
        assert!(in_time > 0, "seed {seed}: every dump was over before it was killed, within {whole:?}");
        // Two threads of the victim are in such calls. The instant is of microseconds, but a busy machine may stretch it.
        let interrupted = subject.interrupted_calls();
        eprintln!("seed {seed}: {interrupted} calls interrupted in {kills} kills");
        assert!(
            interrupted <= (3 + kills / 5) * kind.transfers.max(1),
            "seed {seed}: {interrupted} calls interrupted in {kills} kills"
        );
        subject.assert_survives(room);
    });
}

/// The longest of three dumps that nobody kills.
fn longest_dump(room: &Room, subject: &Subject) -> Duration {
    let time = |_| {
        let begun = Instant::now();
        room.dump(subject.pid(), "whole.snap", &[]);
        begun.elapsed()
    };
    let longest = (0..3).map(time).max().unwrap_or_default();
    subject.assert_unharmed("after dumps that nobody killed");
    longest
}

/// Kills a dump after some time; false when it had ended by then.
fn killed_after(room: &Room, subject: &Subject, instant: Duration) -> bool {
    let begun = Instant::now();
    let dump = room.snap(["dump", &subject.pid().to_string(), "-o"]).arg(room.path("killed.snap"));
    // Threads of ours copy even little memory then.
    let run = dump.env("SNAP_COPIERS", "always").spawn();
    // The instant itself is what is tested here; nothing is waited for.
    std::thread::sleep(instant.saturating_sub(begun.elapsed()));
    run.kill().signal.is_some()
}

#[test]
fn of_a_c_program() {
    dies_anywhere(|| PLAIN);
}

#[test]
fn of_a_static_program() {
    dies_anywhere(|| STATIC);
}

#[test]
fn of_a_program_without_libraries() {
    dies_anywhere(|| NO_LIBRARY);
}

#[test]
fn of_a_go_program() {
    dies_anywhere(|| GO);
}

#[test]
fn of_a_filtered_program() {
    dies_anywhere(|| FILTERED);
}

#[test]
fn of_a_stopped_program() {
    dies_anywhere(|| STOPPED);
}

#[test]
fn of_a_program_in_an_rseq_section() {
    dies_anywhere(|| RSEQ);
}

#[test]
fn of_a_program_with_pending_signals() {
    dies_anywhere(|| PENDING);
}

#[test]
fn of_fifteen_busy_threads() {
    dies_anywhere(|| BUSY);
}

#[test]
fn of_blocked_threads() {
    dies_anywhere(|| BLOCKED);
}

#[test]
fn of_transfers_in_their_middle() {
    dies_anywhere(|| TRANSFERS);
}

#[test]
fn of_transfers_in_pieces_in_their_middle() {
    dies_anywhere(|| PIECES);
}

#[test]
fn of_pieces_that_are_filled() {
    dies_anywhere(|| FILLING);
}

#[test]
fn of_a_file_in_the_middle_of_its_sending() {
    dies_anywhere(|| SENT_FILE);
}

#[test]
fn of_several_messages_in_their_middle() {
    dies_anywhere(|| MESSAGES);
}

#[test]
fn of_messages_that_are_sent_to_a_stream() {
    dies_anywhere(|| STREAM_SENT);
}

#[test]
fn of_messages_that_are_filled_from_a_stream() {
    dies_anywhere(|| STREAM_FILLED);
}

#[test]
fn of_several_messages_of_a_static_program() {
    dies_anywhere(|| STATIC_MESSAGES);
}

#[test]
fn of_vector_registers() {
    dies_anywhere(|| VECTOR);
}

#[test]
fn of_message_queues() {
    dies_anywhere(|| QUEUES);
}

#[test]
fn of_rings_for_sending() {
    dies_anywhere(|| SENDING);
}

#[test]
fn of_large_memory() {
    dies_anywhere(|| LARGE);
}

#[test]
fn of_large_memory_without_a_copy() {
    dies_anywhere(|| SUBREAPER);
}

#[test]
fn kills_of_contexts() {
    dies_anywhere(|| CONTEXTS);
}

#[test]
fn kills_of_contexts_that_threads_use() {
    dies_anywhere(|| RINGS);
}

#[test]
fn kills_of_contexts_that_processes_use_together() {
    dies_anywhere(|| SHARED_RINGS);
}
