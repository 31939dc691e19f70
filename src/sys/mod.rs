//! The unsafe floor of the host side: thin, typed wrappers of kernel interfaces.

pub mod affinity;
pub mod aio;
pub mod arena;
pub mod audit;
pub mod blob;
pub mod bpf;
pub mod cpuid;
pub mod descriptor;
pub mod elsewhere;
pub mod event;
pub mod file_map;
pub mod inherited;
pub mod interrupt;
pub mod kcmp;
pub mod membarrier;
pub mod mqueue;
pub mod namespace;
pub mod nftables;
pub mod open;
pub mod own;
pub mod packet_diag;
pub mod packet_ring;
pub mod pagemap;
pub mod pidfd;
pub mod plain_task;
pub mod probe;
pub mod process_vm;
pub mod ptrace;
pub mod ptrace_info;
pub mod regset;
pub mod sched;
pub mod skeleton;
pub mod sock_diag;
pub mod socket;
pub mod socket_message;
pub mod sysv;
pub mod task;
pub mod tcp;
pub mod terminal;
pub mod tun;
pub mod undo;
pub mod userfaultfd;
pub mod wait;
pub mod watch;

/// What a system call gives: its value, or why it failed.
pub type Result<T> = std::result::Result<T, nix::errno::Errno>;

/// The value of a raw system call, whose failure libc reports as -1 and `errno`.
fn checked(value: libc::c_long) -> Result<usize> {
    if value == -1 { Err(nix::errno::Errno::last()) } else { Ok(value as usize) }
}
