//! Death of a dump under live TCP connections: they are never mute afterwards. A tenth of `SNAP_RANDOM_KILLS` says how many random deaths there are,
//! and `SNAP_SEED` repeats a run.

use super::random::{Random, number, seed};
use super::restore::processes;
use crate::support::exchange::{Exchange, Use};
use crate::support::network::{own_network, without_network_rights};
use crate::support::{Room, Victim, isolated_for, require_root, wait};
use nix::sys::signal::Signal;
use snap::fault::Point;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(300);

/// Random deaths when the environment says nothing.
const MODEST: u64 = 20;
/// Which part of all random deaths of the environment is ours.
const PART: u64 = 10;

/// Fault points that only a dump of connections passes.
pub const POINTS: [Point; 3] = [Point::Locked, Point::Repairing, Point::Vanishing];

/// Whether these are passed depends on where the threads of the victim stand: in the middle of a transfer or not.
const BY_CHANCE: [Point; 3] = [Point::Answering, Point::RemainderWritten, Point::RemainderEntered];

struct Connected {
    victim: Victim,
    exchanges: Vec<Exchange>,
}

impl Connected {
    fn start(room: &Room) -> Self {
        own_network();
        let victim = room.victim("echo", &["127.0.0.1"]);
        let to = format!("127.0.0.1:{}", victim.ask("port")).parse().expect("an address");
        let uses = [Use::Echo, Use::Echo, Use::Stream, Use::Stream];
        let exchanges = uses.map(|wanted| Exchange::start(to, wanted)).into();
        let connected = Self { victim, exchanges };
        connected.assert_alive(room, "before");
        connected
    }

    /// Every connection goes on, none is in repair mode, no packet is dropped by a table of ours.
    fn assert_alive(&self, room: &Room, when: &str) {
        for exchange in &self.exchanges {
            exchange.goes_on(when);
        }
        let served = self.victim.try_ask("check").unwrap_or_else(|what| panic!("{when}: {what}"));
        assert_eq!(served, self.exchanges.len().to_string(), "{when}");
        wait::until(&format!("{when}: the end of what undoes"), || {
            (processes() == [1, self.victim.pid()]).then_some(())
        });
        let locks = room.snap(["net", "unlock", "--all"]).run().expect(0);
        assert!(locks.stdout.starts_with("0 locks"), "{when}: {locks}");
    }

    /// Restores what has been killed.
    fn restored(&mut self, room: &Room, when: &str) {
        self.victim.killed();
        assert_eq!(room.restore(&room.path("died.snap"), &[]), self.victim.pid(), "{when}");
        self.assert_alive(room, when);
    }

    fn finish(mut self, room: &Room) {
        let image = room.dump_and_kill(&mut self.victim, "afterwards.snap");
        room.restore(&image, &[]);
        self.assert_alive(room, "at the end");
        self.exchanges.into_iter().for_each(Exchange::finish);
        self.victim.end();
    }
}

/// At each point, with a target that is to run on and with one that is to be killed.
#[test]
fn a_dump_of_connections_dies_at_every_point_and_none_is_mute() {
    isolated_for(LIMIT, |room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        let connected = Connected::start(room);
        for fate in ["--leave-running", "--kill"] {
            for point in Point::ALL.into_iter().filter(|point| *point < Point::SkeletonBorn) {
                if matches!(point, Point::Gathered | Point::Exchanging | Point::Exchanged) {
                    continue;
                }
                let only_kill = [Point::Locked, Point::ImageDurable, Point::Vanishing].contains(&point);
                if matches!(point, Point::OptionChanged | Point::AioProbing)
                    || (fate == "--kill" && BY_CHANCE.contains(&point))
                {
                    continue;
                }
                if fate != "--kill" && only_kill {
                    continue;
                }
                let pid = connected.victim.pid().to_string();
                let run = room
                    .snap(["dump", fate, &pid, "-o", "died.snap"])
                    .env("SNAP_FAULT", point.name())
                    .env("SNAP_COPIERS", "always")
                    .run();
                let died = run.signal == Some(Signal::SIGKILL as i32);
                assert!(died || BY_CHANCE.contains(&point), "{}: not reached: {run}", point.name());
                connected.assert_alive(room, &format!("snap died at {} of {fate}", point.name()));
                let _ = std::fs::remove_file(room.path("died.snap"));
            }
        }
        let failing = [Point::Locked, Point::Repairing, Point::Collected, Point::ImageDurable, Point::Vanishing];
        for point in failing {
            let pid = connected.victim.pid().to_string();
            let fault = format!("{}:error", point.name());
            room.snap(["dump", "--kill", &pid, "-o", "died.snap"]).env("SNAP_FAULT", &fault).run().expect(1);
            connected.assert_alive(room, &fault);
            let _ = std::fs::remove_file(room.path("died.snap"));
        }
        connected.finish(room);
    });
}

/// The other side goes on to wait: whatever was built vanishes without a word, and another restore has the connections.
#[test]
fn a_restore_of_connections_dies_at_every_point_and_the_next_one_has_them() {
    isolated_for(LIMIT, |room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        let mut connected = Connected::start(room);
        let image = room.dump_and_kill(&mut connected.victim, "died.snap");
        for point in Point::ALL.into_iter().filter(|point| *point >= Point::SkeletonBorn) {
            for failure in ["", ":error"] {
                let fault = format!("{}{failure}", point.name());
                let run = room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", &fault).run();
                assert!(run.signal.is_some() || run.code == Some(7), "{fault}: not reached: {run}");
                wait::until(&format!("{fault}: the end of all that was built"), || (processes() == [1]).then_some(()));
            }
        }
        assert_eq!(room.restore(&image, &[]), connected.victim.pid());
        connected.assert_alive(room, "restored at last");
        connected.finish(room);
    });
}

/// A target that was to be killed either goes on, or is dead and has an image from which its connections go on.
#[test]
fn a_dump_of_connections_dies_at_random_and_none_is_mute() {
    isolated_for(LIMIT, |room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        let mut connected = Connected::start(room);
        let seed = seed();
        let mut random = Random(seed);
        let kills = number("SNAP_RANDOM_KILLS").map_or(MODEST, |all| all.div_ceil(PART));
        let begun = Instant::now();
        room.dump(connected.victim.pid(), "died.snap", &["--kill"]);
        let whole = begun.elapsed();
        connected.restored(room, "before");
        let (mut in_time, mut dead) = (0, 0);
        for turn in 0..kills {
            let fate = if turn % 3 == 0 { "--kill" } else { "--leave-running" };
            let instant = Duration::from_nanos(random.below(whole.as_nanos() as u64));
            let _ = std::fs::remove_file(room.path("died.snap"));
            let begun = Instant::now();
            let dump = room.snap(["dump", fate, &connected.victim.pid().to_string(), "-o", "died.snap"]).spawn();
            // The instant itself is what is tested here; nothing is waited for.
            std::thread::sleep(instant.saturating_sub(begun.elapsed()));
            in_time += u64::from(dump.kill().signal.is_some());
            let when = format!("seed {seed}, kill {turn} of {fate} after {instant:?} of {whole:?}");
            if fate == "--kill" && is_dead(&connected.victim) {
                dead += 1;
                connected.restored(room, &when);
            } else {
                connected.assert_alive(room, &when);
            }
        }
        eprintln!("seed {seed}: {in_time} of {kills} dumps died, {dead} times the target was dead");
        assert!(in_time > 0, "seed {seed}: every dump was over before it was killed");
        connected.finish(room);
    });
}

/// Whether SIGKILL is on its way to it or has come.
fn is_dead(victim: &Victim) -> bool {
    // The end of a process takes a moment; once sent it is among the signals that wait.
    let pending = ["ShdPnd", "SigPnd"].map(|name| crate::support::facts::status(victim.pid(), name));
    let kill = 1u64 << (Signal::SIGKILL as u64 - 1);
    let waits = pending.iter().any(|mask| u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & kill != 0));
    waits || matches!(victim.state(), None | Some('Z' | 'X'))
}

/// Connections within a tree whose names nobody may keep: they are the same after each death, of a dump and of a restore.
#[test]
fn a_dump_and_a_restore_of_connections_without_rights_die_at_every_point() {
    isolated_for(LIMIT, |room| {
        own_network();
        without_network_rights();
        let mut victim = room.victim("connections", &["v4", "modest"]);
        let pid = victim.pid().to_string();
        let alone = |when: &str, expected: &[i32]| {
            wait::until(&format!("{when}: the end of what undoes"), || (processes() == expected).then_some(()));
        };
        for fate in ["--leave-running", "--kill"] {
            for point in Point::ALL.into_iter().filter(|point| *point < Point::SkeletonBorn && is_passed(*point, fate))
            {
                let dump = room.snap(["dump", fate, &pid, "-o", "died.snap"]).env("SNAP_FAULT", point.name());
                let run = dump.env("SNAP_COPIERS", "always").run();
                let died = run.signal == Some(Signal::SIGKILL as i32);
                assert!(died || BY_CHANCE.contains(&point), "{}: not reached: {run}", point.name());
                alone(point.name(), &[1, victim.pid()]);
                victim.check();
                let _ = std::fs::remove_file(room.path("died.snap"));
            }
        }
        for fault in ["vanishing:error", "image-durable:error"] {
            room.snap(["dump", "--kill", &pid, "-o", "died.snap"]).env("SNAP_FAULT", fault).run().expect(1);
            victim.check();
            let _ = std::fs::remove_file(room.path("died.snap"));
        }
        let image = room.dump_and_kill(&mut victim, "died.snap");
        for point in Point::ALL.into_iter().filter(|point| *point >= Point::SkeletonBorn) {
            for failure in ["", ":error"] {
                let fault = format!("{}{failure}", point.name());
                let run = room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", &fault).run();
                assert!(run.signal.is_some() || run.code == Some(7), "{fault}: not reached: {run}");
                alone(&fault, &[1]);
            }
        }
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        victim.ask("final");
        victim.end();
    });
}

/// Whether a dump of connections without rights passes it, in time.
fn is_passed(point: Point, fate: &str) -> bool {
    let never = [
        Point::Gathered,
        Point::Exchanging,
        Point::Exchanged,
        Point::OptionChanged,
        Point::AioProbing,
        Point::Locked,
        Point::Repairing,
    ];
    let only_kill = [Point::ImageDurable, Point::Vanishing];
    !never.contains(&point)
        && (fate == "--kill" || !only_kill.contains(&point))
        && (fate != "--kill" || !BY_CHANCE.contains(&point))
}
