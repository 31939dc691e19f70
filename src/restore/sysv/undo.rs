//! Semaphores that a task has to undo. Pure.
//!
//! The task itself takes from a semaphore with SEM_UNDO and gives the same back without, or the other way round, in one call: its value
//! stays what it is. That makes its process the last to have operated on it. So whoever was that before the dump operates once more, after all have done so.

use crate::image::model::Snapshot;
use crate::image::model::ipc::Undo;
use crate::image::model::process::Process;
use crate::image::model::thread::Thread;
use crate::restore::script::{Label, List, Script};
use crate::sys::sysv::Operation;

/// The most that a semaphore can be (SEMVMX).
const MOST: i32 = 32767;
const NO_WAIT: i16 = libc::IPC_NOWAIT as i16;
const UNDO: i16 = libc::SEM_UNDO as i16;

/// Gives a task what it has to undo.
pub fn undo_semaphores(list: &mut List, script: &mut Script, snapshot: &Snapshot, thread: &Thread) {
    for Undo { set, semaphore, adjustment } in &thread.undo {
        let set = &snapshot.ipc.semaphores[*set as usize];
        let value = set.semaphores[usize::from(*semaphore)].value;
        let operations = adjust(*semaphore, i32::from(value), i32::from(*adjustment));
        operate(list, script, "operations to undo on semaphores", set.id, &operations);
    }
}

/// Makes a process the last that has operated on semaphores, where it was and another may be by now.
pub fn touch_semaphores(list: &mut List, script: &mut Script, snapshot: &Snapshot, process: &Process) {
    let others = snapshot.processes.iter().filter(|other| other.pid != process.pid);
    let undone = others.flat_map(|other| &other.threads).flat_map(|thread| &thread.undo);
    let mut touched: Vec<(u32, u16)> = undone.map(|undo| (undo.set, undo.semaphore)).collect();
    touched.sort_unstable();
    touched.dedup();
    for (set, semaphore) in touched {
        let set = &snapshot.ipc.semaphores[set as usize];
        let one = set.semaphores[usize::from(semaphore)];
        if one.last == process.pid {
            let up = if i32::from(one.value) == MOST { -1 } else { 1 };
            let operations = [up, -up].map(|change| Operation { semaphore, change, flags: NO_WAIT });
            operate(list, script, "operating on semaphores", set.id, &operations);
        }
    }
}

fn operate(list: &mut List, script: &mut Script, what: &'static str, id: i32, operations: &[Operation]) {
    let bytes: Vec<u8> = operations.iter().flat_map(|operation| operation.bytes()).collect();
    let at = script.place(&bytes);
    let args = [id as u64, at.0, operations.len() as u64];
    list.call(Label::Number(what, i64::from(id)), libc::SYS_semop, &args);
}

/// Operations that leave a semaphore at `value`, and what is undone by `adjustment` more.
fn adjust(semaphore: u16, value: i32, adjustment: i32) -> Vec<Operation> {
    // Towards where there is more room.
    let is_up = value <= MOST / 2;
    let room = if is_up { MOST - value } else { value };
    // What is undone is the opposite of what is done.
    let undo_up = adjustment < 0;
    let mut operations = Vec::new();
    let mut left = adjustment.abs();
    while left > 0 {
        let step = left.min(room);
        let first = if is_up { step } else { -step };
        let flags = |change: i32| if (change > 0) == undo_up { NO_WAIT | UNDO } else { NO_WAIT };
        operations.extend([first, -first].map(|change| Operation {
            semaphore,
            change: change as i16,
            flags: flags(change),
        }));
        left -= step;
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_stays_and_the_adjustment_is_made_within_the_bounds() {
        for value in [0, 1, 2, MOST / 2, MOST / 2 + 1, MOST - 1, MOST] {
            for adjustment in [-MOST - 1, -MOST, -3, -1, 0, 1, 3, MOST] {
                let (mut now, mut made) = (value, 0);
                for operation in adjust(4, value, adjustment) {
                    now += i32::from(operation.change);
                    if operation.flags & UNDO != 0 {
                        made -= i32::from(operation.change);
                    }
                    assert!((0..=MOST).contains(&now) && (-MOST - 1..=MOST).contains(&made), "{value} {adjustment}");
                }
                assert_eq!((now, made), (value, adjustment));
            }
        }
    }
}
