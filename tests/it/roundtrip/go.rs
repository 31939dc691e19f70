//! Go: small stacks that move, threads of the runtime, signals to itself.

use crate::support::isolated;

/// The runtime starts threads, maps memory and sends itself signals whenever it likes.
const RESTLESS: &[&str] = &["task ", "map "];

#[test]
fn exam_04_goroutines_on_many_threads() {
    isolated(|room| room.survives_but(room.victim("go-goroutines", &[]), RESTLESS));
}

/// With garbage there are timers of the runtime, and with timers an epoll instance.
#[test]
fn goroutines_that_make_garbage() {
    isolated(|room| room.survives_but(room.victim("go-goroutines", &["collect"]), &["task ", "map ", "fd "]));
}
