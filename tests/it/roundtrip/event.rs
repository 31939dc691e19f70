//! Event descriptors: timers, descriptors of processes, epoll instances.

use crate::support::{isolated, needs, require_root, wait};
use std::path::Path;

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
    isolated(|room| {
        let mut victim = room.victim("epoll", &[]);
        if needs::kernel() >= (6, 5) {
            return room.survives_with_children(victim);
        }
        // Nobody tells whether an eventfd is a semaphore, but the user may know.
        let refused = room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
        refused.says("whether it is a semaphore").says("--plain-eventfds");
        victim.check();
        let image = room.dump(victim.pid(), "x.snap", &["--kill", "--plain-eventfds"]);
        victim.killed();
        wait::alone();
        room.restore(&image, &[]);
        victim.check();
        victim.ask("final");
    });
}

#[test]
fn exam_17_watches_of_inotify() {
    isolated(|room| room.survives(room.victim("inotify", &[])));
}

#[test]
fn exam_17_events_that_wait_are_refused_or_given_up() {
    isolated(|room| {
        let mut victim = room.victim("inotify", &["pending"]);
        room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3).says("--drop-events");
        assert_eq!(room.images(), [""; 0]);
        victim.check();
        let image = room.dump(victim.pid(), "x.snap", &["--kill", "--drop-events"]);
        victim.killed();
        room.restore(&image, &[]);
        victim.ask("drop");
        victim.ask("final");
    });
}

#[test]
fn exam_17_marks_of_fanotify() {
    require_root!("fanotify takes CAP_SYS_ADMIN in the first user namespace");
    isolated(|room| room.survives(room.victim("fanotify", &[])));
}

#[test]
fn a_persistent_interface_of_tun() {
    require_root!("interfaces of /dev/net/tun take CAP_NET_ADMIN");
    isolated(|room| {
        if own_network() {
            room.survives(room.victim("tun", &[]));
        }
    });
}

#[test]
fn an_interface_of_tun_that_goes_with_its_descriptor_is_refused() {
    require_root!("interfaces of /dev/net/tun take CAP_NET_ADMIN");
    isolated(|room| {
        if own_network() {
            room.refuses(room.victim("tun", &["passing"]), &["/dev/net/tun", "its interface victim0 would go with it"]);
        }
    });
}

/// A network namespace for interfaces of this test alone, where the kernel has such interfaces.
fn own_network() -> bool {
    let has_tun = Path::new("/dev/net/tun").exists();
    if has_tun {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
    } else {
        println!("not run: there is no /dev/net/tun");
    }
    has_tun
}
