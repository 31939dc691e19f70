//! xz and zstd with two threads on 300 MB, caught in the middle.

use crate::support::{Room, isolated_for, only_once, wait};
use nix::sys::wait::WaitStatus;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const SIZE: usize = 300 << 20;
const LIMIT: Duration = Duration::from_secs(600);

/// Text that compresses to about a third: words chosen by a small generator.
fn input(room: &Room) -> PathBuf {
    let path = room.path("input");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).expect("the input"));
    let (mut state, mut written) = (1u64, 0);
    while written < SIZE {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = format!("{:x} ", state >> (36 + state % 16));
        file.write_all(word.as_bytes()).expect("the input");
        written += word.len();
    }
    file.flush().expect("the input");
    path
}

/// Starts a compressor that writes to `output`.
fn start(program: &str, arguments: &[&str], input: &Path, output: &Path) -> i32 {
    #[allow(
        clippy::zombie_processes,
        reason = "reaped by its pid, under which a restore brings it back as another child"
    )]
    let child = Command::new(program)
        .args(arguments)
        .arg(input)
        .arg("-o")
        .arg(output)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.id() as i32
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Waits until it has written something, so that it is in the middle.
fn at_work(output: &Path) {
    wait::until("the first output", || (length(output) > 1 << 20).then_some(()));
}

fn ends_well(pid: i32) {
    let end = wait::gone_within(pid, LIMIT);
    assert!(matches!(end, Some(WaitStatus::Exited(_, 0))), "the compressor ended with {end:?}");
}

/// The result decompresses to the same bytes.
fn assert_equal(program: &str, output: &Path, input: &Path) {
    let script = "\"$0\" -dc < \"$1\" | cmp - \"$2\"";
    let status = Command::new("bash").args(["-o", "pipefail", "-c", script, program]).args([output, input]).status();
    assert!(status.expect("bash").success(), "the output of {program} does not decompress to the input");
}

fn survives(room: &Room, program: &str, start: impl Fn(&Path, &Path) -> i32) {
    let (input, output) = (input(room), room.path("output"));
    // Dump, kill, restore.
    let pid = start(&input, &output);
    at_work(&output);
    let image = room.dump(pid, "killed.snap", &["--kill"]);
    wait::gone(pid);
    assert_eq!(room.restore(&image, &[]), pid);
    ends_well(pid);
    assert_equal(program, &output, &input);
    fs::remove_file(&output).expect("the output");
    fs::remove_file(&image).expect("the image");
    // Dump and go on, restore later.
    let pid = start(&input, &output);
    at_work(&output);
    let image = room.dump(pid, "living.snap", &[]);
    ends_well(pid);
    assert_equal(program, &output, &input);
    assert_eq!(room.restore(&image, &["--files", "truncate"]), pid);
    ends_well(pid);
    assert_equal(program, &output, &input);
}

#[test]
fn zstd_with_two_threads() {
    isolated_for(LIMIT, |room| {
        only_once!("it compresses 300 MB twice");
        survives(room, "zstd", |input, output| start("zstd", &["-T2", "-5", "-q", "-f"], input, output));
    });
}

#[test]
fn xz_with_two_threads() {
    isolated_for(LIMIT, |room| {
        only_once!("it compresses 300 MB twice");
        survives(room, "xz", |input, output| {
            let file = File::create(output).expect("the output");
            #[allow(clippy::zombie_processes, reason = "as above")]
            let child = Command::new("xz")
                .args(["-T2", "-0", "-c"])
                .arg(input)
                .stdin(Stdio::null())
                .stdout(file)
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .expect("xz");
            child.id() as i32
        });
    });
}
