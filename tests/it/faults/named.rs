//! Death and failure of a dump at every named fault point of src/fault.rs.

use super::{
    BLOCKED, BUSY, C_MESSAGES, CONTEXTS, FILLING, FILTERED, GO, Kind, LARGE, MESSAGES, NO_LIBRARY, PENDING, PIECES,
    PLAIN, QUEUES, RINGS, RSEQ, SEMAPHORES, SENDING, SENT_FILE, SHARED_RINGS, SOCKETS, STATIC, STATIC_MESSAGES,
    STOPPED, STREAM_FILLED, STREAM_SENT, SUBREAPER, Subject, TRANSFERS, VECTOR,
};
use crate::support::{isolated_as, isolated_for, require_root};
use nix::sys::signal::Signal;
use snap::fault::Point;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

/// Fault points that a dump of such a program passes; the others belong to a restore ([`super::restore`]).
fn of_a_dump(kind: Kind) -> impl Iterator<Item = Point> {
    let passed = move |point: &Point| {
        *point < Point::SkeletonBorn
            && !super::tcp::POINTS.contains(point)
            && (kind.answers || *point != Point::Answering)
            && (kind.copies || *point != Point::Copying)
            && (kind.transfers > 0 || !matches!(point, Point::RemainderWritten | Point::RemainderEntered))
            && (kind.queues || !matches!(point, Point::Gathered | Point::Exchanging | Point::Exchanged))
            && (kind.contexts || *point != Point::AioProbing)
            && (kind.sockets || *point != Point::OptionChanged)
    };
    Point::ALL.into_iter().filter(passed)
}

/// Kills `snap dump` at each point in turn, then dumps, kills and restores the same victim.
fn dump_dies_everywhere<Test: Fn() -> Kind>(kind: Test) {
    isolated_as::<Test>(LIMIT, |room| {
        let kind = kind();
        if kind.privileged {
            require_root!("to read seccomp filters");
        }
        let subject = Subject::start(room, kind);
        for point in of_a_dump(kind) {
            let image = room.path("died.snap");
            subject.stir();
            let interrupted = subject.interrupted_calls();
            // Only a dump that ends its target has the image safe before.
            let fate = if point == Point::ImageDurable { "--kill" } else { "--leave-running" };
            let run = room
                .snap(["dump", fate, &subject.pid().to_string(), "-o"])
                .arg(&image)
                .env("SNAP_FAULT", point.name())
                .env("SNAP_COPIERS", "always")
                .run();
            assert_eq!(run.signal, Some(Signal::SIGKILL as i32), "{}: not reached: {run}", point.name());
            subject.assert_unharmed(&format!("snap died at {}", point.name()));
            // A transfer returns a short count until its thread has been made to go on with the rest.
            let short = match point {
                Point::Frozen | Point::RemainderWritten => kind.transfers,
                Point::RemainderEntered => kind.transfers - 1,
                _ => 0,
            };
            if kind.transfers > 0 {
                assert_eq!(subject.interrupted_calls() - interrupted, short, "short counts at {}", point.name());
            }
            if point < Point::ImageDurable {
                assert_eq!(room.images(), [""; 0], "{}: a file is left", point.name());
            } else {
                room.snap(["inspect"]).arg(&image).run().expect(0);
                std::fs::remove_file(&image).expect("the image");
            }
        }
        subject.assert_survives(room);
    });
}

#[test]
fn dump_of_a_c_program_dies() {
    dump_dies_everywhere(|| PLAIN);
}

#[test]
fn dump_of_a_static_program_dies() {
    dump_dies_everywhere(|| STATIC);
}

#[test]
fn dump_of_a_program_without_libraries_dies() {
    dump_dies_everywhere(|| NO_LIBRARY);
}

#[test]
fn dump_of_a_go_program_dies() {
    dump_dies_everywhere(|| GO);
}

#[test]
fn dump_of_a_filtered_program_dies() {
    dump_dies_everywhere(|| FILTERED);
}

#[test]
fn dump_of_a_stopped_program_dies() {
    dump_dies_everywhere(|| STOPPED);
}

#[test]
fn dump_of_a_program_in_an_rseq_section_dies() {
    dump_dies_everywhere(|| RSEQ);
}

#[test]
fn dump_of_a_program_with_pending_signals_dies() {
    dump_dies_everywhere(|| PENDING);
}

#[test]
fn dump_of_fifteen_busy_threads_dies() {
    dump_dies_everywhere(|| BUSY);
}

#[test]
fn dump_of_blocked_threads_dies() {
    dump_dies_everywhere(|| BLOCKED);
}

#[test]
fn dump_of_transfers_in_their_middle_dies() {
    dump_dies_everywhere(|| TRANSFERS);
}

#[test]
fn dump_of_transfers_in_pieces_in_their_middle_dies() {
    dump_dies_everywhere(|| PIECES);
}

#[test]
fn dump_of_pieces_that_are_filled_dies() {
    dump_dies_everywhere(|| FILLING);
}

#[test]
fn dump_of_a_file_in_the_middle_of_its_sending_dies() {
    dump_dies_everywhere(|| SENT_FILE);
}

#[test]
fn dump_of_several_messages_in_their_middle_dies() {
    dump_dies_everywhere(|| MESSAGES);
}

#[test]
fn dump_of_messages_that_are_sent_to_a_stream_dies() {
    dump_dies_everywhere(|| STREAM_SENT);
}

#[test]
fn dump_of_messages_that_are_filled_from_a_stream_dies() {
    dump_dies_everywhere(|| STREAM_FILLED);
}

#[test]
fn dump_of_several_messages_of_a_c_program_dies() {
    dump_dies_everywhere(|| C_MESSAGES);
}

#[test]
fn dump_of_several_messages_of_a_static_program_dies() {
    dump_dies_everywhere(|| STATIC_MESSAGES);
}

#[test]
fn dump_of_vector_registers_dies() {
    dump_dies_everywhere(|| VECTOR);
}

#[test]
fn dump_of_sockets_dies() {
    dump_dies_everywhere(|| SOCKETS);
}

#[test]
fn dump_of_threads_with_semaphores_dies() {
    dump_dies_everywhere(|| SEMAPHORES);
}

#[test]
fn dump_of_message_queues_dies() {
    dump_dies_everywhere(|| QUEUES);
}

#[test]
fn dump_of_rings_for_sending_dies() {
    dump_dies_everywhere(|| SENDING);
}

#[test]
fn a_look_into_message_queues_comes_to_its_end() {
    a_look_comes_to_its_end(|| QUEUES, 60);
}

#[test]
fn nobody_sees_a_ring_for_sending_that_is_being_asked() {
    a_look_comes_to_its_end(|| SENDING, 20);
}

/// Whoever looks into the queue is somewhere between its first message and the last when `snap` dies.
fn a_look_comes_to_its_end<Test: Fn() -> Kind>(kind: Test, times: usize) {
    isolated_as::<Test>(LIMIT, |room| {
        let subject = Subject::start(room, kind());
        for turn in 0..times {
            let point = if turn % 10 == 0 { Point::Gathered } else { Point::Exchanging };
            let dump = room.snap(["dump", &subject.pid().to_string(), "-o", "died.snap"]);
            let run = dump.env("SNAP_FAULT", point.name()).run();
            assert_eq!(run.signal, Some(Signal::SIGKILL as i32), "{}: not reached: {run}", point.name());
            subject.assert_unharmed(&format!("turn {turn}: snap died at {}", point.name()));
        }
        subject.assert_survives(room);
    });
}

#[test]
fn a_look_into_message_queues_that_fails_harms_nobody() {
    a_look_that_fails_harms_nobody(|| QUEUES);
}

#[test]
fn a_question_to_rings_for_sending_that_fails_harms_nobody() {
    a_look_that_fails_harms_nobody(|| SENDING);
}

fn a_look_that_fails_harms_nobody<Test: Fn() -> Kind>(kind: Test) {
    isolated_as::<Test>(LIMIT, |room| {
        let subject = Subject::start(room, kind());
        for point in [Point::Gathered, Point::Exchanging, Point::Exchanged] {
            let fault = format!("{}:error", point.name());
            let dump = room.snap(["dump", &subject.pid().to_string(), "-o", "failed.snap"]);
            dump.env("SNAP_FAULT", &fault).run().expect(1).says(point.name());
            subject.assert_unharmed(&fault);
        }
        subject.assert_survives(room);
    });
}

#[test]
fn dump_of_contexts_dies() {
    dump_dies_everywhere(|| CONTEXTS);
}

#[test]
fn dump_of_contexts_that_threads_use_dies() {
    dump_dies_everywhere(|| RINGS);
}

#[test]
fn dump_of_contexts_that_processes_use_together_dies() {
    dump_dies_everywhere(|| SHARED_RINGS);
}

#[test]
fn no_thread_sees_a_ring_that_is_being_asked() {
    nobody_sees_a_ring_that_is_being_asked(|| RINGS);
}

#[test]
fn no_process_sees_a_ring_that_is_being_asked() {
    nobody_sees_a_ring_that_is_being_asked(|| SHARED_RINGS);
}

/// The process that asks fills the rings when `snap` dies.
fn nobody_sees_a_ring_that_is_being_asked<Test: Fn() -> Kind>(kind: Test) {
    isolated_as::<Test>(LIMIT, |room| {
        let subject = Subject::start(room, kind());
        for turn in 0..16 {
            let dump = room.snap(["dump", &subject.pid().to_string(), "-o", "died.snap"]);
            let run = dump.env("SNAP_FAULT", Point::AioProbing.name()).run();
            assert_eq!(run.signal, Some(Signal::SIGKILL as i32), "{run}");
            // What is left of the one dump is no obstacle to the next.
            if turn % 8 == 0 {
                room.dump(subject.pid(), "next.snap", &[]);
            }
            subject.assert_unharmed(&format!("death {turn} while its contexts are asked"));
        }
        subject.assert_survives(room);
    });
}

#[test]
fn dump_of_large_memory_dies() {
    dump_dies_everywhere(|| LARGE);
}

#[test]
fn dump_of_large_memory_without_a_copy_dies() {
    dump_dies_everywhere(|| SUBREAPER);
}

#[test]
fn a_dump_that_fails_leaves_the_target_running_and_no_file() {
    isolated_for(LIMIT, |room| {
        let subject = Subject::start(room, PLAIN);
        for point in of_a_dump(PLAIN) {
            let fault = format!("{}:error", point.name());
            let fate = if point == Point::ImageDurable { "--kill" } else { "--leave-running" };
            let run = room
                .snap(["dump", fate, &subject.pid().to_string(), "-o"])
                .arg(room.path("failed.snap"))
                .env("SNAP_FAULT", &fault)
                .env("SNAP_COPIERS", "always")
                .run()
                .expect(1);
            assert!(run.stderr.contains(point.name()), "the failure is not named: {run}");
            if point == Point::ImageDurable {
                room.snap(["inspect", "failed.snap"]).run().expect(0);
                std::fs::remove_file(room.path("failed.snap")).expect("the image");
            }
            assert_eq!(room.images(), [""; 0], "{fault}: a file is left");
            subject.assert_unharmed(&fault);
        }
        subject.assert_survives(room);
    });
}
