//! Looking into POSIX message queues: all messages are taken out and put back by a process that has the queue, while all others that have it stand by. The one
//! that is to be told of a message (mq_notify(3)) is told of one of ours, and registers again: nothing else shows what it would be told.

use super::{Found, Shown};
use crate::blocker::Blocker;
use crate::image::model::Snapshot;
use crate::image::model::address::Addr;
use crate::image::model::id::{Fd, Pid, SocketId};
use crate::image::model::ipc::{Notification, NotificationEvent, PosixMessage};
use crate::resources::together::Unseen;
use crate::tracer::{self, FrozenTree, Gathering, Memory, RemotePtr};
use protocol::{Mailbox, MessageHead, Op, check, pseudo};

/// Room for messages that somebody outside has sent meanwhile: they are put back with the others.
pub(super) const MORE: u64 = 16;
/// Bytes of a `siginfo_t`, and where `si_value` stands in it.
const INFO: u64 = 128;
const SI_VALUE: u64 = 24;
/// NOTIFY_COOKIE_LEN.
const COOKIE: u64 = 32;
/// Where the results stand in a [`Mailbox`].
const COUNT: u64 = std::mem::offset_of!(Mailbox, count) as u64;
/// `si_code` of the signal of mq_notify(3).
const SI_MESGQ: i32 = -3;
/// A queue that has to be looked into, and how.
#[derive(Debug)]
pub struct Exchange {
    pub(super) found: Found,
    /// Processes that have it; the first is to look.
    pub(super) pids: Vec<Pid>,
    /// Descriptors of the first: one for receiving, one for sending, and any.
    pub(super) receive: Option<Fd>,
    pub(super) send: Option<Fd>,
    pub(super) any: Fd,
    /// The netlink socket through which the first is told of messages.
    pub(super) socket: Option<(SocketId, Fd)>,
}

/// Where the parts of the data lie in the worker's memory.
#[derive(Clone, Copy)]
struct Places {
    mailbox: Addr,
    /// Another one, for a message of ours.
    probe: Addr,
    heads: Addr,
    path: Addr,
    set: Addr,
    info: Addr,
    event: Addr,
    /// Zero bytes: no time, and the head of a message of ours.
    zeroes: Addr,
    opened: Addr,
    signalled: Addr,
    registered: Addr,
    texts: Addr,
}

impl Places {
    fn new(start: Addr, messages: u64) -> Self {
        let mailbox = size_of::<Mailbox>() as u64;
        let probe = start.add(mailbox);
        let heads = probe.add(mailbox);
        let path = heads.add((messages + MORE) * size_of::<MessageHead>() as u64);
        let set = path.add(64);
        let info = set.add(8);
        let event = info.add(INFO);
        let zeroes = event.add(64);
        let opened = zeroes.add(16);
        let (signalled, registered, texts) = (opened.add(8), opened.add(16), opened.add(24));
        Self { mailbox: start, probe, heads, path, set, info, event, zeroes, opened, signalled, registered, texts }
    }
}

type Contents = (Vec<PosixMessage>, Option<Notification>);

impl Exchange {
    /// Looks into the queue.
    ///
    /// # Errors
    /// The outer error is that of the tracer. What could not be seen is refused by the inner one.
    pub fn run(&self, tree: &mut FrozenTree, snapshot: &mut Snapshot) -> Result<Result<(), Unseen>, tracer::Error> {
        let size = snapshot.ipc.posix_queues[self.found.queue.0 as usize].message_size;
        let texts = self.found.shown.bytes + (MORE + 1) * size;
        let Places { texts: end, .. } = Places::new(Addr::NULL, self.found.messages);
        let count = self.ops(Places::new(Addr::NULL, 0)).len();
        let mut gathering = match Gathering::enter(tree, &self.pids, count, end.0 + texts + size) {
            Err(tracer::Error::Refused { tid, reason, remedy }) => {
                let reason =
                    format!("its messages can be seen only by who stands by for them, and tid {tid} cannot: {reason}");
                return Ok(Err(Unseen::Never(self.blocker(reason, remedy))));
            }
            Err(tracer::Error::NoRoom { pid, what }) => {
                let reason =
                    format!("its messages can be seen only by who stands by for them, and pid {pid} has no {what}");
                return Ok(Err(Unseen::Never(self.blocker(reason, "dump when it has fewer threads"))));
            }
            entered => entered?,
        };
        let places = Places::new(gathering.room().start, self.found.messages);
        self.write(gathering.memory()?, places, (size, texts))?;
        gathering.perform(&self.ops(places))?;
        let seen = self.read(gathering.memory()?, places)?;
        let changed = self.changed();
        gathering.leave()?;
        let queue = &mut snapshot.ipc.posix_queues[self.found.queue.0 as usize];
        Ok(seen.map(|contents| {
            (queue.messages, queue.notification) = contents;
            queue.changed = changed.unwrap_or(queue.changed);
        }))
    }

    fn changed(&self) -> Option<i64> {
        let pid = self.pids.first()?;
        std::fs::metadata(format!("/proc/{pid}/fd/{}", self.any)).ok().map(|meta| super::changed(&meta))
    }

    /// Whether a descriptor has to be opened.
    fn opens(&self) -> bool {
        self.receive.is_none() || self.send.is_none()
    }

    /// The signal that tells of a message.
    fn signal(&self) -> Option<i32> {
        let Shown { bytes: _, notify, signal, pid } = self.found.shown;
        (pid != 0 && notify == libc::SIGEV_SIGNAL && signal > 0).then_some(signal)
    }

    fn write(&self, memory: &Memory, places: Places, (size, texts): (u64, u64)) -> Result<(), tracer::Error> {
        let number = |fd: Option<Fd>| fd.map_or(u64::MAX, |fd| fd.0 as u64);
        let (receive, send) = (number(self.receive), number(self.send));
        let all = Mailbox {
            receive,
            send,
            message_size: size,
            heads: places.heads.0,
            room: self.found.messages + MORE,
            texts: places.texts.0,
            size: texts,
            count: 0,
            end: 0,
        };
        let (heads, texts) = (places.zeroes.0, places.texts.0 + texts);
        let probe = Mailbox { heads, room: 1, texts, size, count: 1, ..all };
        for (at, mailbox) in [(places.mailbox, all), (places.probe, probe)] {
            let Mailbox { receive, send, message_size, heads, room, texts, size, count, end } = mailbox;
            let words = [receive, send, message_size, heads, room, texts, size, count, end as u64];
            memory.write(at, &words.map(u64::to_le_bytes).concat())?;
        }
        memory.write(places.path, format!("/proc/self/fd/{}\0", self.any).as_bytes())?;
        let Shown { bytes: _, notify, signal, pid: _ } = self.found.shown;
        memory.put(RemotePtr::new(places.set), self.signal().map_or(0, |signal| 1_u64 << (signal - 1)))?;
        // `struct sigevent`: the value, the signal, the kind; of SIGEV_THREAD the address of the cookie, and the socket.
        let (value, number) = match self.socket {
            Some((_, fd)) => (places.info.0, fd.0),
            None => (0, signal),
        };
        let event = [value, (notify as u64) << 32 | u64::from(number.cast_unsigned())];
        memory.write(places.event, &event.map(u64::to_le_bytes).concat())
    }

    /// What the worker does. From the taking to the putting back nothing stops it.
    fn ops(&self, places: Places) -> Vec<Op> {
        let mut ops = Vec::new();
        if self.opens() {
            let flags = (libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC) as u64;
            let open = call(libc::SYS_openat, &[libc::AT_FDCWD as u64, places.path.0, flags]);
            ops.push(Op { check: check::NON_NEGATIVE, store: places.opened.0, ..open });
            let own = [(self.receive, places.mailbox), (self.send, places.mailbox.add(8))];
            let lacking = own.iter().filter(|(own, _)| own.is_none());
            ops.extend(lacking.map(|(_, at)| pseudo_call(pseudo::COPY, &[at.0, places.opened.0, 8])));
        }
        ops.push(pseudo_call(pseudo::TAKE_MESSAGES, &[places.mailbox.0]));
        if self.found.shown.pid != 0 {
            ops.push(pseudo_call(pseudo::COPY, &[places.probe.0, places.mailbox.0, 16]));
            ops.push(pseudo_call(pseudo::PUT_MESSAGES, &[places.probe.0]));
            if self.signal().is_some() {
                let args = [places.set.0, places.info.0, places.zeroes.0, 8];
                ops.push(Op { store: places.signalled.0, ..call(libc::SYS_rt_sigtimedwait, &args) });
            }
            if let Some((_, fd)) = self.socket {
                let args = [fd.0 as u64, places.info.0, COOKIE, libc::MSG_DONTWAIT as u64];
                ops.push(Op { store: places.signalled.0, ..call(libc::SYS_recvfrom, &args) });
            }
            ops.push(pseudo_call(pseudo::TAKE_MESSAGES, &[places.probe.0]));
        }
        ops.push(pseudo_call(pseudo::PUT_MESSAGES, &[places.mailbox.0]));
        if self.opens() {
            // Before the registration, which ends when its process closes any descriptor (ipc/mqueue.c, `mqueue_flush_file`).
            ops.push(Op { indirect: 1, ..call(libc::SYS_close, &[places.opened.0]) });
        }
        if self.found.shown.pid != 0 {
            if let Some(signal) = self.signal() {
                let same = pseudo_call(pseudo::SAME, &[places.signalled.0, signal as u64]);
                ops.push(Op { indirect: 1, check: check::EQUALS, ..same });
                ops.push(pseudo_call(pseudo::COPY, &[places.event.0, places.info.add(SI_VALUE).0, 8]));
            }
            if self.socket.is_some() {
                let same = pseudo_call(pseudo::SAME, &[places.signalled.0, COOKIE]);
                ops.push(Op { indirect: 1, check: check::EQUALS, ..same });
            }
            let register = call(libc::SYS_mq_notify, &[self.any.0 as u64, places.event.0]);
            ops.push(Op { store: places.registered.0, ..register });
        }
        ops
    }

    /// What came of it.
    fn read(&self, memory: &Memory, places: Places) -> Result<Result<Contents, Unseen>, tracer::Error> {
        let word = |at: Addr| memory.get(RemotePtr::<i64>::new(at));
        let opened = word(places.opened)?;
        if self.opens() && opened < 0 {
            let error = std::io::Error::from_raw_os_error(-opened as i32);
            let reason = format!(
                "its messages can be seen by nobody who may not both receive and send, and it cannot be opened for that: {error}"
            );
            let remedy = "let its owner read and write it (fchmod), or dump when it is empty";
            return Ok(Err(Unseen::Never(self.blocker(reason, remedy))));
        }
        let count = memory.get(RemotePtr::<u64>::new(places.mailbox.add(COUNT)))?;
        let end = word(places.mailbox.add(COUNT + 8))?;
        let mut messages = Vec::new();
        let mut text = places.texts;
        for number in 0..count {
            let head = places.heads.add(number * size_of::<MessageHead>() as u64);
            let len = memory.get(RemotePtr::<u64>::new(head))?;
            let priority = memory.get(RemotePtr::<u32>::new(head.add(8)))?;
            messages.push(PosixMessage { priority, text: memory.read_vec(text, len as usize)? });
            text = text.add(len);
        }
        let bytes: u64 = messages.iter().map(|message| message.text.len() as u64).sum();
        let is_whole = matches!(-end as i32, libc::EAGAIN | libc::ETIMEDOUT);
        if !is_whole || (count, bytes) != (self.found.messages, self.found.shown.bytes) {
            let reason = "somebody outside has used it while its messages were looked at";
            return Ok(Err(Unseen::Now(self.blocker(reason.into(), "try again"))));
        }
        let notification = match self.told(memory, places)? {
            Ok(notification) => notification,
            Err(reason) => return Ok(Err(Unseen::Now(self.blocker(reason, "try again")))),
        };
        Ok(Ok((messages, notification)))
    }

    /// Who is told of a message, and how.
    fn told(&self, memory: &Memory, places: Places) -> Result<Result<Option<Notification>, String>, tracer::Error> {
        let Shown { bytes: _, notify, signal, pid } = self.found.shown;
        if pid == 0 {
            return Ok(Ok(None));
        }
        let event = if notify == libc::SIGEV_NONE {
            NotificationEvent::Nothing
        } else if let Some((_, socket)) = self.socket {
            let cookie = memory.read_vec(places.info, COOKIE as usize)?;
            if memory.get(RemotePtr::<i64>::new(places.signalled))? != COOKIE as i64 {
                return Ok(Err(format!(
                    "pid {pid}, which was to be told through fd {socket} when a message comes (mq_notify), was not"
                )));
            }
            NotificationEvent::Thread { socket, cookie: cookie.try_into().unwrap_or([0; COOKIE as usize]) }
        } else {
            let code = memory.get(RemotePtr::<i32>::new(places.info.add(8)))?;
            let signalled = memory.get(RemotePtr::<i64>::new(places.signalled))?;
            if signal > 0 && (signalled, code) != (i64::from(signal), SI_MESGQ) {
                return Ok(Err(format!(
                    "pid {pid}, which was to be sent signal {signal} when a message comes (mq_notify), was not"
                )));
            }
            NotificationEvent::Signal { signal, value: memory.get(RemotePtr::<u64>::new(places.event))? }
        };
        let registered = memory.get(RemotePtr::<i64>::new(places.registered))?;
        if registered < 0 {
            let error = std::io::Error::from_raw_os_error(-registered as i32);
            return Ok(Err(format!("pid {pid} could not register again for a message (mq_notify): {error}")));
        }
        Ok(Ok(Some(Notification { pid: Pid(pid), fd: self.any, event })))
    }

    fn blocker(&self, reason: String, remedy: &str) -> Blocker {
        let (task, object) = (format!("pid {}", self.found.tid), self.found.object.clone());
        Blocker { task, object, reason, remedy: remedy.into() }
    }
}

/// A system call whatever it returns.
fn call(number: i64, args: &[u64]) -> Op {
    pseudo_call(number as u32, args)
}

fn pseudo_call(nr: u32, args: &[u64]) -> Op {
    Op { nr, args: std::array::from_fn(|index| args.get(index).copied().unwrap_or(0)), ..Op::default() }
}
