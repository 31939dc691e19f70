//! Shared memory and files without a name that no descriptor leads to: root opens them through /proc/PID/map_files, everybody else reads them where they are mapped.

use crate::support::needs::privileged;
use crate::support::{Facts, Room, Victim, isolated};

/// Pages of which somebody reads or makes nothing but these.
const TOUCHED: usize = 3;

#[test]
fn what_this_process_never_touched_is_not_lost() {
    isolated(|room| {
        let mut victim = room.victim("nameless", &["untouched"]);
        let first = room.dump(victim.pid(), "first.snap", &[]);
        let second = room.dump_and_kill(&mut victim, "second.snap");
        for image in [second, first] {
            assert_eq!(room.restore(&image, &[]), victim.pid());
            victim.check();
            victim.end();
        }
    });
}

#[test]
fn exam_10_a_file_that_is_mapped_by_two_names_which_are_gone_is_one() {
    isolated(|room| room.survives(room.victim("nameless", &["names"])));
}

/// How many pages of its region are there: its last one is made to see how large the object is, where that cannot be known otherwise.
fn assert_sparse(victim: &Victim, when: &str) {
    let most = if privileged() { TOUCHED } else { TOUCHED + 1 };
    let resident: usize = victim.ask("resident").parse().expect("a number");
    assert!((TOUCHED..=most).contains(&resident), "{when}: {resident} pages are there");
}

#[test]
fn exam_24_pages_of_shared_memory_that_nobody_touched_stay_untouched() {
    isolated(|room| {
        let mut victim = room.victim("nameless", &["sparse"]);
        assert_sparse(&victim, "before");
        let before = Facts::of(victim.pid());
        let image = room.dump(victim.pid(), "first.snap", &[]);
        before.assert_same(&Facts::of(victim.pid()), "after a dump that left it running");
        assert_sparse(&victim, "after a dump that left it running");
        let size = image.metadata().expect("the image").len();
        assert!(size < 4 << 20, "{size} bytes for {TOUCHED} pages");
        let image = room.dump_and_kill(&mut victim, "second.snap");
        assert_eq!(room.restore(&image, &[]), victim.pid());
        assert_sparse(&victim, "after the restore");
        victim.check();
    });
}

#[test]
fn memfds_and_semaphores_whose_descriptors_are_closed() {
    isolated(|room| room.survives(room.victim("nameless", &["closed"])));
}

/// Root restores it; everybody else is told why nobody else can.
fn survives_or_is_refused(room: &Room, group: &str, words: &[&str]) {
    let victim = room.victim("nameless", &[group]);
    match privileged() {
        true => room.survives(victim),
        false => room.refuses(victim, &[&["mapping ", "CAP_CHECKPOINT_RESTORE"], words].concat()),
    }
}

#[test]
fn a_memfd_of_which_a_part_is_mapped_nowhere() {
    isolated(|room| survives_or_is_refused(room, "holed", &["4096 bytes of the object are mapped nowhere"]));
}

#[test]
fn a_sealed_memfd() {
    isolated(|room| survives_or_is_refused(room, "sealed", &["its seals"]));
}

#[test]
fn a_file_that_is_mapped_beyond_its_end() {
    isolated(|room| survives_or_is_refused(room, "beyond", &["mapped beyond its end"]));
}

/// What is written through the other name must be seen in the mapping, so that its content is not the image's.
#[test]
fn exam_11_a_mapped_file_is_that_of_its_other_name_elsewhere() {
    // Under that name it is mapped then.
    isolated(|room| room.survives_but(room.victim("nameless", &["elsewhere"]), &["map "]));
}
