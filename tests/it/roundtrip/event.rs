//! Event descriptors: timers, descriptors of processes, epoll instances.

use crate::support::isolated;

#[test]
fn exam_17_timers_that_are_descriptors() {
    isolated(|room| room.survives(room.victim("timerfd", &[])));
}

#[test]
fn exam_17_descriptors_of_processes() {
    isolated(|room| room.survives_with_children(room.victim("pidfd", &[])));
}

#[test]
fn exam_17_epoll_instances() {
    isolated(|room| room.survives_with_children(room.victim("epoll", &[])));
}
