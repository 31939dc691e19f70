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

/// The first CPU that this thread may use.
///
/// # Errors
/// As [`get`].
pub fn first() -> Result<usize> {
    let words = get(Tid(0))?;
    let word = words.iter().position(|word| *word != 0).unwrap_or(0);
    Ok(word * 64 + (words[word].trailing_zeros() % 64) as usize)
}

/// Calls `run` on one CPU; then this thread may use again those that it could before.
///
/// # Errors
/// As [`set`], before `run` is called, or after it, once none of those is left.
pub fn on<T>(cpu: usize, run: impl FnOnce() -> T) -> Result<T> {
    let before = get(Tid(0))?;
    let mut one = vec![0; cpu / 64 + 1];
    one[cpu / 64] = 1 << (cpu % 64);
    set(Tid(0), &one)?;
    let done = run();
    set(Tid(0), &before).map(|()| done)
}
