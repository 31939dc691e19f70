//! CPUs: those that a task may use, the one that it runs on.
#![allow(unsafe_code)]

use super::{Result, checked};
use crate::image::model::id::Tid;

/// sched_getaffinity(2): bit N of word N/64 for CPU N. `Tid(0)` is the calling thread.
///
/// # Errors
/// ESRCH, EPERM.
pub fn get(tid: Tid) -> Result<Vec<u64>> {
    let mut words = vec![0u64; 128];
    // SAFETY: the kernel writes at most the given number of bytes.
    let bytes =
        checked(unsafe { libc::syscall(libc::SYS_sched_getaffinity, tid.0, words.len() * 8, words.as_mut_ptr()) })?;
    words.truncate(bytes.div_ceil(8));
    while words.len() > 1 && words.last() == Some(&0) {
        words.pop();
    }
    Ok(words)
}

/// sched_setaffinity(2) in the shape of [`get`].
///
/// # Errors
/// EINVAL when no such CPU exists, ESRCH, EPERM.
pub fn set(tid: Tid, words: &[u64]) -> Result<()> {
    // SAFETY: the kernel reads the given number of bytes.
    checked(unsafe { libc::syscall(libc::SYS_sched_setaffinity, tid.0, words.len() * 8, words.as_ptr()) }).map(drop)
}
