//! A tree with `snap` itself in it: left out, and its parent can tell on which side of the dump it is.

use super::{entry, tree};
use crate::support::snap::BINARY;
use crate::support::{isolated, wait};
use std::path::Path;

/// The status that docs and help promise.
const RESTORED: i64 = 10;

#[test]
fn exam_29_a_script_dumps_itself() {
    isolated(|room| {
        let script = format!("{BINARY} dump $$ -o x.snap; echo code $?; exit 0");
        let run = room.snap(["-c", &script]).through(&[], Path::new("/bin/bash")).run().expect(0);
        assert!(run.stdout.contains("code 0"), "{run}");
        assert!(run.stdout.contains("it is left out") || run.stderr.contains("it is left out"), "{run}");
        let tree = tree(room, &room.path("x.snap"));
        assert_eq!(tree["processes"].as_array().map(Vec::len), Some(1), "{tree:#}");
        let shell = &tree["processes"][0];
        let own = &tree["zombies"][0];
        assert_eq!((&own["ppid"], own["exit_code"].as_i64()), (&shell["pid"], Some(RESTORED)), "{tree:#}");
        assert_eq!(own["name"], "snap");
        let signals = room.snap(["inspect", "--json", "x.snap", "signals"]).run().expect(0).json();
        let pending = &entry(&signals["processes"], "pid", shell["pid"].as_i64().expect("a pid") as i32)["pending"];
        assert_eq!((&pending[0]["signal"], &pending[0]["pid"]), (&"SIGCHLD".into(), &own["pid"]), "{signals:#}");
    });
}

#[test]
fn exam_29_writing_to_a_process_that_stands_still_is_refused() {
    isolated(|room| {
        let script = format!("{BINARY} dump $$ -o - | cat > y.snap; echo code ${{PIPESTATUS[0]}}");
        let run = room.snap(["-c", &script]).through(&[], Path::new("/bin/bash")).run().expect(0).says("stands still");
        assert!(run.stdout.contains("code 3"), "{run}");
        wait::alone();
    });
}

#[test]
fn exam_29_a_shell_that_shows_the_report_through_a_pipe_is_dumped() {
    isolated(|room| {
        let script = format!("{BINARY} dump $$ -o x.snap | cat; echo code ${{PIPESTATUS[0]}}");
        let run = room.snap(["-c", &script]).through(&[], Path::new("/bin/bash")).run().expect(0);
        assert!(run.stdout.contains("code 0"), "{run}");
        let tree = tree(room, &room.path("x.snap"));
        assert_eq!(tree["processes"].as_array().map(Vec::len), Some(2), "{tree:#}");
    });
}

#[test]
fn exam_29_a_script_that_has_dumped_itself_knows_in_which_run_it_is() {
    isolated(|room| {
        let script = format!("{BINARY} -q dump $$ -o x.snap; echo code $? >> log; exit 0");
        room.snap(["-c", &script]).through(&[], Path::new("/bin/bash")).run().expect(0);
        let log = || std::fs::read_to_string(room.path("log")).expect("the log");
        assert_eq!(log(), "code 0\n");
        wait::alone();
        for runs in 1..=2 {
            room.snap(["restore", "x.snap"]).run().expect(0);
            assert_eq!(log(), format!("code 0\n{}", format!("code {RESTORED}\n").repeat(runs)));
            wait::alone();
        }
        let check = format!("{BINARY} check $$");
        room.snap(["-c", &format!("{check}; exit $?")]).through(&[], Path::new("/bin/bash")).run().expect(0);
    });
}
