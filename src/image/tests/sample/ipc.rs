//! System V and POSIX IPC objects of each kind.

use crate::image::model::address::PAGE_SIZE;
use crate::image::model::id::*;
use crate::image::model::ipc::*;
use crate::image::model::memory::{SharedMemory, SharedMemoryKind};

pub(super) fn ipc() -> Ipc {
    let semaphores = vec![Semaphore { value: 1, last: Pid(100) }, Semaphore { value: 32767, last: Pid(0) }];
    let messages = vec![Message { kind: 5, text: b"hello".to_vec() }];
    let queue =
        MessageQueue { id: 6, owner: ipc_owner(-8), capacity: 16384, messages, sender: Pid(100), receiver: Pid(0) };
    Ipc {
        semaphores: vec![SemaphoreSet { id: 32_768, owner: ipc_owner(0), semaphores }],
        queues: vec![queue],
        posix_queues: vec![posix_queue()],
    }
}

fn ipc_owner(key: i32) -> IpcOwner {
    IpcOwner { key, uid: 1, gid: 2, creator_uid: 3, creator_gid: 4, mode: 0o640 }
}

pub(super) fn segment(id: u32) -> SharedMemory {
    let segment = Segment {
        id: 98_310,
        owner: ipc_owner(7),
        size: 5000,
        destroyed: true,
        locked: true,
        huge_page: None,
        creator: Pid(100),
    };
    SharedMemory { id: ShmId(id), kind: SharedMemoryKind::SystemV(segment), size: 2 * PAGE_SIZE }
}

fn posix_queue() -> PosixQueue {
    PosixQueue {
        id: QueueId(0),
        name: b"jobs".to_vec(),
        named: true,
        dev: 20,
        ino: 77,
        mode: 0o640,
        uid: 1000,
        gid: 1000,
        max_messages: 10,
        message_size: 8192,
        messages: vec![
            PosixMessage { priority: 7, text: b"urgent".to_vec() },
            PosixMessage { priority: 0, text: b"later".to_vec() },
        ],
        notification: Some(Notification {
            pid: Pid(100),
            fd: Fd(3),
            event: NotificationEvent::Signal { signal: 10, value: 42 },
        }),
        changed: 5,
    }
}
