//! Threads in the middle of a transfer, which go on and return the count of the whole.

use crate::support::code::Code;
use crate::support::network::own_network;
use crate::support::{Room, Victim, isolated, require_root};

/// All kinds of transfers, in victims that have room for the code of all of theirs.
const LOCAL: [&str; 5] = ["local", "pieces", "carrying", "long", "fifteen"];
const TCP: [&str; 3] = ["tcp", "tcp-pieces", "tcp-carrying"];

/// Looks at it several times, with progress in between and without; then kills and restores it.
fn goes_on(room: &Room, mut victim: Victim, last: &str) {
    victim.check();
    for (number, moves) in [false, false, true, true, false].into_iter().enumerate() {
        let image = room.dump(victim.pid(), &format!("{number}.snap"), &[]);
        std::fs::remove_file(image).expect("an image");
        if moves {
            victim.ask("some");
        }
        victim.check();
    }
    for moves in [false, true] {
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        if moves {
            victim.ask("some");
        }
    }
    victim.ask(last);
    victim.end();
}

#[test]
fn exam_01_transfers_return_their_full_count() {
    isolated(|room| room.survives(room.victim("transfer", &[])));
}

#[test]
fn exam_01_transfers_that_are_stopped_again_and_again_return_their_full_count() {
    isolated(|room| goes_on(room, room.victim("transfer", &[]), "final"));
}

#[test]
fn exam_01_transfers_in_pieces_and_of_files_return_their_full_count() {
    isolated(|room| {
        for kinds in ["pieces", "carrying"] {
            goes_on(room, room.victim("transfer", &[kinds]), "final");
        }
    });
}

#[test]
fn exam_01_buffers_that_are_being_filled_with_zeroes_and_random_numbers_become_full() {
    isolated(|room| {
        let victim = room.victim("transfer", &["sources"]);
        victim.check();
        let code = Code::of(victim.pid());
        room.dump(victim.pid(), "left.snap", &[]);
        assert!(code.is_changed(victim.pid()), "no call was in its middle");
        room.survives(victim);
    });
}

#[test]
fn exam_01_a_transfer_of_a_thread_with_descriptors_of_its_own_returns_its_full_count() {
    isolated(|room| goes_on(room, room.victim("transfer", &["apart"]), "final"));
}

/// A C program, restored where the vdso is another one too. `in_vdso` says whether the rest of its call can only stand there.
fn goes_on_elsewhere(room: &Room, mut victim: Victim, in_vdso: bool) {
    for pretence in ["", "other-vdso", "bare-vdso", "sealed-vdso"] {
        victim.check();
        let image = room.dump(victim.pid(), "left.snap", &[]);
        std::fs::remove_file(image).expect("an image");
        victim.check();
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        let maps = room.snap(["inspect", "--json"]).arg(&image).arg("maps").run().expect(0).json();
        let remainders = maps["address_spaces"][0]["remainders"].as_array().expect("a list").len();
        // What a restore has put into a vdso that is another one now is ordinary memory.
        let as_wanted = if in_vdso { remainders > 0 || !pretence.is_empty() } else { remainders == 0 };
        assert!(as_wanted, "{pretence}: {remainders} in the vdso");
        room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", pretence).run().expect(0);
        victim.check();
    }
    victim.end();
}

#[test]
fn exam_01_a_transfer_of_a_c_program_returns_its_full_count() {
    isolated(|room| {
        goes_on_elsewhere(room, room.victim("c-transfer", &[]), false);
        goes_on_elsewhere(room, room.victim("c-transfer-static", &[]), true);
    });
}

#[test]
fn exam_01_eight_transfers_of_a_static_program_return_their_full_count() {
    isolated(|room| room.survives(room.victim("c-transfer-static", &["8"])));
}

#[test]
fn exam_01_transfers_of_many_pieces_and_of_a_pipe_return_their_full_count() {
    isolated(|room| {
        for kinds in ["fifteen", "long", "long-message", "nowhere"] {
            goes_on(room, room.victim("transfer", &[kinds]), "final");
        }
    });
}

#[test]
fn exam_01_every_byte_of_a_transfer_has_the_author_that_it_was_sent_with() {
    isolated(|room| goes_on(room, room.victim("transfer", &["credentials"]), "final"));
}

#[test]
fn exam_01_transfers_that_wait_for_a_while_or_for_a_part_return_all_of_it() {
    isolated(|room| goes_on(room, room.victim("transfer", &["waiting"]), "final"));
}

#[test]
fn exam_01_calls_for_several_messages_return_how_many_they_were_made_for() {
    isolated(|room| {
        for kinds in ["messages", "stream-sent", "stream-filled"] {
            goes_on(room, room.victim("transfer", &[kinds]), "final");
        }
    });
}

#[test]
fn exam_01_files_are_copied_as_a_whole() {
    const TIMES: usize = 12;
    isolated(|room| {
        let victim = room.victim("transfer", &["copies"]);
        let code = Code::of(victim.pid());
        for _ in 0..TIMES {
            let image = room.dump(victim.pid(), "left.snap", &[]);
            std::fs::remove_file(image).expect("an image");
        }
        assert!(code.is_changed(victim.pid()), "no call was in its middle");
        // The file that sendfile(2) writes has an offset of its own.
        room.survives_but(victim, &["fd 00005"]);
    });
}

#[test]
fn a_transfer_that_returns_a_part_is_named_with_its_thread() {
    isolated(|room| {
        for (kind, warnings) in [
            ("cut", ["recvmsg(2) of 1048576 bytes returns after 131072: there may be descriptors with the rest"; 2]),
            (
                "cut-message",
                [
                    "recvmmsg(2) of 2000 bytes returns after 250: ",
                    "a part of one of its messages has come, and the rest is in several",
                ],
            ),
        ] {
            let mut victim = room.victim("transfer", &[kind]);
            victim.check();
            let dump = room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(0);
            for warning in warnings {
                assert!(dump.stdout.contains(warning), "{dump}");
            }
            victim.ask("ended");
            victim.end();
        }
    });
}

#[test]
fn exam_01_transfers_over_tcp_return_their_full_count() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        for kinds in TCP.into_iter().chain(["tcp-sent", "tcp-filled"]) {
            goes_on(room, room.victim("transfer", &[kinds]), "final");
        }
    });
}

#[test]
fn a_transfer_whose_other_end_goes_away_returns_what_it_has_done() {
    isolated(|room| {
        for kinds in LOCAL.into_iter().chain(["waiting"]) {
            goes_on(room, room.victim("transfer", &[kinds]), "break");
        }
    });
}

#[test]
fn a_transfer_over_a_connection_that_is_reset_returns_the_error_that_is_told_once() {
    isolated(|room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN)");
        own_network();
        for kinds in TCP {
            let mut victim = room.victim("transfer", &[kinds]);
            victim.check();
            room.dump(victim.pid(), "left.snap", &[]);
            victim.check();
            victim.ask("break");
            victim.end();
        }
    });
}

#[test]
fn a_handler_without_restart_ends_a_transfer_with_what_it_has_done() {
    isolated(|room| {
        for kinds in LOCAL.into_iter().chain(["waiting"]) {
            goes_on(room, room.victim("transfer", &[kinds]), "interrupt");
        }
    });
}

#[test]
fn a_handler_returns_into_a_transfer_that_was_stopped_before() {
    isolated(|room| {
        for kinds in LOCAL {
            let mut victim = room.victim("transfer", &[kinds]);
            victim.check();
            room.dump(victim.pid(), "first.snap", &[]);
            victim.ask("hold");
            room.dump(victim.pid(), "held.snap", &[]);
            victim.check();
            let image = room.dump_and_kill(&mut victim, "killed.snap");
            room.restore(&image, &[]);
            victim.ask("release");
            victim.check();
            victim.ask("some");
            victim.ask("final");
            victim.end();
        }
    });
}

#[test]
fn what_transfers_have_left_is_taken_away_when_they_are_done() {
    isolated(|room| {
        for kinds in LOCAL {
            let mut victim = room.victim("transfer", &[kinds]);
            victim.check();
            let code = Code::of(victim.pid());
            room.dump(victim.pid(), "first.snap", &[]);
            assert!(code.is_changed(victim.pid()), "nothing of ours is there");
            victim.ask("final");
            room.dump(victim.pid(), "second.snap", &[]);
            assert!(!code.is_changed(victim.pid()), "something of ours is left");
            victim.end();
        }
    });
}
