//! Images that pass through pipes.

use crate::support::{isolated, wait};
use std::fs::File;
use std::os::fd::OwnedFd;

#[test]
fn a_dump_is_piped_into_a_restore() {
    isolated(|room| {
        let mut victim = room.victim("threads", &["8"]);
        victim.check();
        let (reader, writer) = std::io::pipe().expect("a pipe");
        // The pid must be free before the restore takes it, so the image waits in a file that the second pipe reads.
        let dump = room
            .snap(["dump", "--kill", "-o", "-", &victim.pid().to_string()])
            .stdout(File::from(OwnedFd::from(writer)))
            .spawn();
        let mut image = Vec::new();
        std::io::Read::read_to_end(&mut { reader }, &mut image).expect("the stream");
        dump.finish().expect(0);
        victim.killed();
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let feeder = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &image));
        let run = room.snap(["restore", "--detach", "-"]).stdin(File::from(OwnedFd::from(reader))).run().expect(0);
        feeder.join().expect("the feeder").expect("the whole image was read");
        assert_eq!(run.stdout.trim(), victim.pid().to_string());
        victim.check();
    });
}

#[test]
fn both_commands_run_at_the_same_time() {
    isolated(|room| {
        let mut victim = room.victim("ballast", &["8"]);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let restore = room
            .snap(["restore", "--new-pid-namespace", "--detach", "-"])
            .stdin(File::from(OwnedFd::from(reader)))
            .spawn();
        let dump = room
            .snap(["dump", "--kill", "-o", "-", &victim.pid().to_string()])
            .stdout(File::from(OwnedFd::from(writer)))
            .run();
        let restored = restore.finish().expect(0);
        dump.expect(0);
        victim.killed();
        victim.goes_by(restored.stdout.trim().parse().expect("the pid that --detach prints"));
        victim.check();
    });
}

#[test]
fn a_reader_that_goes_away_is_no_harm() {
    isolated(|room| {
        let victim = room.victim("ballast", &["8"]);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let run =
            room.snap(["dump", "-o", "-", &victim.pid().to_string()]).stdout(File::from(OwnedFd::from(writer))).spawn();
        drop(reader);
        run.finish().expect(1).says("Broken pipe").says("no image is left");
        wait::until("the tracer to be gone", || {
            (crate::support::facts::status(victim.pid(), "TracerPid") == "0").then_some(())
        });
        victim.check();
    });
}
