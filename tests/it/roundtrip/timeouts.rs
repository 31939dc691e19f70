//! Calls with a relative timeout end when they should, though they are made again.

use crate::support::{Victim, isolated};
use std::time::{Duration, Instant};

/// The timeout of all calls.
const PERIOD: Duration = Duration::from_secs(3);
/// How late a call may end. One that began anew would end half of the time late.
const LATE: Duration = Duration::from_millis(900);
/// These begin anew: nothing but the program's own registers, memory or options could tell the kernel otherwise. The dump says so.
const ANEW: [&str; 3] = [
    "ppoll of a timeout that is constant",
    "epoll_wait that counts on its registers",
    "recv of a socket with SO_RCVTIMEO",
];

#[test]
fn exam_01_calls_that_are_made_again_end_in_time() {
    isolated(|room| {
        let period = PERIOD.as_millis().to_string();
        let mut victim = room.victim("timeouts", &[&period]);
        let begun = Instant::now();
        victim.ask("begin");
        victim.ask("half");
        let image = room.path("first.snap");
        let dump = || room.snap(["dump", &victim.pid().to_string(), "-o"]).arg(&image).run().expect(0);
        let said = dump().stdout;
        assert!(said.contains("the timeout of its call begins anew"), "{said}");
        // One that was shortened before is shortened once more.
        dump();
        // Nothing can end while it stands still, on a machine that is as busy as that.
        ended_in_time(&victim, begun.elapsed().saturating_sub(PERIOD));

        victim.ask("begin");
        victim.ask("half");
        let frozen = Instant::now();
        let second = room.dump_and_kill(&mut victim, "second.snap");
        assert_eq!(room.restore(&second, &[]), victim.pid());
        ended_in_time(&victim, frozen.elapsed());
        victim.end();
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.ask("ended");
        victim.end();
    });
}

/// All of them have ended by the time they had, which stood still for at most this long.
#[track_caller]
fn ended_in_time(victim: &Victim, pause: Duration) {
    let said = victim.ask("ended");
    let limit = PERIOD + pause + LATE;
    for (name, elapsed) in said.split(',').filter_map(|call| call.split_once('=')) {
        let elapsed = Duration::from_millis(elapsed.parse().expect("milliseconds"));
        let late = elapsed > limit;
        assert!(!late || ANEW.contains(&name), "{name} took {elapsed:?}, not at most {limit:?}");
    }
}
