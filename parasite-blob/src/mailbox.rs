//! Taking every message out of a POSIX message queue, and putting all of them back. Nobody else may use the queue meanwhile.

use crate::syscall::{pause, syscall};
use protocol::{Mailbox, MessageHead};

const SYS_MQ_TIMEDSEND: u32 = 242;
const SYS_MQ_TIMEDRECEIVE: u32 = 243;
const EINTR: i64 = -4;
const ENOBUFS: i64 = -105;

/// A time that has passed: whatever the descriptor says, nobody waits.
static PAST: [u64; 2] = [1, 0];

/// Takes messages, highest priority and oldest first, until there is none or no room for another; how many.
///
/// # Safety
/// `mailbox` is the address of a [`Mailbox`] whose heads and texts can be written.
pub unsafe fn take(mailbox: u64) -> i64 {
    let mailbox = mailbox as *mut Mailbox;
    let (mut count, mut used) = (0, 0);
    // SAFETY: the caller vouches for the mailbox; the kernel writes into its room alone.
    unsafe {
        let (fd, most) = ((*mailbox).receive, (*mailbox).message_size);
        let end = loop {
            if count == (*mailbox).room || used + most > (*mailbox).size {
                break ENOBUFS;
            }
            let head = head(mailbox, count);
            let priority = (&raw mut (*head).priority) as u64;
            let text = (*mailbox).texts + used;
            let result = syscall(SYS_MQ_TIMEDRECEIVE, [fd, text, most, priority, (&raw const PAST) as u64, 0]);
            if result == EINTR {
                continue;
            }
            if result < 0 {
                break result;
            }
            (&raw mut (*head).len).write_volatile(result as u64);
            used += result as u64;
            count += 1;
            (&raw mut (*mailbox).count).write_volatile(count);
        };
        (&raw mut (*mailbox).end).write_volatile(end);
    }
    count as i64
}

/// Sends the messages that were taken. There was room for them, and whatever else stands in the way for a moment is waited for.
///
/// # Safety
/// As for [`take`].
pub unsafe fn put(mailbox: u64) -> i64 {
    let mailbox = mailbox as *mut Mailbox;
    // SAFETY: as for `take`.
    unsafe {
        let fd = (*mailbox).send;
        let (mut at, mut text) = (0, (*mailbox).texts);
        while at < (*mailbox).count {
            let head = head(mailbox, at);
            let (len, priority) = ((*head).len, (*head).priority);
            let result = syscall(SYS_MQ_TIMEDSEND, [fd, text, len, priority, (&raw const PAST) as u64, 0]);
            if result >= 0 {
                text += len;
                at += 1;
            } else if result != EINTR {
                pause();
            }
        }
    }
    0
}

unsafe fn head(mailbox: *mut Mailbox, number: u64) -> *mut MessageHead {
    // SAFETY: the caller stays below the room.
    unsafe { ((*mailbox).heads as *mut MessageHead).add(number as usize) }
}
