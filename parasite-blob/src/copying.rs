//! Copying pages of this address space into a file that somebody else has mapped, by UFFDIO_COPY: one copy, under no lock of the file.

use crate::crc::Checksum;
use crate::syscall::syscall;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use protocol::{Board, JOB_PAGES, Job, PAGE, Run};

const SYS_IOCTL: u32 = 16;
/// `_IOWR(0xaa, 3, struct uffdio_copy)`.
const UFFDIO_COPY: u64 = 0xc028_aa03;
/// Nobody waits for these pages.
const UFFDIO_COPY_MODE_DONTWAKE: u64 = 1;
const EAGAIN: i64 = -11;
const EINVAL: i64 = -22;

/// Takes jobs until there are none, or somebody has failed; the result is the first error.
///
/// # Safety
/// `board` is the address of a [`Board`] whose jobs and their pages can be read. Only those who run this write to it.
pub unsafe fn copy_pages(board: u64) -> i64 {
    let board = board as *mut Board;
    // SAFETY: the caller gives a valid board; fields that others write are used atomically.
    unsafe {
        let (next, done) = (counter(&raw mut (*board).next), counter(&raw mut (*board).done));
        let failure = AtomicI64::from_ptr(&raw mut (*board).failure);
        let count = (&raw const (*board).count).read();
        loop {
            let known = failure.load(Ordering::Relaxed);
            let number = next.fetch_add(1, Ordering::Relaxed);
            if known != 0 || number >= count {
                return known;
            }
            let job = (*board).jobs as *mut Job;
            match copy_job(board, job.add(number as usize)) {
                Ok(bytes) => done.fetch_add(bytes, Ordering::Release),
                Err(error) => {
                    let _ = failure.compare_exchange(0, error, Ordering::Relaxed, Ordering::Relaxed);
                    return error;
                }
            };
        }
    }
}

unsafe fn counter<'a>(word: *mut u64) -> &'a AtomicU64 {
    // SAFETY: the caller gives an aligned word that lives as long as the board.
    unsafe { AtomicU64::from_ptr(word) }
}

/// Copies one job; its bytes, those that are zero included.
unsafe fn copy_job(board: *mut Board, job: *mut Job) -> Result<u64, i64> {
    // SAFETY: as for `copy_pages`; nobody else has this job.
    unsafe {
        let mut sum = Checksum::new();
        let (mut kept, mut runs, mut end, mut number) = (0, 0, 0, 0);
        let mut pages = Pages::of(job);
        while let Some(page) = pages.next() {
            if number == JOB_PAGES {
                return Err(EINVAL);
            }
            if !is_zero(page) {
                sum.add(page);
                keep(job, number);
                kept += 1;
                runs += u64::from(page as u64 != end);
                end = page as u64 + PAGE;
            }
            number += 1;
        }
        (&raw mut (*job).crc).write(sum.finish());
        if kept > 0 {
            let content = place(board, runs, kept);
            (&raw mut (*job).content).write(content);
            copy_kept(board, job, content)?;
        }
        (&raw mut (*job).done).write(1);
        Ok(number * PAGE)
    }
}

/// The next place in the file for that many pages.
unsafe fn place(board: *mut Board, runs: u64, pages: u64) -> u64 {
    // SAFETY: as for `copy_pages`.
    unsafe {
        let head = (*board).head + runs * (*board).head_run;
        let end = counter(&raw mut (*board).end);
        let mut known = end.load(Ordering::Relaxed);
        loop {
            let content = (known + head + PAGE - 1) & !(PAGE - 1);
            match end.compare_exchange_weak(known, content + pages * PAGE, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return content,
                Err(now) => known = now,
            }
        }
    }
}

/// Copies the pages that are kept to an offset of the file, as many as follow each other at a time.
unsafe fn copy_kept(board: *mut Board, job: *mut Job, content: u64) -> Result<(), i64> {
    // SAFETY: as for `copy_pages`.
    unsafe {
        let mut to = (*board).file + content;
        let (mut from, mut len, mut number) = (0, 0, 0);
        let mut pages = Pages::of(job);
        while let Some(page) = pages.next() {
            let page = page as u64;
            if is_kept(job, number) {
                if from + len != page {
                    copy((*board).descriptor, to, from, len)?;
                    (from, to, len) = (page, to + len, 0);
                }
                len += PAGE;
            }
            number += 1;
        }
        copy((*board).descriptor, to, from, len)
    }
}

/// UFFDIO_COPY, which may stop in the middle.
unsafe fn copy(descriptor: u64, to: u64, from: u64, len: u64) -> Result<(), i64> {
    // dst, src, len, mode, copy.
    let mut request = MaybeUninit::<[u64; 5]>::uninit();
    let words = request.as_mut_ptr().cast::<u64>();
    let mut done = 0;
    while done < len {
        // SAFETY: the words are those of the request; word by word, so that no vector register is used.
        let (result, copied) = unsafe {
            words.write_volatile(to + done);
            words.add(1).write_volatile(from + done);
            words.add(2).write_volatile(len - done);
            words.add(3).write_volatile(UFFDIO_COPY_MODE_DONTWAKE);
            words.add(4).write_volatile(0);
            let result = syscall(SYS_IOCTL, [descriptor, UFFDIO_COPY, words as u64, 0, 0, 0]);
            (result, words.add(4).read_volatile() as i64)
        };
        if result == 0 || (result == EAGAIN && copied > 0) {
            done += copied as u64;
        } else if result != EAGAIN {
            return Err(if result < 0 { result } else { EINVAL });
        }
    }
    Ok(())
}

unsafe fn keep(job: *mut Job, page: u64) {
    // SAFETY: there are as many bits as a job has pages.
    unsafe {
        let word = (&raw mut (*job).kept).cast::<u64>().add(page as usize / 64);
        word.write(word.read() | 1 << (page % 64));
    }
}

unsafe fn is_kept(job: *mut Job, page: u64) -> bool {
    // SAFETY: as for `keep`.
    unsafe { (&raw const (*job).kept).cast::<u64>().add(page as usize / 64).read() >> (page % 64) & 1 == 1 }
}

/// Whether all bytes of a page are zero; data is told from zero within a cache line.
unsafe fn is_zero(page: *const u64) -> bool {
    let mut at = 0;
    while at < PAGE as usize / 8 {
        // SAFETY: within the page.
        let eight = unsafe {
            let word = |number| page.add(at + number).read();
            word(0) | word(1) | word(2) | word(3) | word(4) | word(5) | word(6) | word(7)
        };
        if eight != 0 {
            return false;
        }
        at += 8;
    }
    true
}

/// The pages of a job, in order.
struct Pages {
    run: *const Run,
    left: u64,
    at: u64,
    end: u64,
}

impl Pages {
    unsafe fn of(job: *mut Job) -> Self {
        // SAFETY: as for `copy_pages`.
        unsafe { Self { run: (*job).runs as *const Run, left: (*job).count, at: 0, end: 0 } }
    }

    unsafe fn next(&mut self) -> Option<*const u64> {
        if self.at == self.end {
            if self.left == 0 {
                return None;
            }
            // SAFETY: `left` runs are still there.
            unsafe {
                self.at = (*self.run).start;
                self.end = self.at + (*self.run).len;
                self.run = self.run.add(1);
            }
            self.left -= 1;
        }
        let page = self.at;
        self.at += PAGE;
        Some(ptr::with_exposed_provenance(page as usize))
    }
}
