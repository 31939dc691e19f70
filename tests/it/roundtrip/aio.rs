//! Contexts of Linux AIO.

use crate::support::{Room, isolated};

#[test]
fn exam_10_events_that_nobody_has_taken_come_back_in_their_slots() {
    isolated(|room| room.survives(room.victim("aio", &["waiting"])));
}

#[test]
fn exam_10_threads_that_wait_for_events_and_take_them_from_the_ring_go_on() {
    isolated(|room| room.survives(room.victim("aio", &["threads"])));
}

#[test]
fn exam_10_contexts_of_processes_that_share_the_memory_go_on() {
    isolated(|room| room.survives_with_children(room.victim("aio", &["shared"])));
}

#[test]
fn requests_in_flight_are_waited_for_and_named() {
    isolated(|room: &Room| {
        let victim = room.victim("aio", &["flight"]);
        room.refuses(victim, &["AIO context 0x", "2 requests are in flight"]);
        let victim = room.victim("aio", &["flight"]);
        let dump = ["dump", "--timeout", "60", &victim.pid().to_string(), "-o", "flight.snap"].map(str::to_owned);
        let dump = room.snap(dump).spawn();
        victim.check();
        victim.ask("finish");
        dump.finish().expect(0);
        victim.ask("final");
        let timed = ["dump", "--timeout", "0.5", &victim.pid().to_string(), "-o", "timed.snap"].map(str::to_owned);
        room.snap(timed).run().expect(0);
    });
}

#[test]
fn a_request_that_outlasts_the_time_limit_is_what_the_dump_says() {
    isolated(|room: &Room| {
        let victim = room.victim("aio", &["flight"]);
        let dump = ["dump", "--timeout", "1", &victim.pid().to_string(), "-o", "flight.snap"].map(str::to_owned);
        room.snap(dump).run().expect(3).says("2 requests are in flight");
        victim.check();
    });
}

#[test]
fn a_ring_that_a_child_has_inherited_is_named_until_the_child_is_gone() {
    isolated(|room: &Room| {
        let victim = room.victim("aio", &["forked"]);
        let run = room.snap(["dump", &victim.pid().to_string(), "-o", "forked.snap"]).run().expect(3);
        run.says("[aio]").says("inherited by fork(2)");
        victim.check();
        victim.ask("reap");
        room.survives(victim);
    });
}
