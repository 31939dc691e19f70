//! Options of a target's sockets that looking changes for a moment, and a message that takes back what would outlive us. Should we die in between, a process of ours puts them back.
//!
//! It shares our table of descriptors (CLONE_FILES), so that it has every duplicate of the target's that we have, and reads what is to be undone from
//! memory that both have. It sleeps on a robust futex (get_robust_list(2)) that belongs to the thread that traces: the kernel marks that
//! and wakes the sleeper when the thread gives up its memory, which it does before it lets go of what it traced (kernel/exit.c, `do_exit`).
//! Whether the undoing, which takes microseconds, is done by then would be chance. So both are held on one CPU, and the process has a real-time
//! priority: behind each futex of the list the kernel lets others run who are more urgent (kernel/futex/core.c, `exit_robust_list`, cond_resched), and our
//! thread comes to its end after the process has. Without the right to such a priority (CAP_SYS_NICE) it remains chance.
#![allow(unsafe_code)]

use super::skeleton::{block_signals, restore_signals};
use super::{checked, socket};
use std::cell::{OnceCell, UnsafeCell};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

/// How many options may be changed, and processes be killed, at the same time.
const CAPACITY: usize = 1 << 16;
/// Bytes of the longest value.
const VALUE_MAX: usize = 16;
/// Bytes of the longest message.
const MESSAGE_MAX: usize = 512;
// include/uapi/linux/futex.h
const FUTEX_WAITERS: u32 = 0x8000_0000;
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;

/// What is to be done.
#[repr(C)]
struct Entry {
    fd: i32,
    level: i32,
    name: i32,
    /// Bytes of the value; 0 once it is done.
    len: AtomicU32,
    value: [u8; VALUE_MAX],
}

/// `struct robust_list_head`, and the one node of that list.
#[repr(C)]
struct RobustList {
    first: *const *const RobustList,
    /// From a node to its futex.
    offset: isize,
    pending: *const u8,
    /// The node, which leads back to the head.
    node: *const RobustList,
}

/// The memory that both processes have.
#[repr(C)]
struct Journal {
    robust: RobustList,
    /// The thread whose death is waited for, and the flags of the futex.
    owner: AtomicU32,
    /// Entries in use, of which some may be done.
    count: AtomicU32,
    /// Entries behind these of processes to be killed instead, by their pidfds; 0 while nobody is.
    doomed: AtomicU32,
    /// Bytes of the message; 0 without one.
    message_len: AtomicU32,
    message: UnsafeCell<Message>,
    entries: [UnsafeCell<Entry>; CAPACITY],
}

/// What is to be written, and to which descriptor.
#[repr(C)]
struct Message {
    fd: i32,
    bytes: [u8; MESSAGE_MAX],
}

impl Journal {
    /// The entries in use.
    fn counted(&self) -> std::ops::Range<usize> {
        0..self.count.load(Ordering::SeqCst) as usize
    }

    fn entry(&self, index: usize) -> &Entry {
        // SAFETY: an entry that is counted, or doomed, is not written any more.
        unsafe { &*self.entries[index].get() }
    }
}

const _: () = assert!(size_of::<Entry>() == 32 && size_of::<RobustList>() == 32);

/// Changes options and has them put back in every case. It costs nothing before the first change. It belongs to the thread that traces.
#[derive(Debug, Default)]
pub struct Undo {
    watch: OnceCell<Watch>,
    /// It must be dropped by the thread that has started it.
    not_send: PhantomData<*const ()>,
}

/// An option that is changed until this is dropped.
#[derive(Debug)]
pub struct Held<'a> {
    watch: &'a Watch,
    fd: BorrowedFd<'a>,
    index: usize,
}

impl Undo {
    fn watch(&self) -> io::Result<&Watch> {
        match self.watch.get() {
            Some(watch) => Ok(watch),
            None => {
                let started = Watch::start()?;
                Ok(self.watch.get_or_init(|| started))
            }
        }
    }

    /// Has a message written to a descriptor when we die, once all options are undone. There is one at a time.
    ///
    /// # Errors
    /// As clone(2), mmap(2); ENOSPC when it is too long or there is one already.
    pub fn promise<'a>(&'a self, fd: BorrowedFd<'a>, message: &[u8]) -> io::Result<Promise<'a>> {
        let watch = self.watch()?;
        watch.promise(fd, message)?;
        Ok(Promise { watch, _fd: fd })
    }

    /// From here on nothing is undone any more.
    pub fn forget(&self) {
        if let Some(watch) = self.watch.get() {
            watch.journal().doomed.store(0, Ordering::SeqCst);
            watch.journal().message_len.store(0, Ordering::SeqCst);
            watch.journal().count.store(0, Ordering::SeqCst);
        }
    }

    /// Should we die from here on, nothing is undone, but all of these processes are killed: what is undone while one of them has been killed already would
    /// be seen by whoever is at the other end of its connections. Where nothing is to be undone, nobody is killed.
    ///
    /// # Errors
    /// ENOSPC when there are too many.
    pub fn kill_instead<'a>(&self, pidfds: impl ExactSizeIterator<Item = BorrowedFd<'a>>) -> io::Result<()> {
        self.watch.get().map_or(Ok(()), |watch| watch.doom(pidfds))
    }

    /// Sets an option to `value`, and to `undo` when what is returned ends or when we die. Options are undone in the reverse order.
    ///
    /// # Errors
    /// As setsockopt(2), clone(2), mmap(2); ENOSPC when too many are changed at once.
    pub fn set<'a>(
        &'a self,
        fd: BorrowedFd<'a>,
        level: i32,
        name: i32,
        value: &[u8],
        undo: &[u8],
    ) -> io::Result<Held<'a>> {
        let watch = self.watch()?;
        let index = watch.note(fd, level, name, undo)?;
        // From here on it is undone whatever happens, which does no harm where it was not done.
        let held = Held { watch, fd, index };
        socket::set_option(fd, level, name, value)?;
        Ok(held)
    }
}

/// A message that is written should we die before this is dropped.
#[derive(Debug)]
pub struct Promise<'a> {
    watch: &'a Watch,
    _fd: BorrowedFd<'a>,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.watch.journal().message_len.store(0, Ordering::SeqCst);
    }
}

impl Held<'_> {
    /// Puts the option back now.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn end(self) -> io::Result<()> {
        let held = std::mem::ManuallyDrop::new(self);
        held.watch.undo(held.fd, held.index)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.watch.undo(self.fd, self.index) {
            tracing::error!("putting a socket option back: {error}");
        }
    }
}

/// The process, and what it reads.
#[derive(Debug)]
struct Watch {
    journal: NonNull<Journal>,
    process: i32,
    /// The list of robust futexes that this thread had, of its C library.
    robust: (usize, usize),
    /// On which CPUs this thread may run when it is not held on one.
    affinity: Option<libc::cpu_set_t>,
}

impl Watch {
    fn start() -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping takes nobody's memory.
        let place = unsafe { libc::mmap(ptr::null_mut(), size_of::<Journal>(), protection, flags, -1, 0) };
        let Some(journal) = NonNull::new(place.cast::<Journal>()).filter(|_| place != libc::MAP_FAILED) else {
            return Err(io::Error::last_os_error());
        };
        let mut watch = Self { journal, process: 0, robust: (0, 0), affinity: None };
        watch.own()?;
        // The process must not be ended by what is meant for us.
        let mask = block_signals();
        // SAFETY: as fork(2); the child runs `attend`, which makes system calls alone.
        let process = checked(unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_FILES | libc::SIGCHLD, 0, 0, 0, 0) });
        if process == Ok(0) {
            attend(watch.journal());
        }
        restore_signals(mask);
        watch.process = process? as i32;
        watch.affinity = hold_together(watch.process);
        Ok(watch)
    }

    /// Makes the futex of the journal one that this thread owns.
    fn own(&mut self) -> io::Result<()> {
        let place = self.journal.as_ptr();
        // SAFETY: all of it lies in the mapping, which nobody else has yet.
        unsafe {
            let robust = &raw mut (*place).robust;
            (*robust).first = &raw const (*robust).node;
            (*robust).node = robust;
            (*robust).offset = (&raw const (*place).owner).byte_offset_from(&raw const (*robust).node);
        }
        let tid = super::task::own_tid().0.cast_unsigned();
        self.journal().owner.store(tid | FUTEX_WAITERS, Ordering::SeqCst);
        let (mut head, mut len) = (0usize, 0usize);
        // SAFETY: the kernel writes one word to each pointer.
        checked(unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) })?;
        set_robust_list(place as usize, 3 * size_of::<usize>())?;
        self.robust = (head, len);
        Ok(())
    }

    fn journal(&self) -> &Journal {
        // SAFETY: the mapping lives as long as this; what is not atomic in it is written before anybody reads it.
        unsafe { self.journal.as_ref() }
    }

    /// Notes what is to be done.
    fn note(&self, fd: BorrowedFd<'_>, level: i32, name: i32, undo: &[u8]) -> io::Result<usize> {
        let journal = self.journal();
        let index = journal.count.load(Ordering::SeqCst) as usize;
        if index >= CAPACITY || undo.is_empty() || undo.len() > VALUE_MAX {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let mut value = [0; VALUE_MAX];
        value[..undo.len()].copy_from_slice(undo);
        let entry = Entry { fd: fd.as_raw_fd(), level, name, len: AtomicU32::new(undo.len() as u32), value };
        // SAFETY: nobody reads an entry before it is counted.
        unsafe { journal.entries[index].get().write(entry) };
        journal.count.store(index as u32 + 1, Ordering::SeqCst);
        Ok(index)
    }

    fn doom<'a>(&self, pidfds: impl ExactSizeIterator<Item = BorrowedFd<'a>>) -> io::Result<()> {
        let (journal, count) = (self.journal(), pidfds.len());
        let first = journal.counted().end;
        if first + count > CAPACITY {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        for (index, pidfd) in (first..).zip(pidfds) {
            let entry =
                Entry { fd: pidfd.as_raw_fd(), level: 0, name: 0, len: AtomicU32::new(0), value: [0; VALUE_MAX] };
            // SAFETY: nobody reads an entry that is not counted, before some are doomed.
            unsafe { journal.entries[index].get().write(entry) };
        }
        journal.doomed.store(count as u32, Ordering::SeqCst);
        Ok(())
    }

    fn promise(&self, fd: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
        let journal = self.journal();
        if message.len() > MESSAGE_MAX || journal.message_len.load(Ordering::SeqCst) != 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let mut bytes = [0; MESSAGE_MAX];
        bytes[..message.len()].copy_from_slice(message);
        // SAFETY: nobody reads it before its length is there.
        unsafe { journal.message.get().write(Message { fd: fd.as_raw_fd(), bytes }) };
        journal.message_len.store(message.len() as u32, Ordering::SeqCst);
        Ok(())
    }

    /// Does what is noted there.
    fn undo(&self, fd: BorrowedFd<'_>, index: usize) -> io::Result<()> {
        let journal = self.journal();
        let entry = journal.entry(index);
        let value = &entry.value[..entry.len.load(Ordering::SeqCst) as usize];
        let done = socket::set_option(fd, entry.level, entry.name, value);
        entry.len.store(0, Ordering::SeqCst);
        let open = journal.counted().rev().find(|index| journal.entry(*index).len.load(Ordering::SeqCst) != 0);
        journal.count.store(open.map_or(0, |last| last as u32 + 1), Ordering::SeqCst);
        done
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // First: whom our death would not wake any more would have our descriptors for ever.
        if self.process != 0 {
            let process = nix::unistd::Pid::from_raw(self.process);
            let _ = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL);
            while nix::sys::wait::waitpid(process, None) == Err(nix::errno::Errno::EINTR) {}
        }
        let (head, len) = self.robust;
        if head != 0
            && let Err(error) = set_robust_list(head, len)
        {
            tracing::error!("set_robust_list: {error}");
        }
        if let Some(affinity) = &self.affinity {
            set_affinity(0, affinity);
        }
        // SAFETY: the mapping is ours, and no reference into it is left.
        unsafe { libc::munmap(self.journal.as_ptr().cast(), size_of::<Journal>()) };
    }
}

/// Has the process run before anything else on the one CPU on which this thread is held too, if that may be; where this thread could run before.
fn hold_together(process: i32) -> Option<libc::cpu_set_t> {
    // Above this thread, which may be real-time itself while it dies (`tracer::Urgency`); or as high as may be.
    let may = |priority: i32| {
        let first = libc::sched_param { sched_priority: priority };
        // SAFETY: the kernel reads the one struct.
        unsafe { libc::sched_setscheduler(process, libc::SCHED_FIFO, &raw const first) == 0 }
    };
    if ![2, 1].into_iter().any(may) {
        return None;
    }
    // SAFETY: all-zero bytes are an empty set, and the kernel writes at most its size; CPU_SET writes within it.
    let (before, one) = unsafe {
        let (mut before, mut one): (libc::cpu_set_t, libc::cpu_set_t) = (std::mem::zeroed(), std::mem::zeroed());
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut before) != 0 {
            return None;
        }
        libc::CPU_SET(usize::try_from(libc::sched_getcpu()).ok()?, &mut one);
        (before, one)
    };
    if set_affinity(0, &one) && set_affinity(process, &one) {
        return Some(before);
    }
    set_affinity(0, &before);
    None
}

fn set_affinity(task: i32, cpus: &libc::cpu_set_t) -> bool {
    // SAFETY: the kernel reads the one set.
    unsafe { libc::sched_setaffinity(task, size_of::<libc::cpu_set_t>(), cpus) == 0 }
}

fn set_robust_list(head: usize, len: usize) -> super::Result<()> {
    // SAFETY: the kernel reads the list when this thread ends; it is the C library's, or in a mapping that lives until that one is put back.
    checked(unsafe { libc::syscall(libc::SYS_set_robust_list, head, len) }).map(drop)
}

/// What the process does: it waits for the death of the owner, and then undoes all that is noted.
fn attend(journal: &Journal) -> ! {
    // SAFETY: takes nothing. A signal to the group of `snap` is not for this process.
    unsafe { libc::setsid() };
    loop {
        let word = journal.owner.load(Ordering::SeqCst);
        if word & FUTEX_OWNER_DIED != 0 {
            break;
        }
        let owner = (&raw const journal.owner).cast::<u32>();
        // SAFETY: the word is aligned and mapped; the timeout is null.
        unsafe { libc::syscall(libc::SYS_futex, owner, libc::FUTEX_WAIT, word, 0usize, 0usize, 0) };
    }
    let doomed = journal.doomed.load(Ordering::SeqCst) as usize;
    if doomed != 0 {
        for index in (journal.counted().end..).take(doomed) {
            let pidfd = journal.entry(index).fd;
            // SAFETY: a null siginfo is what kill(2) sends.
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, libc::SIGKILL, 0usize, 0) };
        }
        // SAFETY: ends this process.
        unsafe { libc::_exit(0) };
    }
    for index in journal.counted().rev() {
        let entry = journal.entry(index);
        let len = entry.len.load(Ordering::SeqCst);
        // SAFETY: the kernel reads `len` bytes from the value, which has so many.
        unsafe { libc::setsockopt(entry.fd, entry.level, entry.name, entry.value.as_ptr().cast(), len) };
    }
    let length = journal.message_len.load(Ordering::SeqCst) as usize;
    if length != 0 {
        // SAFETY: a message whose length is there is not written any more; the kernel reads so many bytes of it.
        unsafe {
            let message = journal.message.get();
            libc::write((*message).fd, (&raw const (*message).bytes).cast(), length);
        }
    }
    // SAFETY: ends this process.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests;
