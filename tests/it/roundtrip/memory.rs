//! Mappings of every kind, their content, protection and advice.

use crate::support::{HugePages, Victim, isolated, needs, require, require_cpu, require_kernel, require_root};
use std::fs;

#[test]
fn private_anonymous_memory() {
    isolated(|room| room.survives(room.victim("memory", &["anonymous"])));
}

#[test]
fn mapped_files() {
    isolated(|room| room.survives(room.victim("memory", &["files"])));
}

#[test]
fn mapped_files_that_were_deleted_or_replaced() {
    isolated(|room| room.survives(room.victim("memory", &["deleted"])));
}

#[test]
fn shared_memory_and_memfds() {
    isolated(|room| room.survives(room.victim("memory", &["shared"])));
}

#[test]
fn advice() {
    isolated(|room| room.survives(room.victim("memory", &["advice"])));
}

#[test]
fn locked_memory() {
    isolated(|room| room.survives(room.victim("memory", &["locked"])));
}

#[test]
fn mlockall_for_the_future() {
    isolated(|room| room.survives(room.victim("memory", &["future"])));
}

#[test]
fn protections() {
    isolated(|room| room.survives(room.victim("memory", &["protection"])));
}

#[test]
fn protection_keys() {
    isolated(|room| {
        require_cpu!("ospke", "the CPU has no protection keys");
        room.survives(room.victim("memory", &["keys"]));
    });
}

#[test]
fn sealed_mappings() {
    isolated(|room| {
        require_kernel!(6, 10, "the kernel has no mseal(2)");
        room.survives(room.victim("memory", &["sealed"]));
    });
}

/// The kernel may drop it at any time, and the C library keeps random number generators there: no two restores may go on from one state.
#[test]
fn droppable_memory_is_not_in_the_image() {
    isolated(|room| {
        require_kernel!(6, 11, "the kernel has no droppable memory");
        let victim = room.victim("memory", &["droppable"]);
        let mut secret = [0; 64];
        fixtures::pattern::fill(&mut secret, 0xd0d0);
        let image = fs::read(room.dump(victim.pid(), "looked-at.snap", &["--compress", "none"])).expect("the image");
        assert!(!image.windows(secret.len()).any(|bytes| bytes == secret), "it is in the image");
        room.survives(victim);
    });
}

#[test]
fn guard_regions() {
    isolated(|room| {
        require_kernel!(6, 13, "the kernel has no guard regions");
        room.survives(room.victim("memory", &["guards"]));
    });
}

/// Among them one that is also the policy of the task, and a mapping without one.
#[test]
fn numa_policies_of_mappings() {
    isolated(|room| room.survives(room.victim("memory", &["policy"])));
}

#[test]
fn numa_policies_of_a_few_mappings_in_a_process_with_much_memory() {
    isolated(|room| room.survives(room.victim("memory", &["policy-much"])));
}

#[test]
fn transparent_huge_pages() {
    isolated(|room| room.survives(room.victim("memory", &["huge"])));
}

/// Memory in huge pages of the kernel's own choice, in KiB.
fn in_huge_pages(victim: &Victim) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", victim.pid())).expect("smaps_rollup");
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).expect("AnonHugePages");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn transparent_huge_pages_are_given_back_as_such() {
    isolated(|room| {
        let mut victim = room.victim("memory", &["huge"]);
        let before = in_huge_pages(&victim);
        require!(before >= 4096, "the kernel gives no transparent huge pages ({before} KiB)");
        let first = room.dump(victim.pid(), "first.snap", &[]);
        assert_eq!(in_huge_pages(&victim), before, "a dump that left it running has split huge pages");
        let second = room.dump(victim.pid(), "second.snap", &["--kill"]);
        for image in [second, first] {
            victim.killed();
            room.restore(&image, &[]);
            assert_eq!(in_huge_pages(&victim), before, "huge pages came back as small ones");
            victim.end();
        }
    });
}

#[test]
fn hugetlb_pages() {
    isolated(|room| {
        require_root!("to reserve huge pages");
        let reserved = HugePages::reserve(16);
        require!(reserved.are_there(), "no memory for huge pages");
        room.survives(room.victim("memory", &["hugetlb"]));
    });
}

#[test]
fn shared_huge_pages_that_nobody_has_touched() {
    isolated(|room| {
        let victim = room.victim("unsupported", &["hugetlb"]);
        if needs::privileged() {
            room.survives(victim);
        } else {
            room.refuses(victim, &["CAP_CHECKPOINT_RESTORE"]);
        }
    });
}

#[test]
fn memfds_of_huge_pages() {
    isolated(|room| {
        require_root!("to reserve huge pages");
        let reserved = HugePages::reserve(30);
        require!(reserved.are_there(), "no memory for huge pages");
        room.survives_with_children(room.victim("huge", &[]));
    });
}

#[test]
fn ten_thousand_mappings() {
    isolated(|room| room.survives(room.victim("vmas", &["10000"])));
}
