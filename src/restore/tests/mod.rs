//! Restores of processes that were never dumped: models made by hand, programs of a few instructions.
//!
//! A restore takes pids and descriptor numbers that it has found free. Other tests in the same process draw from the same tables at the same
//! time; so each test here has a process and a pid namespace of its own.

mod handmade;

use super::{Error, Outcome, restore};
use crate::image::model::address::Addr;
use crate::image::model::file::{Description, FdEntry, OpenObject};
use crate::image::model::id::{DescriptionId, Fd, Pid, PipeId, Tid};
use crate::image::model::inventory::XTILE_DATA;
use crate::image::model::pipe::{Pipe, Unread};
use crate::image::model::thread::RobustList;
use crate::proc::{TaskDir, stat};
use crate::sys::probe;
use handmade::{CODE, alone, choices, free_id, handmade, thread};

/// `mov eax, 34; syscall; jmp` back: pause(2) for ever.
const PAUSE: [u8; 9] = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

/// Reaps one child and exits with the byte of its status at `offset`.
fn reap_and_exit(offset: u8) -> Vec<u8> {
    [
        &[0xbf, 0xff, 0xff, 0xff, 0xff][..], // mov edi, -1
        &[0xbe, 0x00, 0x01, 0x01, 0x10],     // mov esi, DATA + 0x100
        &[0x31, 0xd2, 0x45, 0x31, 0xd2],     // xor edx, edx; xor r10d, r10d
        &[0xb8, 61, 0, 0, 0, 0x0f, 0x05],    // wait4
        &[0x0f, 0xb6, 0x7e, offset],         // movzx edi, byte [rsi + offset]
        &[0xb8, 231, 0, 0, 0, 0x0f, 0x05],   // exit_group
    ]
    .concat()
}

/// `mov edi, code; mov eax, 231; syscall`.
fn exit_group(code: u8) -> Vec<u8> {
    vec![0xbf, code, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05]
}

#[test]
fn a_parent_reaps_its_child() {
    alone(|| {
        let mut image = handmade(&reap_and_exit(1));
        image.child(0, &exit_group(42));
        assert_eq!(restore(&image, &choices(), false, None).unwrap(), Outcome::Exited(42));
    });
}

#[test]
fn a_parent_reaps_children_that_had_ended() {
    alone(|| {
        let mut image = handmade(&reap_and_exit(1));
        image.zombie(7 << 8);
        assert_eq!(restore(&image, &choices(), false, None).unwrap(), Outcome::Exited(7));
        for signal in [libc::SIGKILL, libc::SIGSEGV, libc::SIGTERM] {
            let mut image = handmade(&reap_and_exit(0));
            image.zombie(signal);
            assert_eq!(restore(&image, &choices(), false, None).unwrap(), Outcome::Exited(signal));
        }
    });
}

#[test]
fn parents_groups_and_sessions_are_as_they_were() {
    alone(|| {
        let mut image = handmade(&PAUSE);
        let job = image.child(0, &PAUSE);
        let second = image.child(0, &PAUSE);
        let daemon = image.child(0, &PAUSE);
        let grandchild = image.child(daemon, &PAUSE);
        let (dead_leader, dead_group) = (Pid(free_id()), Pid(free_id()));
        let processes = &mut image.snapshot.processes;
        processes[job].pgid = processes[job].pid;
        processes[second].pgid = processes[job].pid;
        (processes[daemon].sid, processes[daemon].pgid) = (dead_leader, dead_leader);
        (processes[grandchild].sid, processes[grandchild].pgid) = (dead_leader, dead_group);
        let wanted: Vec<[Pid; 3]> = processes.iter().map(|process| [process.ppid, process.pgid, process.sid]).collect();
        let found = image.relations();
        assert_eq!(found[1..], wanted[1..]);
        assert_eq!(found[0][1..], wanted[0][1..]);
    });
}

#[test]
fn members_of_sessions_that_are_led_elsewhere_are_adopted() {
    alone(|| {
        let mut image = handmade(&PAUSE);
        let middle = image.child(0, &PAUSE);
        let leader = image.child(middle, &PAUSE);
        let nephew = image.child(0, &PAUSE);
        let below = image.child(middle, &PAUSE);
        let child = image.child(nephew, &PAUSE);
        let stranger = image.child(0, &PAUSE);
        let zombie = image.zombie(3 << 8);
        let dead = Pid(free_id());
        let processes = &mut image.snapshot.processes;
        let session = processes[leader].pid;
        for member in [leader, nephew, child] {
            (processes[member].sid, processes[member].pgid) = (session, session);
        }
        processes[child].pgid = processes[child].pid;
        (image.snapshot.zombies[0].sid, image.snapshot.zombies[0].pgid) = (session, session);
        for member in [below, stranger] {
            (processes[member].sid, processes[member].pgid) = (dead, dead);
        }
        let wanted: Vec<[Pid; 3]> = processes.iter().map(|process| [process.ppid, process.pgid, process.sid]).collect();
        let found = image.relations_with(|| {
            let stat = stat::read(&TaskDir::process(zombie).unwrap(), &mut Vec::new()).unwrap();
            assert_eq!((stat.state, stat.ppid, stat.session), (b'Z', wanted[1][0], session));
        });
        assert_eq!(found[1..], wanted[1..]);
    });
}

#[test]
fn a_failed_step_of_a_child_is_named_and_leaves_no_process() {
    alone(|| {
        let mut image = handmade(&PAUSE);
        let child = image.child(0, &PAUSE);
        let other = image.child(child, &PAUSE);
        let processes = &mut image.snapshot.processes;
        processes[other].threads[0].robust_list = RobustList { head: Addr(0x1000), len: 7 };
        let pids: Vec<Pid> = processes.iter().map(|process| process.pid).collect();
        let Err(Error::Step { step, source: _ }) = restore(&image, &choices(), false, None) else {
            panic!("not failed")
        };
        assert!(step.starts_with(&format!("pid {}: set_robust_list", pids[other])), "{step}");
        for pid in pids {
            assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
        }
    });
}

#[test]
fn a_process_of_three_instructions_exits_with_its_code() {
    alone(|| {
        let image = handmade(&exit_group(42));
        assert_eq!(restore(&image, &choices(), false, None).unwrap(), Outcome::Exited(42));
    });
}

/// AVX-512 and its like need no permission: every process has it for what its CPU has.
#[test]
fn permissions_that_nobody_asks_for_are_not_asked_for() {
    alone(|| {
        let mut image = handmade(&exit_group(42));
        image.snapshot.mms[0].xcomp_permitted = 1 << 17 | 0x2ff;
        assert_eq!(restore(&image, &choices(), false, None).unwrap(), Outcome::Exited(42));
    });
}

#[test]
fn permission_to_use_tiles_is_given_back_or_refused_by_name() {
    alone(|| {
        let mut image = handmade(&exit_group(42));
        image.snapshot.mms[0].xcomp_permitted = XTILE_DATA | 7;
        let has_tiles = probe::xcomp_supported().is_ok_and(|features| features & XTILE_DATA != 0);
        match restore(&image, &choices(), false, None) {
            Ok(outcome) => assert!(has_tiles && outcome == Outcome::Exited(42), "{outcome:?}"),
            Err(Error::Blocked(blockers)) => {
                assert!(!has_tiles, "{blockers:?}");
                assert_eq!(blockers.len(), 1, "{blockers:?}");
                assert_eq!(blockers[0].object, "permission for XSAVE component 18 (AMX-tiles)");
            }
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn a_taken_pid_is_a_blocker_that_names_its_holder() {
    alone(|| {
        let mut image = handmade(&exit_group(1));
        image.snapshot.processes[0].threads[0].tid = Tid(1);
        let Err(Error::Blocked(blockers)) = restore(&image, &choices(), false, None) else { panic!("not refused") };
        assert_eq!(blockers.len(), 1);
        assert!(blockers[0].reason.starts_with("taken by "), "{}", blockers[0]);
    });
}

#[test]
fn a_failed_step_is_named_and_leaves_no_process() {
    alone(|| {
        let mut image = handmade(&exit_group(1));
        let process = &mut image.snapshot.processes[0];
        process.threads[0].robust_list = RobustList { head: Addr(0x1000), len: 7 };
        let pid = process.pid;
        let Err(Error::Step { step, source }) = restore(&image, &choices(), false, None) else { panic!("not failed") };
        assert!(step.contains("set_robust_list"), "{step}");
        assert_eq!(source.raw_os_error(), Some(libc::EINVAL));
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    });
}

#[test]
fn unread_bytes_of_a_pipe_are_read_by_a_second_thread() {
    alone(|| {
        // read(7, rsp, 16); exit_group(first byte): the main thread spins meanwhile.
        let code = [
            &[0xeb, 0xfe][..],                 // jmp .
            &[0xbf, 7, 0, 0, 0],               // mov edi, 7
            &[0x48, 0x89, 0xe6],               // mov rsi, rsp
            &[0xba, 16, 0, 0, 0],              // mov edx, 16
            &[0x31, 0xc0, 0x0f, 0x05],         // read
            &[0x0f, 0xb6, 0x3c, 0x24],         // movzx edi, byte [rsp]
            &[0xb8, 231, 0, 0, 0, 0x0f, 0x05], // exit_group
        ]
        .concat();
        let mut image = handmade(&code);
        let snapshot = &mut image.snapshot;
        let credentials = snapshot.processes[0].threads[0].credentials.clone();
        snapshot.processes[0].threads.push(thread(free_id(), CODE + 2, &credentials));
        snapshot.pipes.push(Pipe {
            id: PipeId(0),
            ino: 1,
            fifo: None,
            capacity: 4096,
            unread: vec![Unread { packet: false, bytes: b"*rest".to_vec() }],
            uid: 0,
            gid: 0,
        });
        snapshot.descriptions.push(Description {
            id: DescriptionId(0),
            object: OpenObject::Pipe { pipe: PipeId(0), write: false, quiet: false },
            flags: 0,
            position: 0,
            owner: None,
            locks: Vec::new(),
        });
        let entry = FdEntry { fd: Fd(7), description: DescriptionId(0), close_on_exec: false };
        snapshot.fd_tables[0].entries.push(entry);
        assert_eq!(restore(&image, &choices(), false, None).unwrap(), Outcome::Exited(i32::from(b'*')));
    });
}
