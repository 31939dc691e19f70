//! Programs that are trees of processes: make, a pool of python, bash with jobs.

use super::interpreters::{RESTLESS, script};
use crate::support::{Room, Victim, isolated, wait};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long what is left of the work may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Starts a program that works in `directory` and ends by itself.
fn start(mut command: Command, directory: &Path) -> i32 {
    let log = fs::File::create(directory.join("log")).expect("a log");
    #[allow(
        clippy::zombie_processes,
        reason = "reaped by its pid, under which a restore brings it back as another child"
    )]
    let child = command
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("dup"))
        .stderr(log)
        .process_group(0)
        .spawn()
        .expect("the program");
    child.id() as i32
}

/// Waits for a successful end of the root, and of everything that it has left behind.
fn ends_well(pid: i32, directory: &Path) {
    let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
    let end = wait::gone_within(pid, LIMIT);
    assert!(matches!(end, Some(WaitStatus::Exited(_, 0))), "ended with {end:?}\n{}", log());
    wait::alone();
}

/// Caught in the middle: killed and restored; and once more left running, and restored later.
fn survives_in_the_middle(
    room: &Room,
    command: impl Fn(&Path) -> Command,
    middle: impl Fn(&Path) -> bool,
    assert_whole: impl Fn(&Path),
) {
    let begin = |name: &str| -> (i32, PathBuf) {
        let directory = room.path(name);
        fs::create_dir(&directory).expect("a directory");
        let pid = start(command(&directory), &directory);
        wait::until("the middle of the work", || middle(&directory).then_some(()));
        (pid, directory)
    };
    let (pid, directory) = begin("killed");
    let image = room.dump(pid, "killed.snap", &["--kill"]);
    wait::gone(pid);
    wait::alone();
    assert_eq!(room.restore(&image, &[]), pid);
    ends_well(pid, &directory);
    assert_whole(&directory);

    let (pid, directory) = begin("running");
    room.dump(pid, "running.snap", &[]);
    ends_well(pid, &directory);
    assert_whole(&directory);
}

/// Forty files of C, and a program made of them.
fn project(directory: &Path) {
    const FILES: usize = 40;
    let mut main = String::from("#include <stdio.h>\n");
    for file in 0..FILES {
        let functions =
            (0..150).map(|k| format!("int g{file}_{k}(int a, int b) {{ return a * {k} + b / ({k} + 1); }}\n"));
        let text = format!("int f{file}(int x) {{ return x + {file}; }}\n") + &functions.collect::<String>();
        fs::write(directory.join(format!("f{file}.c")), text).expect("a file of C");
        main += &format!("int f{file}(int);\n");
    }
    let sum: Vec<String> = (0..FILES).map(|file| format!("f{file}(1)")).collect();
    main += &format!("int main(void) {{ printf(\"%d\\n\", {}); return 0; }}\n", sum.join(" + "));
    fs::write(directory.join("main.c"), main).expect("a file of C");
    let rules = "program: $(patsubst %.c,%.o,$(wildcard *.c))\n\tgcc -o $@ $^\n%.o: %.c\n\tgcc -O2 -c -o $@ $<\n";
    fs::write(directory.join("Makefile"), rules).expect("a Makefile");
}

fn objects(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("the directory").flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "o")).count()
}

#[test]
fn make_with_eight_jobs_in_the_middle_of_a_build() {
    isolated(|room| {
        let make = |directory: &Path| {
            project(directory);
            let mut make = Command::new("make");
            make.arg("-j8");
            make
        };
        let assert_whole = |directory: &Path| {
            let output = Command::new(directory.join("program")).output().expect("the program that was built");
            // 40 and the sum of 0 to 39.
            assert_eq!(String::from_utf8_lossy(&output.stdout), "820\n");
        };
        survives_in_the_middle(room, make, |directory| objects(directory) > 12, assert_whole);
    });
}

#[test]
fn python_with_a_pool_queues_and_shared_memory() {
    isolated(|room| {
        let pool = |directory: &Path| {
            let mut python = Command::new("/usr/bin/python3");
            python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scripts/pool.py")).arg(directory);
            python
        };
        let assert_whole = |directory: &Path| {
            let result = fs::read_to_string(directory.join("result")).expect("a result");
            assert_eq!(result, "right\n");
        };
        survives_in_the_middle(room, pool, |directory| directory.join("middle").exists(), assert_whole);
    });
}

#[test]
fn bash_with_a_pipeline_and_background_jobs() {
    isolated(|room| {
        let mut victim = script(room, "/bin/bash", "jobs.sh");
        victim.check();
        let first = room.dump(victim.pid(), "first.snap", &[]);
        victim.check();
        come_back(room, &mut victim, "second.snap");
        trap_and_collect(&victim);
        end(&mut victim);
        // What the jobs have written since is of a time that has not come yet.
        for name in ["end", "counted", "wrong"] {
            let _ = fs::remove_file(victim.path(name));
        }
        fs::write(victim.path("counted"), "0\n").expect("counted");
        assert_eq!(room.restore(&first, &["--files", "ignore"]), victim.pid());
        trap_and_collect(&victim);
        end(&mut victim);
    });
}

fn come_back(room: &Room, victim: &mut Victim, image: &str) {
    let image = room.dump_and_kill(victim, image);
    wait::alone();
    assert_eq!(room.restore(&image, &[]), victim.pid());
    victim.check();
}

fn trap_and_collect(victim: &Victim) {
    victim.check();
    kill(Pid::from_raw(victim.pid()), Signal::SIGUSR1).expect("kill");
    assert_eq!(victim.ask("trapped"), "1");
    assert_eq!(victim.ask("statuses"), "5 7");
}

/// Ends the shell and what it has started.
fn end(victim: &mut Victim) {
    let _ = kill(Pid::from_raw(-victim.pid()), Signal::SIGKILL);
    victim.end();
    wait::alone();
}

#[test]
fn facts_of_a_shell_with_jobs_stay() {
    isolated(|room| {
        let mut victim = script(room, "/bin/bash", "jobs.sh");
        let facts = |victim: &Victim| {
            RESTLESS.iter().fold(crate::support::facts::Facts::of(victim.pid()), |facts, prefix| facts.without(prefix))
        };
        let before = facts(&victim);
        come_back(room, &mut victim, "facts.snap");
        before.assert_same(&facts(&victim), "after the restore");
        end(&mut victim);
    });
}
