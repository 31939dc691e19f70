//! The interpreter that `snap` runs inside other processes: a list of operations for each thread, and no policy.
//!
//! The package is a library so that the workspace's lints see it; the package `snap-cr` compiles it in its build script,
//! together with `link/interpreter.rs`, to a flat blob without relocations, writable data or vector code.
//!
//! Architecture invariant: nothing here allocates, panics, or touches memory that an operation does not name.
#![cfg_attr(not(test), no_std)]
#![allow(unsafe_code)]

pub mod aio;
pub mod copying;
pub mod crc;
pub mod mailbox;
pub mod sending;
pub mod syscall;

use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use protocol::{Op, Task, check, pseudo};
use syscall::{clone_into, pause, syscall};

const SYS_FUTEX: u32 = 202;
const SYS_GETPPID: u32 = 110;
const SYS_NANOSLEEP: u32 = 35;
const SYS_KILL: u32 = 62;
const SYS_EXIT_GROUP: u32 = 231;
const FUTEX_WAIT: u64 = 0;
const FUTEX_WAKE: u64 = 1;
const ESRCH: i64 = -3;
const EFAULT: i64 = -14;
const ENOSYS: i64 = -38;
const EEXIST: i64 = -17;

/// Executes a task to its end or its first failure, then leaves the process or returns the address to go on at.
///
/// # Safety
/// `task` points to a [`Task`] that nobody else writes, whose operations are valid for this process: their addresses
/// are mapped, and no system call takes away the memory of the blob, of its stack or of the task.
pub unsafe extern "C" fn execute(task: *mut Task) -> u64 {
    // SAFETY: the caller gives a valid task; fields are read one by one, so that no vector register is used.
    unsafe {
        let ops = (&raw const (*task).ops).read_volatile() as *const Op;
        let count = (&raw const (*task).count).read_volatile() as usize;
        let mut done = 0;
        while done < count {
            let op = ops.add(done);
            let result = perform(op);
            if !accepted(op, result) {
                (&raw mut (*task).failure).write_volatile(if result == 0 { EFAULT } else { result });
                break;
            }
            done += 1;
            (&raw mut (*task).done).write_volatile(done as u64);
        }
        let exit = (&raw const (*task).exit).read_volatile();
        if exit == 0 {
            loop {
                syscall(SYS_EXIT_GROUP, [127, 0, 0, 0, 0, 0]);
            }
        }
        exit
    }
}

/// Executes one operation and stores its result where it says.
unsafe fn perform(op: *const Op) -> i64 {
    // SAFETY: as for `execute`.
    unsafe {
        let nr = (&raw const (*op).nr).read_volatile();
        let a = |index: usize| argument(op, index);
        let result = match nr {
            pseudo::COPY => copy(a(0), a(1), a(2)),
            pseudo::ADD => add(a(0), a(1) as u32),
            pseudo::SAME => {
                if a(0) == a(1) {
                    0
                } else {
                    ESRCH
                }
            }
            pseudo::MEET => meet(a(0), a(1) as u32, a(2)),
            pseudo::WAIT => wait(a(0), a(1) as u32),
            pseudo::SPAWN => clone_once_free(a(0), a(1), a(2)),
            pseudo::ADOPTED => adopted(a(0) as i64, a(1) as i64),
            pseudo::COPY_PAGES => copying::copy_pages(a(0)),
            pseudo::TAKE_MESSAGES => mailbox::take(a(0)),
            pseudo::PUT_MESSAGES => mailbox::put(a(0)),
            pseudo::GONE => gone(a(0)),
            pseudo::AIO_PROBE => aio::probe(a(0)),
            pseudo::USE_TILE => syscall::use_tile(),
            pseudo::SEND_PROBE => sending::probe(a(0)),
            pseudo::STORE => {
                (a(0) as *mut u64).write_volatile(a(1));
                0
            }
            unknown if unknown >= pseudo::FIRST => ENOSYS,
            _ => syscall(nr, [a(0), a(1), a(2), a(3), a(4), a(5)]),
        };
        let store = (&raw const (*op).store).read_volatile() as *mut i64;
        if !store.is_null() {
            store.write_volatile(result);
        }
        result
    }
}

/// As `clone_into`, but waits up to ten seconds for an id that a dead thread still holds: since Linux 6.15 the kernel frees the ids of
/// a thread after its process can be reaped (`release_task` in kernel/exit.c), so nobody can see when they are free. A dead thread of the
/// idle policy gets there when the machine lets it, which may take seconds.
unsafe fn clone_once_free(clone_args: u64, size: u64, task: u64) -> i64 {
    const TRIES: u32 = 10_000;
    let millisecond = [0_u64, 1_000_000];
    let mut tries = 0;
    loop {
        // SAFETY: as for `execute`; nanosleep(2) reads the two words.
        unsafe {
            let result = clone_into(clone_args, size, task);
            tries += 1;
            if result != EEXIST || tries == TRIES {
                return result;
            }
            syscall(SYS_NANOSLEEP, [(&raw const millisecond) as u64, 0, 0, 0, 0, 0]);
        }
    }
}

/// Waits until somebody has adopted this process: there is nothing that the kernel wakes it by.
unsafe fn adopted(parent: i64, before: i64) -> i64 {
    let moment = [0_u64, 100_000];
    loop {
        // SAFETY: getppid(2) takes nothing; nanosleep(2) reads the two words.
        let now = unsafe { syscall(SYS_GETPPID, [0; 6]) };
        if now == parent {
            return 0;
        }
        if now != before {
            return ESRCH;
        }
        // SAFETY: as above.
        unsafe { syscall(SYS_NANOSLEEP, [(&raw const moment) as u64, 0, 0, 0, 0, 0]) };
    }
}

/// Waits until there is no such process, for some seconds at most: somebody else may have been given its id.
unsafe fn gone(pid: u64) -> i64 {
    const TRIES: u32 = 20_000;
    let mut tries = 0;
    loop {
        // SAFETY: signal 0 is sent to nobody.
        unsafe {
            let result = syscall(SYS_KILL, [pid, 0, 0, 0, 0, 0]);
            tries += 1;
            if result == ESRCH || tries == TRIES {
                return 0;
            }
            pause();
        }
    }
}

/// Argument `index`, loaded from memory where the operation says so.
unsafe fn argument(op: *const Op, index: usize) -> u64 {
    // SAFETY: as for `execute`; `index` is below 6.
    unsafe {
        let value = (&raw const (*op).args).cast::<u64>().add(index).read_volatile();
        let indirect = (&raw const (*op).indirect).read_volatile();
        if indirect >> index & 1 == 1 { (value as *const u64).read_volatile() } else { value }
    }
}

/// Whether the result lets the list go on.
unsafe fn accepted(op: *const Op, result: i64) -> bool {
    // SAFETY: as for `execute`.
    let (kind, expect) =
        unsafe { ((&raw const (*op).check).read_volatile(), (&raw const (*op).expect).read_volatile()) };
    match kind {
        check::ANY => true,
        // An address above the error range is no error.
        check::NON_NEGATIVE => !(-4095..0).contains(&result),
        _ => result == expect,
    }
}

/// memmove(3) with the string instruction.
unsafe fn copy(to: u64, from: u64, len: u64) -> i64 {
    // SAFETY: the operation's author vouches for both ranges.
    unsafe { syscall::move_bytes(to as *mut u8, from as *const u8, len as usize) };
    0
}

/// Adds and wakes every waiter.
unsafe fn add(word: u64, value: u32) -> i64 {
    // SAFETY: the operation's author vouches for the word.
    unsafe {
        AtomicU32::from_ptr(ptr::with_exposed_provenance_mut(word as usize)).fetch_add(value, Ordering::SeqCst);
        syscall(SYS_FUTEX, [word, FUTEX_WAKE, i32::MAX as u64, 0, 0, 0]);
    }
    0
}

/// Counts one more, and opens the gate when that is the last. Only then is anybody woken, so that many can meet.
unsafe fn meet(word: u64, all: u32, gate: u64) -> i64 {
    // SAFETY: the operation's author vouches for both words.
    unsafe {
        let count = AtomicU32::from_ptr(ptr::with_exposed_provenance_mut(word as usize));
        if count.fetch_add(1, Ordering::SeqCst).wrapping_add(1) == all { add(gate, 1) } else { 0 }
    }
}

/// Waits until the word has reached `value`.
unsafe fn wait(word: u64, value: u32) -> i64 {
    // SAFETY: the operation's author vouches for the word.
    unsafe {
        loop {
            let seen = AtomicU32::from_ptr(ptr::with_exposed_provenance_mut(word as usize)).load(Ordering::SeqCst);
            if seen >= value {
                return 0;
            }
            syscall(SYS_FUTEX, [word, FUTEX_WAIT, u64::from(seen), 0, 0, 0]);
        }
    }
}
