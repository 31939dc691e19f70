//! What cannot be dumped is refused with all reasons at once, and the target is as before.

use crate::support::network::own_network;
use crate::support::victim::program;
use crate::support::{Facts, Room, Victim, facts, isolated, isolated_for, needs, require_root, wait};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a refusal says of each kind of descriptor, where that is not its name.
const REFUSED: &[(&str, &str)] = &[
    ("pidfd", "it means pid 1 ("),
    ("io_uring", "a ring of io_uring"),
    ("landlock-ruleset", "a Landlock ruleset in the making"),
    ("fscontext", "a file system that is being configured"),
    ("fsmount", "a mount that is attached nowhere"),
    ("open_tree", "a mount that is attached nowhere"),
    ("perf_event", "a performance counter"),
    ("userfaultfd", "a userfaultfd"),
    ("bpf-map", "a BPF map of type prog_array"),
    ("secretmem", "secret memory"),
    ("kvm", "/dev/kvm, character device"),
    ("kvm-vm", "the virtual machine in the kernel"),
    ("fuse", "/dev/fuse, character device"),
    ("loop", "/dev/loop0, block device"),
    ("ebpf-filter", "an eBPF filter"),
    ("seccomp-listener", "a listener of seccomp"),
];

/// Each refusal in a text for humans: what it names, and the lines below.
fn blockers(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("    "), found.last_mut()) {
            (Some(object), _) if !object.starts_with(' ') => found.push(object.to_owned()),
            (Some(more), Some(last)) => last.push_str(&format!(" {}", more.trim())),
            (None, _) | (Some(_), None) => {}
        }
    }
    found
}

#[test]
fn exam_30_every_descriptor_of_an_unsupported_kind_is_named() {
    isolated(|room| {
        let victim = room.victim("refused", &[]);
        let kinds = victim.ask("kinds");
        // What every kernel lets root have, whatever is configured; most let him have the others of the list too.
        let least: &[&str] = match needs::privileged() {
            true => &["pidfd", "seccomp-listener", "fscontext", "fsmount", "open_tree", "bpf-map", "ebpf-filter"],
            false => &["pidfd", "seccomp-listener"],
        };
        let names: Vec<&str> = kinds.split(' ').filter_map(|kind| Some(kind.split_once('=')?.1)).collect();
        assert!(least.iter().all(|name| names.contains(name)), "{kinds}");
        let before = Facts::of(victim.pid());
        for fate in ["--leave-running", "--kill"] {
            let run = room.snap(["dump", fate, &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
            let refusals = blockers(&run.stderr);
            for kind in kinds.split(' ') {
                let (fd, name) = kind.split_once('=').expect("a number and a name");
                let words = REFUSED.iter().find(|(kind, _)| *kind == name).map_or(name, |(_, words)| words);
                let is_it = |text: &&String| {
                    text.starts_with(&format!("fd {fd}:")) && text.to_lowercase().contains(&words.to_lowercase())
                };
                assert!(refusals.iter().any(|text| is_it(&text)), "{kind} is not refused with `{words}`: {run}");
            }
            let maps_device = refusals.iter().any(|text| text.contains("it maps a device"));
            assert_eq!(maps_device, names.contains(&"loop"), "the mapping of a block device: {run}");
            assert_eq!(room.images(), [""; 0]);
            before.assert_same(&Facts::of(victim.pid()), "after a refused dump");
            victim.check();
        }
        let run = room.snap(["dump", "--json", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
        let blockers = run.json()["blockers"].as_array().cloned().unwrap_or_default();
        assert!(blockers.len() >= kinds.split(' ').count(), "{run}");
        for part in ["task", "object", "reason", "remedy"] {
            assert!(blockers.iter().all(|blocker| blocker[part].is_string()), "no {part}: {run}");
        }
    });
}

#[test]
fn exam_30_sockets_of_every_other_family_are_named() {
    isolated(|room| {
        let victim = room.victim("families", &[]);
        let kinds = victim.ask("kinds");
        assert!(!kinds.is_empty(), "this kernel has no other family");
        let before = Facts::of(victim.pid());
        for fate in ["--leave-running", "--kill"] {
            let run = room.snap(["dump", "--json", fate, &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
            let blockers = run.json()["blockers"].as_array().cloned().unwrap_or_default();
            for kind in kinds.split(' ') {
                let (fd, name) = kind.split_once('=').expect("a number and a name");
                let named = blockers.iter().any(|blocker| {
                    let text = |part: &str| blocker[part].as_str().unwrap_or_default().to_owned();
                    text("object").starts_with(&format!("fd {fd}: socket:[")) && text("reason").contains(name)
                });
                assert!(named, "{kind} is not named: {run}");
            }
            assert_eq!(room.images(), [""; 0]);
            before.assert_same(&Facts::of(victim.pid()), "after a refused dump");
            victim.check();
        }
    });
}

/// A victim that has this as descriptor 5, to which a shell has moved it.
fn holder(room: &Room, open: impl Into<OwnedFd>) -> Victim {
    let directory = Victim::directory_in(room, "leak");
    let script = format!("exec 5<&0 </dev/null; exec {} \"$0\"", program("c-dynamic").display());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]).arg(&directory).stdin(Stdio::from(open.into()));
    Victim::start_with_stdin(command, directory)
}

#[test]
fn exam_18_a_pipe_with_an_end_outside_is_named() {
    isolated(|room| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let victim = holder(room, reader);
        let before = Facts::of(victim.pid());
        let run =
            room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3).says("fd 5").says("pipe");
        before.assert_same(&Facts::of(victim.pid()), &format!("after a refused dump: {run}"));
        drop(writer);
        victim.check();
    });
}

#[test]
fn exam_18_a_socket_that_somebody_outside_has_too_is_named() {
    isolated(|room| {
        own_network();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let victim = holder(room, socket.try_clone().expect("dup"));
        let before = Facts::of(victim.pid());
        let run = room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
        let run = run.says("fd 5: socket:[").says(&format!("it is shared with pid {} (", std::process::id()));
        before.assert_same(&Facts::of(victim.pid()), &format!("after a refused dump: {run}"));
        room.dump(victim.pid(), "leak.snap", &["--allow-leak"]);
        drop(socket);
        room.dump(victim.pid(), "alone.snap", &[]);
        victim.check();
    });
}

#[test]
fn exam_06_a_traced_process_is_refused_and_the_tracer_named() {
    isolated(|room| {
        let victim = room.victim("c-dynamic", &[]);
        let mut tracer = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-p", &victim.pid().to_string()])
            .stderr(File::create(room.path("strace.stderr")).expect("a file"))
            .spawn()
            .expect("strace");
        let traced = || (facts::status(victim.pid(), "TracerPid") == tracer.id().to_string()).then_some(());
        wait::until("strace to attach", traced);
        let run = room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
        assert!(run.stderr.contains("strace") && run.stderr.contains(&tracer.id().to_string()), "{run}");
        assert!(matches!(tracer.try_wait(), Ok(None)), "the tracer has ended");
        victim.check();
        tracer.kill().expect("kill");
        tracer.wait().expect("wait");
        room.dump(victim.pid(), "x.snap", &[]);
        victim.check();
    });
}

#[test]
fn a_filter_that_kills_what_the_dump_needs_is_refused_before_the_first_call() {
    isolated(|room| {
        let victim = room.victim("seccomp", &["kill"]);
        victim.check();
        let before = Facts::of(victim.pid());
        let run = room.snap(["dump", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3).says("seccomp");
        before.assert_same(&Facts::of(victim.pid()), &format!("after a refused dump: {run}"));
        victim.check();
    });
}

#[test]
fn exam_05_a_zombie_is_refused_at_once() {
    isolated(|room| {
        let mut child = Command::new("true").spawn().expect("true");
        let pid = child.id() as i32;
        wait::until("a zombie", || (facts::state(pid) == Some('Z')).then_some(()));
        let run = room.snap(["dump", &pid.to_string(), "-o", "x.snap"]).run().expect(3).says("it has ended");
        assert!(!run.stderr.contains("runs on"), "{run}");
        child.wait().expect("wait");
    });
}

/// The bound on how long a dump waits for threads to stop, and what a machine with other work adds.
const BOUND: Duration = Duration::from_secs(40);

#[test]
fn exam_05_a_parent_of_vfork_in_uninterruptible_sleep_is_refused_in_time() {
    isolated_for(2 * BOUND, |room| {
        let victim = room.victim("unsupported", &["vfork"]);
        let asleep = wait::until("its wait in the kernel", || {
            facts::threads(victim.pid()).into_iter().find(|tid| facts::state(*tid) == Some('D'))
        });
        let before = Facts::of(victim.pid());
        let check = room.snap(["check", &victim.pid().to_string()]).run().expect(3);
        assert!(check.stdout.contains(&format!("tid {asleep}")), "{check}");
        let start = Instant::now();
        let run = room.snap(["dump", "--kill", &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
        assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
        assert!(run.stderr.contains(&format!("tid {asleep}\n    a thread that does not stop")), "{run}");
        assert!(run.stderr.contains("vfork"), "{run}");
        assert_eq!(room.images(), [""; 0], "{run}");
        before.assert_same(&Facts::of(victim.pid()), "after a refused dump");
        victim.check();
    });
}

/// What docs/unsupported.md says is refused at the dump, each with what the refusal says of it. Descriptors have a test of their own.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("aio", "the protection of the ring of an AIO context was changed"),
    ("aio-cut", "only a part of the ring of an AIO context is mapped there"),
    ("userfaultfd", "userfaultfd"),
    ("ldt", "local descriptor table"),
    ("thread-keyring", "thread keyring"),
    ("process-keyring", "process keyring"),
    ("strict", "seccomp strict mode"),
    ("lease", "it is leased, and has no name"),
    ("unlinked-directory", "the directory is unlinked, and the one that it was in too"),
    ("gone-process", "its process is gone"),
    ("gone-process", "nothing tells any more what it is"),
    ("epoll", "nobody in the tree has open"),
    ("uts", "uts namespace"),
    ("ipc", "ipc namespace"),
    ("net", "net namespace"),
    ("mnt", "mnt namespace"),
    ("cgroup", "cgroup namespace"),
    ("user", "user namespace"),
];

#[test]
fn exam_21_every_kind_of_unsupported_state_is_named() {
    isolated(|room| {
        let mut missed = Vec::new();
        // In a namespace of its own, the first System V segment has the id 0.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWIPC).expect("an IPC namespace");
        for (kind, reason) in UNSUPPORTED {
            let mut victim = room.victim("unsupported", &[kind]);
            victim.check();
            let before = Facts::of(victim.pid());
            for fate in ["--leave-running", "--kill"] {
                let run = room.snap(["dump", fate, &victim.pid().to_string(), "-o", "x.snap"]).run();
                if run.code != Some(3) || !run.stderr.contains(reason) || !room.images().is_empty() {
                    missed.push(format!("{kind} is not refused with `{reason}`: {run}"));
                    break;
                }
                before.assert_same(&Facts::of(victim.pid()), &format!("after a refused dump of {kind}"));
                victim.check();
            }
            victim.end();
            wait::alone();
            let _ = fs::remove_file(room.path("x.snap"));
        }
        assert!(missed.is_empty(), "{}", missed.join("\n"));
    });
}

#[test]
fn tcp_connections_with_something_in_their_error_queue_or_mapped_are_named() {
    isolated(|room| {
        own_network();
        for (kind, words) in [
            ("error-queue", "an error, or a message in its error queue, waits in it"),
            (
                "socket-memory",
                "it maps memory of a socket that no descriptor of the tree leads to, or that is no ring of a packet socket",
            ),
        ] {
            room.refuses(room.victim("unsupported", &[kind]), &[words]);
            wait::alone();
        }
    });
}

#[test]
fn exam_21_code_of_32_bits_is_named() {
    isolated(|room| {
        let victim = room.victim("unsupported", &["code-32"]);
        let before = Facts::of(victim.pid());
        for fate in ["--leave-running", "--kill"] {
            let run = room.snap(["dump", fate, &victim.pid().to_string(), "-o", "x.snap"]).run().expect(3);
            assert!(run.stderr.contains("32-bit code"), "{run}");
            assert_eq!(room.images(), [""; 0], "{run}");
            before.assert_same(&Facts::of(victim.pid()), "after a refused dump");
            victim.check();
        }
    });
}

#[test]
fn a_thread_is_named_as_what_it_is() {
    isolated(|room| {
        let victim = room.victim("threads", &["1"]);
        let tid = facts::threads(victim.pid())[1];
        let run = room.snap(["dump", &tid.to_string(), "-o", "x.snap"]).run().expect(3);
        assert!(run.stderr.contains(&format!("snap dump {}", victim.pid())), "{run}");
        victim.check();
    });
}

#[test]
fn exam_21_permissions_of_ports_are_named() {
    isolated(|room| {
        require_root!("to be let at ports (CAP_SYS_RAWIO)");
        // SAFETY: takes a permission away that nobody has.
        let known = unsafe { libc::ioperm(0x80, 1, 0) } == 0;
        if !known && nix::errno::Errno::last() == nix::errno::Errno::ENOSYS {
            return needs::not_run("this kernel has no ioperm(2) (CONFIG_X86_IOPL_IOPERM)");
        }
        room.refuses(room.victim("unsupported", &["ioperm"]), &["I/O permissions"]);
    });
}

#[test]
fn one_thread_of_a_process_is_refused_and_the_process_named() {
    isolated(|room| {
        let victim = room.victim("threads", &["2"]);
        let tid = facts::threads(victim.pid())[1];
        let run = room.snap(["check", &tid.to_string()]).run().expect(3);
        assert!(run.stdout.contains(&format!("snap dump {}", victim.pid())), "{run}");
        victim.check();
    });
}
