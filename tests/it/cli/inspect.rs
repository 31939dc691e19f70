//! `snap inspect`: every view, as text and as JSON.

use crate::support::isolated;

const VIEWS: &[&str] = &["tree", "threads", "maps", "fds", "signals", "timers", "files", "ipc", "env", "stats"];

#[test]
fn every_view_as_text_and_as_json() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["5"]);
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", victim.pid())).expect("maps");
        let image = room.dump_and_kill(&mut victim, "x.snap");
        let overview = room.snap(["inspect"]).arg(&image).run().expect(0);
        assert!(
            overview.stdout.contains(&victim.pid().to_string()) && overview.stdout.contains("threads"),
            "{overview}"
        );
        for view in VIEWS {
            let text = room.snap(["inspect"]).arg(&image).arg(view).run().expect(0);
            assert!(!text.stdout.is_empty(), "{view}: nothing");
            let json = room.snap(["inspect", "--json"]).arg(&image).arg(view).run().expect(0).json();
            assert!(json["schema"].as_str().is_some_and(|schema| schema.starts_with("snap.")), "{view}: {json}");
        }
        let threads = room.snap(["inspect"]).arg(&image).arg("threads").run().expect(0);
        assert!((0..5).all(|index| threads.stdout.contains(&format!("victim-{index}"))), "{threads}");
        let shown = room.snap(["inspect"]).arg(&image).arg("maps").run().expect(0);
        for line in maps.lines().filter(|line| !line.contains("[vsyscall]")) {
            let start = line.split('-').next().unwrap_or(line);
            assert!(shown.stdout.contains(start), "mapping {start} is not shown: {shown}");
        }
    });
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    isolated(|room| {
        let victim = room.victim("vmas", &["3000"]);
        let image = room.dump(victim.pid(), "x.snap", &[]);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let run = room
            .snap(["inspect"])
            .arg(&image)
            .arg("maps")
            .stdout(std::fs::File::from(std::os::fd::OwnedFd::from(writer)))
            .run();
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run}");
    });
}

/// Whatever the command, and whatever keeps it from reading.
#[test]
fn an_image_that_cannot_be_read_has_one_exit_code() {
    isolated(|room| {
        let victim = room.victim("sleeper", &[]);
        let image = room.dump(victim.pid(), "x.snap", &[]);
        let bytes = std::fs::read(&image).expect("the image");
        std::fs::write(room.path("cut.snap"), &bytes[..bytes.len() / 2]).expect("a file");
        std::fs::write(room.path("other.snap"), "no image").expect("a file");
        std::fs::write(room.path("empty.snap"), "").expect("a file");
        for (name, why) in [
            ("cut.snap", "truncated: "),
            ("other.snap", "not a snap image"),
            ("empty.snap", "it is empty"),
            ("missing.snap", "No such file"),
            (".", "is a directory"),
        ] {
            for command in [&["restore"][..], &["inspect"], &["restore", "--dry-run"]] {
                room.snap(command.iter().copied().chain([name])).run().expect(6).says("cannot").says(why);
            }
            let json = room.snap(["inspect", name, "--json"]).run().expect(6).json();
            assert_eq!((&json["error"]["kind"], &json["error"]["code"]), (&"bad-image".into(), &6.into()), "{name}");
        }
    });
}
