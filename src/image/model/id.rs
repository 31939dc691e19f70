//! Identities: kernel ids as they were at the dump, and indices that link the objects of one image.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A thread group id, as seen in the pid namespace of `snap dump`.
    Pid(i32)
);
id!(
    /// A thread id, as seen in the pid namespace of `snap dump`.
    Tid(i32)
);
id!(
    /// A file descriptor number in a target's table.
    Fd(i32)
);
id!(
    /// Index into [`Snapshot::mms`](super::Snapshot::mms).
    MmId(u32)
);
id!(
    /// Index into [`Snapshot::fd_tables`](super::Snapshot::fd_tables).
    FdTableId(u32)
);
id!(
    /// Index into [`Snapshot::fs_contexts`](super::Snapshot::fs_contexts).
    FsId(u32)
);
id!(
    /// Index into [`Snapshot::signal_handlers`](super::Snapshot::signal_handlers).
    HandlersId(u32)
);
id!(
    /// A list of System V semaphores to undo (CLONE_SYSVSEM) that several tasks of the image share. What it holds nobody can read.
    UndoListId(u32)
);
id!(
    /// An I/O context (CLONE_IO) that several tasks of the image share. All that it holds is the I/O priority, which each of them tells.
    IoContextId(u32)
);
id!(
    /// Index into [`Snapshot::files`](super::Snapshot::files): an inode reached by a path.
    FileId(u32)
);
id!(
    /// Index into [`Snapshot::descriptions`](super::Snapshot::descriptions): an open file description.
    DescriptionId(u32)
);
id!(
    /// Index into [`Snapshot::pipes`](super::Snapshot::pipes).
    PipeId(u32)
);
id!(
    /// Index into [`Snapshot::shared_memory`](super::Snapshot::shared_memory).
    ShmId(u32)
);
id!(
    /// Index into [`Snapshot::terminals`](super::Snapshot::terminals).
    TerminalId(u32)
);
id!(
    /// Index into [`Snapshot::sockets`](super::Snapshot::sockets).
    SocketId(u32)
);
id!(
    /// Index into [`Snapshot::socket_options`](super::Snapshot::socket_options).
    OptionsId(u32)
);
id!(
    /// Index into [`Ipc::posix_queues`](super::ipc::Ipc::posix_queues).
    QueueId(u32)
);
id!(
    /// Index into [`Snapshot::bpf_maps`](super::Snapshot::bpf_maps).
    BpfMapId(u32)
);
id!(
    /// Index into [`Snapshot::bpf_types`](super::Snapshot::bpf_types).
    BpfTypesId(u32)
);
id!(
    /// Index into [`Snapshot::seccomp_filters`](super::Snapshot::seccomp_filters).
    SeccompId(u32)
);

impl Pid {
    /// The main thread of this thread group.
    #[must_use]
    pub const fn leader(self) -> Tid {
        Tid(self.0)
    }
}
