//! Named FIFOs: within the tree, and with an end outside.

use super::survives;
use crate::support::{Room, facts, isolated, wait};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[test]
fn exam_15_fifos_between_processes_and_within_one() {
    isolated(|room| survives(room, room.victim("fifo", &[]), &[]));
}

fn fifo(room: &Room) -> PathBuf {
    let path = room.path("fifo");
    nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).expect("a FIFO");
    path
}

/// `bash` writes to a file what it reads from a FIFO; with the writing end.
fn reader(room: &Room, fifo: &Path) -> (Child, File) {
    use std::os::unix::process::CommandExt;
    let mut child = Command::new("bash");
    child.args(["-c", "exec < \"$0\"; while read -r line; do echo \"$line\" >> lines; done; echo end >> lines"]);
    let child = child.arg(fifo).current_dir(room.path("")).process_group(0).stdin(Stdio::null());
    let child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("bash");
    let writer = File::options().write(true).open(fifo).expect("the FIFO");
    (child, writer)
}

fn await_line(room: &Room, line: &str) {
    wait::until(line, || {
        let lines = std::fs::read_to_string(room.path("lines")).ok()?;
        lines.lines().any(|found| found == line).then_some(())
    });
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
    wait::alone();
}

#[test]
fn exam_18_a_fifo_that_somebody_outside_has_open_is_named() {
    isolated(|room| {
        let path = fifo(room);
        let (child, mut writer) = reader(room, &path);
        writeln!(writer, "before").expect("a line");
        await_line(room, "before");
        let pid = child.id() as i32;
        let name = path.to_str().expect("text");
        let ours = format!("it is held by pid {} (", std::process::id());
        let fd = format!(") fd {}, which is outside", writer.as_raw_fd());
        let object = format!("fd 0: {name}");
        let words = [ours.as_str(), &fd, &object, &format!("--external '{name}'"), "--allow-leak"];
        let dump = room.snap(["dump", &pid.to_string(), "-o", "leak.snap"]).run().expect(3);
        let check = room.snap(["check", &pid.to_string()]).run().expect(3);
        for word in words {
            assert!(dump.stderr.contains(word) && check.stdout.contains(word), "no `{word}`: {dump}{check}");
        }
        assert_eq!(room.images(), [""; 0]);

        let image = room.dump(pid, "external.snap", &["--external", name]);
        let leak = room.dump(pid, "leak.snap", &["--kill", "--allow-leak"]);
        end(child);
        drop(writer);
        room.snap(["restore", "--detach"]).arg(&image).run().expect(3).says(&format!("--inherit 'FD:{name}'"));
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let given = format!("0:{name}");
        let reader = File::from(std::os::fd::OwnedFd::from(reader));
        room.snap(["restore", "--detach", "--inherit", &given]).arg(&image).stdin(reader).run().expect(0);
        writeln!(writer, "after").expect("a line");
        await_line(room, "after");
        drop(writer);
        await_line(room, "end");
        wait::gone(pid);

        std::fs::remove_file(room.path("lines")).expect("the lines");
        assert_eq!(room.restore(&leak, &[]), pid);
        await_line(room, "end");
        wait::gone(pid);
    });
}

#[test]
fn bytes_that_nobody_has_open_for_reading_are_refused_where_looking_at_them_is_noticed() {
    isolated(|room| {
        room.refuses(room.victim("fifo", &["watched"]), &["that nobody has open for reading", "an epoll instance"]);
        let path = fifo(room);
        let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("the FIFO");
        let mut writer = File::options().write(true).open(&path).expect("the FIFO");
        writer.write_all(b"unread").expect("six bytes");
        drop(reader);
        let mut child = Command::new("sleep");
        let child = child.arg("1000").current_dir(room.path("")).stdin(Stdio::null());
        let child = child.stdout(Stdio::from(writer)).stderr(Stdio::null()).spawn().expect("sleep");
        let (pid, own) = (child.id() as i32, std::process::id());
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || File::options().write(true).open(path).expect("the FIFO")
        });
        let waits = || {
            let threads = facts::threads(own as i32);
            let place =
                |tid: &i32| std::fs::read_to_string(format!("/proc/{own}/task/{tid}/wchan")).unwrap_or_default();
            threads.iter().any(|tid| ["wait_for_partner", "fifo_open"].contains(&place(tid).as_str())).then_some(())
        };
        wait::until("a writer that waits", waits);
        let words = format!("pid {own} (");
        let refused = room.snap(["dump", &pid.to_string(), "-o", "x.snap"]).run().expect(3).says(&words);
        refused.says("waits for the other end of a FIFO");
        assert!(!waiting.is_finished(), "who has waited goes on");
        let mut reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("the FIFO");
        drop(waiting.join().expect("it goes on"));
        let image = room.dump(pid, "x.snap", &["--allow-leak", "--kill"]);
        end(child);
        let mut unread = [0; 6];
        reader.read_exact(&mut unread).expect("what was unread");
        drop(reader);
        assert_eq!(room.restore(&image, &[]), pid);
        let mut reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("the FIFO");
        reader.read_exact(&mut unread).expect("what was unread");
        assert_eq!(&unread, b"unread");
    });
}

#[test]
fn a_fifo_must_be_there_and_one_at_the_restore_and_nobody_else_may_have_written_to_it() {
    isolated(|room| {
        let path = fifo(room);
        let child = {
            let mut both = File::options().read(true).write(true).open(&path).expect("the FIFO");
            both.write_all(b"unread").expect("six bytes");
            let mut child = Command::new("sleep");
            let child = child.arg("1000").current_dir(room.path("")).stdin(Stdio::from(both));
            child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("sleep")
        };
        let pid = child.id() as i32;
        let image = room.dump(pid, "x.snap", &["--kill"]);
        end(child);
        std::fs::remove_file(&path).expect("the FIFO");
        let restore = || room.snap(["restore", "--detach"]).arg(&image).run();
        restore().expect(3).says(&format!("mkfifo {}", path.display()));
        std::fs::write(&path, "").expect("a file in its place");
        restore().expect(3).says("of another type");
        std::fs::remove_file(&path).expect("the file");
        fifo(room);
        let mut both = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("it");
        both.write_all(b"!").expect("a byte");
        restore().expect(7).says("somebody else has written 1 bytes");
        assert_eq!(facts::state(pid), None);
        both.read_exact(&mut [0]).expect("the byte");
        restore().expect(0);
        let mut unread = [0; 6];
        both.read_exact(&mut unread).expect("what was unread");
        assert_eq!(&unread, b"unread");
    });
}
