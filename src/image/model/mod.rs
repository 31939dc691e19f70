//! The model: everything an image says, as plain owned data, one file per kind of kernel object.
//!
//! Objects that tasks share stand once in a list of the [`Snapshot`] and are named by their index there.
//!
//! Architecture invariant: nothing here knows a kernel interface, a pid that is alive, or a file descriptor of ours.

pub mod address;
pub mod aio;
pub mod bpf;
mod bytes;
pub mod credentials;
pub mod event;
pub mod file;
pub mod fork;
pub mod id;
pub mod inventory;
pub mod ipc;
pub mod memory;
pub mod pipe;
pub mod process;
pub mod signal;
pub mod socket;
pub mod terminal;
pub mod thread;
pub mod timer;
pub mod tun;
pub mod watch;

use serde::{Deserialize, Serialize};

/// A frozen process tree without its pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What, where and when.
    pub inventory: inventory::Inventory,
    /// Thread groups, parents before their children; the root is the first.
    pub processes: Vec<process::Process>,
    /// Children that were not reaped, in ascending order.
    pub zombies: Vec<process::Zombie>,
    /// Address spaces.
    pub mms: Vec<memory::Mm>,
    /// Shared memory objects.
    pub shared_memory: Vec<memory::SharedMemory>,
    /// Inodes with a path.
    pub files: Vec<file::File>,
    /// Open file descriptions.
    pub descriptions: Vec<file::Description>,
    /// Tables of descriptors.
    pub fd_tables: Vec<file::FdTable>,
    /// Working directories, roots and umasks.
    pub fs_contexts: Vec<process::FsContext>,
    /// Tables of signal dispositions.
    pub signal_handlers: Vec<signal::SignalHandlers>,
    /// Pipes.
    pub pipes: Vec<pipe::Pipe>,
    /// Terminals.
    pub terminals: Vec<terminal::Terminal>,
    /// The options of sockets, each set once however many have it, in the order in which they were read.
    pub socket_options: Vec<Vec<socket::SocketOption>>,
    /// Sockets.
    pub sockets: Vec<socket::Socket>,
    /// System V semaphores and message queues.
    pub ipc: ipc::Ipc,
    /// Descriptions of types (BTF).
    pub bpf_types: Vec<bpf::BpfTypes>,
    /// Maps of bpf(2).
    pub bpf_maps: Vec<bpf::BpfMap>,
    /// Seccomp filters.
    pub seccomp_filters: Vec<thread::SeccompFilter>,
}
