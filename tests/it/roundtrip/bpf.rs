//! Maps of bpf(2).

use crate::support::snap::{BINARY, Output};
use crate::support::{Room, Victim, isolated, require_root, wait};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const ROOT: &str = "maps of bpf(2) take CAP_BPF in the first user namespace";

#[test]
fn maps_of_every_kind_that_can_be_read() {
    require_root!("{ROOT}");
    isolated(|room| room.survives(room.victim("bpf", &["all"])));
}

#[test]
fn arrays_in_memory() {
    require_root!("{ROOT}");
    isolated(|room| room.survives(room.victim("bpf", &["mapped"])));
}

#[test]
fn maps_in_maps() {
    require_root!("{ROOT}");
    isolated(|room| room.survives(room.victim("bpf", &["maps"])));
}

#[test]
fn maps_with_much_in_them() {
    require_root!("{ROOT}");
    isolated(|room| {
        let mut victim = room.victim("bpf", &["much", "huge"]);
        // What somebody else may change cannot be read a part at a time.
        let mut holder = room.victim("bpf", &["holder", victim.ask("last").trim(), "descriptor"]);
        let run = room.snap(["dump", &victim.pid().to_string(), "-o", "leaked.snap", "--allow-leak"]).run().expect(3);
        run.says("hash: somebody else, who may change it meanwhile, has it too, and more than 256 MiB are in it");
        assert_eq!(room.images(), [""; 0]);
        holder.quit(0);
        holder.end();
        let image = room.dump_and_kill(&mut victim, "much.snap");
        let stats = room.snap(["inspect"]).arg(&image).arg("stats").run().expect(0).stdout;
        for name in ["huge", "words", "recent", "each", "routes", "memory", "frozen", "sparse", "long"] {
            assert!(stats.lines().any(|line| line.starts_with("bpf-map") && line.ends_with(name)), "{name}: {stats}");
        }
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        victim.ask("final");
        victim.end();
    });
}

#[test]
fn maps_with_much_in_them_through_a_pipe_and_killed_in_between() {
    require_root!("{ROOT}");
    isolated(|room| {
        let mut victim = room.victim("bpf", &["much", "small"]);
        room.dump(victim.pid(), "running.snap", &[]);
        victim.check();
        let image = room.dump_and_kill(&mut victim, "much.snap");
        for fault in ["unmapped", "barrier:error"] {
            let run = room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", fault).run();
            assert_ne!(run.code, Some(0), "{fault}: {run}");
            wait::alone();
        }
        let stream = fs::File::open(&image).expect("the image");
        let mut cat = Command::new("cat").stdin(stream).stdout(Stdio::piped()).spawn().expect("cat");
        let pipe = cat.stdout.take().expect("a pipe");
        room.snap(["restore", "--detach", "-"]).stdin(OwnedFd::from(pipe).into()).run().expect(0);
        assert!(cat.wait().expect("cat").success());
        victim.check();
        victim.ask("final");
        victim.end();
    });
}

#[test]
fn a_map_that_forgets_and_is_full_comes_back_whole() {
    require_root!("{ROOT}");
    isolated(|room| {
        let mut victim = room.victim("bpf", &["brim"]);
        let image = room.dump_and_kill(&mut victim, "brim.snap");
        let stats = room.snap(["inspect"]).arg(&image).arg("stats").run().expect(0).stdout;
        assert!(stats.lines().any(|line| line.starts_with("bpf-map") && line.ends_with("brim")), "{stats}");
        for _ in 0..5 {
            assert_eq!(room.restore(&image, &[]), victim.pid());
            victim.check();
            victim.end();
        }
    });
}

/// With a map of its own, while somebody outside goes on with the one that it had.
fn comes_back_with_another(room: &Room, victim: &mut Victim, id: &str) {
    let run = room.snap(["dump", &victim.pid().to_string(), "-o", "leaked.snap", "--kill", "--allow-leak"]);
    told(&run.run().expect(0), &format!("has the BPF map {id} too, and goes on with it"));
    victim.killed();
    assert_eq!(room.restore(&room.path("leaked.snap"), &[]), victim.pid());
    victim.check();
    assert_ne!(victim.ask("id").trim(), id);
}

#[test]
fn a_map_with_much_in_it_that_a_process_outside_changes_all_the_time() {
    require_root!("{ROOT}");
    isolated(|room| {
        let mut victim = room.victim("bpf", &["shared"]);
        let id = victim.ask("id").trim().to_owned();
        let mut changer = room.victim("bpf", &["changer", &id]);
        is_named(room, &victim, &["(bpf) fd 3, which is outside, has this BPF map too"]);
        for image in ["first.snap", "second.snap", "third.snap", "fourth.snap", "fifth.snap"] {
            room.dump(victim.pid(), image, &["--allow-leak"]);
            victim.check();
        }
        comes_back_with_another(room, &mut victim, &id);
        changer.quit(0);
        changer.end();
        victim.end();
    });
}

#[test]
fn maps_whose_types_are_described_and_the_descriptions() {
    require_root!("{ROOT}");
    isolated(|room| {
        let mut victim = room.victim("bpf", &["types"]);
        let image = room.dump_and_kill(&mut victim, "types.snap");
        let ipc = room.snap(["inspect"]).arg(&image).arg("ipc").run().expect(0).stdout;
        // Loaded once, for seven maps and for all descriptors; and once for the maps that have none.
        let told = |words: &str| assert!(ipc.contains(words), "{words}: {ipc}");
        told(", 7 maps, 3 descriptors");
        told(", 2 maps, 0 descriptors");
        told("locks, 4 B to 8 B, 1 of 64 entries, types 1 and 10 of BTF [");
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        victim.end();
        room.survives(room.victim("bpf", &["types"]));
    });
}

#[test]
fn what_the_kernel_treats_specially_in_values_is_refused_by_its_name() {
    require_root!("{ROOT}");
    isolated(|room| {
        let words = [
            "the field `special` of `inner` in its values (bpf_timer) is a timer",
            "(bpf_wq) is work for the kernel",
            "(bpf_task_work) is work for a task",
            "(bpf_refcount) counts who in the kernel has the value",
            "(bpf_list_node) is part of a list",
            "(bpf_rb_node) is part of a tree",
            "the field `root` of `value` in its values (bpf_list_head) is a list",
            "the field `root` of `value` in its values (bpf_rb_root) is a tree",
            "the field `task` of `value` in its values (kptr) is a pointer of the kernel's programs",
            "(kptr_untrusted) is a pointer of the kernel's programs",
            "(percpu_kptr) is a pointer of the kernel's programs",
            "a BTF of the kernel's own: another kernel has others",
        ];
        room.refuses(room.victim("bpf", &["fields"]), &words);
    });
}

#[test]
fn maps_that_cannot_be_read_are_refused_each_by_its_name() {
    require_root!("{ROOT}");
    isolated(|room| {
        let words = [
            "type queue: what is in it can be had only by taking it out",
            "type stack: what is in it can be had only by taking it out",
            "type prog_array: it holds programs",
            "type bloom_filter: what was put into it cannot be read",
            "type array_of_maps: it holds no map",
            "type user_ringbuf: it was used",
            "it maps memory of a BPF map that no descriptor of the tree leads to, or that is no array",
            "type lru_hash that is so full that the kernel drops some of it",
        ];
        room.refuses(room.victim("bpf", &["refused"]), &words);
        let victim = room.victim("bpf", &["mapped"]);
        victim.ask("lose");
        room.refuses(victim, &["it maps memory of a BPF map that no descriptor of the tree leads to"]);
    });
}

/// What the user is told beside the result.
#[track_caller]
fn told(run: &Output, words: &str) {
    assert!(run.stdout.contains(words) || run.stderr.contains(words), "{words}: {run}");
}

/// A dump of a map that somebody else has, who must be named, and one with --allow-leak.
fn is_named(room: &Room, victim: &Victim, words: &[&str]) {
    let pid = victim.pid().to_string();
    let run = room.snap(["dump", &pid, "-o", "refused.snap"]).run().expect(3);
    let run = words.iter().fold(run, |run, word| run.says(word));
    run.says("would go on with the old one").says("bpftool map pin").says("--allow-leak");
    assert_eq!(room.images(), [""; 0]);
    victim.check();
}

#[test]
fn who_has_a_map_too_is_named() {
    require_root!("{ROOT}");
    isolated(|room| {
        let mut victim = room.victim("bpf", &["plain"]);
        let id = victim.ask("id").trim().to_owned();
        let ways = [
            ("descriptor", "(bpf) fd 3, which is outside, has this BPF map too"),
            ("program", "in the kernel has this BPF map too"),
            ("map", "in the kernel, which holds maps, has this BPF map too"),
        ];
        for (how, words) in ways {
            let mut holder = room.victim("bpf", &["holder", &id, how]);
            is_named(room, &victim, &[words]);
            holder.quit(0);
            holder.end();
        }
        let mut holder = room.victim("bpf", &["holder", &id, "program"]);
        comes_back_with_another(room, &mut victim, &id);
        holder.quit(0);
        holder.end();
        fs::remove_file(room.path("leaked.snap")).expect("the image");
        // A map that the tree has in another alone.
        let maps = room.victim("bpf", &["maps"]);
        let mut holder = room.victim("bpf", &["holder", maps.ask("inner").trim(), "descriptor"]);
        is_named(room, &maps, &["(bpf) fd 3, which is outside, has this BPF map too", "which is in BPF map"]);
        holder.quit(0);
        holder.end();
        let array = room.victim("bpf", &["mapped"]);
        let mut holder = room.victim("bpf", &["holder", array.ask("id").trim(), "mapping"]);
        is_named(room, &array, &[&format!("pid {}, which is outside, maps its memory at", holder.pid())]);
        holder.quit(0);
        holder.end();
    });
}

#[test]
fn a_pinned_map_stays_in_the_kernel_and_is_opened_again() {
    require_root!("{ROOT}");
    isolated(|room| {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let pins = room.path("pins");
        fs::create_dir(&pins).expect("a directory");
        let mount = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&pins).status().expect("mount");
        assert!(mount.success());
        // What is in a pinned map would go on in it.
        let mut maps = room.victim("bpf", &["maps"]);
        maps.ask(&format!("pin {}", pins.join("outer").display()));
        is_named(room, &maps, &["in the kernel, which holds maps, has this BPF map too"]);
        fs::remove_file(pins.join("outer")).expect("the pin");
        maps.quit(0);
        maps.end();
        let pin = pins.join("counters");
        let path = pin.to_str().expect("a path");
        let mut victim = room.victim("bpf", &["pinned", path]);
        let id = victim.ask("id");
        // Who uses it does so with the restored program too.
        let mut holder = room.victim("bpf", &["holder", id.trim(), "program"]);
        let run = room.snap(["dump", &victim.pid().to_string(), "-o", "pinned.snap"]).run().expect(0);
        told(&run, &format!("stays in the kernel, pinned as {path}"));
        let image = room.path("pinned.snap");
        let ipc = room.snap(["inspect"]).arg(&image).arg("ipc").run().expect(0).stdout;
        assert!(ipc.contains(&format!("hash [{}] counters, 4 B to 8 B, pinned as {path}", id.trim())), "{ipc}");
        victim.ask("count");
        victim.end();
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        assert_eq!((victim.ask("id"), victim.ask("counted").trim()), (id.clone(), "true"));
        victim.end();
        holder.quit(0);
        holder.end();
        fs::remove_file(&pin).expect("the pin");
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(3);
        run.says(&format!("it was pinned as {path}")).says("nothing can be opened there");
        room.victim("bpf", &["pinned", path]).end();
        let run = room.snap(["restore", "--detach"]).arg(&image).run().expect(0);
        told(&run, &format!("the BPF map that is pinned as {path} is another than at the dump"));
        assert_eq!(victim.ask("counted").trim(), "false");
        victim.check();
        victim.end();
        // A directory on which something is mounted cannot be removed with the room.
        assert!(Command::new("umount").arg(&pins).status().expect("umount").success());
    });
}

#[test]
fn whoever_may_not_make_maps_is_told_before_anything_is_made() {
    require_root!("{ROOT}");
    isolated(|room| {
        let mut victim = room.victim("bpf", &["plain"]);
        let pid = victim.pid().to_string();
        let powerless = ["setpriv", "--bounding-set", "-sys_admin,-bpf", "--inh-caps", "-sys_admin,-bpf"];
        let dump = room.snap(["dump", &pid, "-o", "x.snap"]).through(&powerless, Path::new(BINARY)).run().expect(3);
        dump.says("who else in the kernel has this BPF map cannot be told").says("CAP_SYS_ADMIN");
        victim.check();
        let image = room.dump_and_kill(&mut victim, "killed.snap");
        let restore = room.snap(["restore", "--detach"]).arg(&image).through(&powerless, Path::new(BINARY)).run();
        restore.expect(3).says("of type hash").says("this kernel makes no such map for snap").says("CAP_SYS_ADMIN");
        wait::alone();
        for fault in ["skeleton-born", "unmapped", "barrier", "barrier:error"] {
            let run = room.snap(["restore", "--detach"]).arg(&image).env("SNAP_FAULT", fault).run();
            assert_ne!(run.code, Some(0), "{fault}: {run}");
            wait::alone();
        }
        assert_eq!(room.restore(&image, &[]), victim.pid());
        victim.check();
        victim.end();
    });
}

/// A program of another language: its own calls, its own numbers, no help of ours.
const PROGRAM: &str = r#"
import ctypes, os, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    return libc.syscall(321, command, buffer, 128)
counts = bpf(0, struct.pack("5I", 1, 8, 8, 1000, 0))
assert counts >= 0, os.strerror(ctypes.get_errno())
key, value = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
ctypes.memmove(key, b"requests", 8)
attributes = struct.pack("QQQQ", counts, ctypes.addressof(key), ctypes.addressof(value), 0)
total = 0
while not os.path.exists(sys.argv[1] + "/stop"):
    total += 1
    ctypes.memmove(value, struct.pack("Q", total), 8)
    assert bpf(2, attributes) == 0, os.strerror(ctypes.get_errno())
    ctypes.memset(value, 0, 8)
    assert bpf(1, attributes) == 0, os.strerror(ctypes.get_errno())
    assert struct.unpack("Q", value.raw[:8])[0] == total, (total, value.raw)
    if total % 100 == 0:
        with open(sys.argv[1] + "/count.new", "w") as file:
            file.write(str(total))
        os.rename(sys.argv[1] + "/count.new", sys.argv[1] + "/count")
    time.sleep(0.0001)
"#;

#[test]
fn a_python_program_goes_on_counting() {
    require_root!("{ROOT}");
    isolated(|room| {
        let mut python = Command::new("python3");
        let mut child = python.args(["-c", PROGRAM]).arg(room.path(".")).stdin(Stdio::null()).spawn().expect("python3");
        let pid = child.id() as i32;
        let count = || fs::read_to_string(room.path("count")).ok()?.parse::<u64>().ok();
        let beyond = |least: u64| wait::until("the program to count", || count().filter(|count| *count > least));
        let before = beyond(200);
        room.dump(pid, "first.snap", &[]);
        beyond(before + 200);
        let image = room.dump(pid, "second.snap", &["--kill"]);
        wait::exit_of(&mut child, Duration::from_secs(60)).expect("its end");
        let stood = count().expect("a count");
        assert_eq!(room.restore(&image, &[]), pid);
        beyond(stood + 300);
        fs::write(room.path("stop"), "").expect("a file");
        wait::gone(pid);
    });
}
