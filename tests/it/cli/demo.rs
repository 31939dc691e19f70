//! `snap demo`: the proof for a newcomer.

use crate::support::isolated;
use std::fs;

#[test]
fn counts_on_and_cleans_up() {
    isolated(|room| {
        let run = room.snap(["demo"]).run().expect(0);
        assert!(run.stdout.contains("dump") && run.stdout.contains("restore"), "{run}");
        assert_eq!(room.images(), [""; 0], "an image is left");
        let processes = fs::read_dir("/proc").expect("proc").flatten();
        let others: Vec<_> = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).collect();
        assert_eq!(others, [1], "processes are left");
    });
}
