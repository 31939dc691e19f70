//! SEM_UNDO: what the end of a task would add to semaphores, or of the last of those that share a list (CLONE_SYSVSEM). No interface tells it, but the kernel keeps it within bounds.
//!
//! A semop(2) with SEM_UNDO that would take an adjustment beyond -32768 or 32767 fails with ERANGE, one that would have to wait fails with
//! EAGAIN (IPC_NOWAIT), and one that fails has changed nothing: its operations are done all together or not at all (ipc/sem.c,
//! `perform_atomic_semop_slow`). So the task makes a call whose last operation can never be done, and which of the two errors comes
//! tells whether the adjustment is below a bound or above.

use crate::image::model::id::Tid;
use crate::proc::sysvipc::SemaphoreSet;
use crate::resources::ask::Asker;
use crate::resources::{CollectError, Findings};
use crate::sys::sysv::{self, Operation};
use nix::errno::Errno;

/// The most that a semaphore, and an adjustment, can be (SEMVMX, SEMAEM).
const MOST: i32 = 32767;
/// Semaphores whose adjustments are compared with 0 by one call: ten operations each, of at most 500 by default.
const TOGETHER: usize = 40;
/// How often a set is looked at again that somebody outside changes meanwhile.
const TRIES: usize = 5;
const NO_WAIT: i16 = libc::IPC_NOWAIT as i16;
const UNDO: i16 = libc::SEM_UNDO as i16;

/// An adjustment of a task: set, number of the semaphore, what is added.
pub type Adjustment = (i32, u16, i16);

/// What a task has to undo in these sets. Calls are made in its place, which changes nothing.
///
/// # Errors
/// A call that could not be made.
pub fn adjustments(
    asker: &mut Asker<'_, '_>,
    tid: Tid,
    sets: &[SemaphoreSet],
    findings: &mut Findings,
) -> Result<Vec<Adjustment>, CollectError> {
    let mut found = Vec::new();
    for set in sets {
        let id = set.entry.id;
        match of_set(asker, tid, set)? {
            Ok(adjustments) => {
                let numbered = adjustments.into_iter().map(|(semaphore, adjustment)| (id, semaphore, adjustment));
                found.extend(numbered);
            }
            // It may not change these, and so has changed none.
            Err(Errno::EACCES | Errno::EPERM) => {}
            // They are gone.
            Err(Errno::EIDRM | Errno::EINVAL) => {}
            Err(errno) => {
                let reason = format!("what its end would undo (SEM_UNDO) cannot be found out: {errno}");
                findings.block(format!("pid {tid}"), format!("{} {id}", sysv::Kind::Semaphores.name()), reason, "");
            }
        }
    }
    Ok(found)
}

type OfSet = Result<Vec<(u16, i16)>, Errno>;

fn of_set(asker: &mut Asker<'_, '_>, tid: Tid, set: &SemaphoreSet) -> Result<OfSet, CollectError> {
    let (id, count) = (set.entry.id, set.nsems as usize);
    for _ in 0..TRIES {
        let before = match sysv::values(id, count) {
            Ok(values) => values,
            Err(errno) => return Ok(Err(errno)),
        };
        let mut probe = Probe { asker: &mut *asker, tid, id, values: &before };
        let found = probe.all()?;
        // Somebody outside of the tree may use them too.
        if found.is_err() || sysv::values(id, count).as_ref() == Ok(&before) {
            return Ok(found);
        }
    }
    Ok(Err(Errno::EBUSY))
}

/// Asks a task about its adjustments in one set.
struct Probe<'p, 's, 't> {
    asker: &'p mut Asker<'s, 't>,
    tid: Tid,
    id: i32,
    values: &'p [u16],
}

/// Which of the two errors came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// EAGAIN: all adjustments could be made, and then the last operation not.
    Within,
    /// ERANGE.
    Beyond,
}

impl Probe<'_, '_, '_> {
    fn all(&mut self) -> Result<OfSet, CollectError> {
        let mut found = Vec::new();
        let numbers: Vec<u16> = (0..self.values.len() as u16).collect();
        for some in numbers.chunks(TOGETHER) {
            let mut operations: Vec<Operation> =
                some.iter().flat_map(|&number| zero(number, self.value(number))).collect();
            operations.push(never(some[0]));
            match self.ask(&operations)? {
                Ok(Answer::Within) => continue,
                Ok(Answer::Beyond) => {}
                Err(errno) => return Ok(Err(errno)),
            }
            for &number in some {
                match self.search(number)? {
                    Ok(0) => {}
                    Ok(adjustment) => found.push((number, adjustment)),
                    Err(errno) => return Ok(Err(errno)),
                }
            }
        }
        Ok(Ok(found))
    }

    fn value(&self, number: u16) -> i32 {
        i32::from(self.values[number as usize])
    }

    /// The adjustment of one semaphore: half of what is possible is left after each call.
    fn search(&mut self, number: u16) -> Result<Result<i16, Errno>, CollectError> {
        let (mut low, mut high) = (-MOST - 1, MOST);
        while low < high {
            let middle = (low + high).div_euclid(2);
            let mut operations = empty(number, self.value(number));
            operations.extend(raise(number, MOST - middle));
            operations.push(never(number));
            match self.ask(&operations)? {
                Ok(Answer::Within) => high = middle,
                Ok(Answer::Beyond) => low = middle + 1,
                Err(errno) => return Ok(Err(errno)),
            }
        }
        Ok(Ok(low as i16))
    }

    fn ask(&mut self, operations: &[Operation]) -> Result<Result<Answer, Errno>, CollectError> {
        let bytes: Vec<u8> = operations.iter().flat_map(|operation| operation.bytes()).collect();
        self.asker.fill(0, &bytes)?;
        let args = [self.id as u64, self.asker.scratch(0).0, operations.len() as u64, 0, 0, 0];
        let answer = self.asker.call(self.tid, "semop", libc::SYS_semop, args)?;
        Ok(match answer.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw) {
            Some(Errno::EAGAIN) => Ok(Answer::Within),
            Some(Errno::ERANGE) => Ok(Answer::Beyond),
            Some(errno) => Err(errno),
            None => Err(Errno::UnknownErrno),
        })
    }
}

/// Takes the value of a semaphore down to 0.
fn empty(semaphore: u16, value: i32) -> Vec<Operation> {
    if value == 0 { Vec::new() } else { vec![Operation { semaphore, change: -value as i16, flags: NO_WAIT }] }
}

/// Adds this much to the adjustment of a semaphore whose value is 0, and is again afterwards.
fn raise(semaphore: u16, by: i32) -> Vec<Operation> {
    moved(semaphore, by, |step| [(step, NO_WAIT), (-step, NO_WAIT | UNDO)])
}

/// As [`raise`], in the other direction.
fn lower(semaphore: u16, by: i32) -> Vec<Operation> {
    moved(semaphore, by, |step| [(step, NO_WAIT | UNDO), (-step, NO_WAIT)])
}

fn moved(semaphore: u16, by: i32, pair: impl Fn(i32) -> [(i32, i16); 2]) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut left = by;
    while left > 0 {
        let step = left.min(MOST);
        let both = pair(step).map(|(change, flags)| Operation { semaphore, change: change as i16, flags });
        operations.extend(both);
        left -= step;
    }
    operations
}

/// Operations that can be done only if the adjustment is 0: up to its highest value, and from there down to its lowest.
fn zero(semaphore: u16, value: i32) -> Vec<Operation> {
    let mut operations = empty(semaphore, value);
    operations.extend(raise(semaphore, MOST));
    operations.extend(lower(semaphore, 2 * MOST + 1));
    operations
}

/// An operation that can never be done: to take from a semaphore whose value is 0.
const fn never(semaphore: u16) -> Operation {
    Operation { semaphore, change: -1, flags: NO_WAIT }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's rules: the outcome of a call for one semaphore with this value and adjustment.
    fn outcome(operations: &[Operation], mut value: i32, mut adjustment: i32) -> Errno {
        for operation in operations {
            value += i32::from(operation.change);
            if value < 0 {
                return Errno::EAGAIN;
            }
            if operation.flags & UNDO != 0 {
                adjustment -= i32::from(operation.change);
            }
            if value > MOST || !(-MOST - 1..=MOST).contains(&adjustment) {
                return Errno::ERANGE;
            }
        }
        panic!("it succeeds: {operations:?}")
    }

    #[test]
    fn only_an_adjustment_of_zero_passes() {
        for value in [0, 1, 5, MOST] {
            let mut operations = zero(0, value);
            operations.push(never(0));
            assert!(operations.len() * TOGETHER <= 500 || operations.len() <= 12);
            for adjustment in [-MOST - 1, -MOST, -2, -1, 0, 1, 2, MOST - 1, MOST] {
                let expected = if adjustment == 0 { Errno::EAGAIN } else { Errno::ERANGE };
                assert_eq!(outcome(&operations, value, adjustment), expected, "{value} {adjustment}");
            }
        }
    }

    #[test]
    fn a_bound_is_told_exactly() {
        for (bound, adjustment) in [(0, 0), (0, 1), (-1, 0), (-1, -1), (MOST - 1, MOST), (-MOST - 1, -MOST - 1), (7, 6)]
        {
            let mut operations = empty(0, 3);
            operations.extend(raise(0, MOST - bound));
            operations.push(never(0));
            let expected = if adjustment <= bound { Errno::EAGAIN } else { Errno::ERANGE };
            assert_eq!(outcome(&operations, 3, adjustment), expected, "{bound} {adjustment}");
        }
    }
}
