//! Parsers of /proc. Each file has a pure `parse` over bytes, which knows no pid, and a thin `read` over a [`TaskDir`].
//!
//! Names, paths and command lines are raw bytes; what a kernel may lack is an `Option`; what a later kernel adds is
//! passed over, save flags and codes, which are handed out so that they can be refused by name.
//! The parsers are our own: the crate `procfs` takes text for UTF-8, cuts names at a colon, and drops flags that it does
//! not know.
//!
//! Architecture invariant: a parser takes text, never a pid. Of the image this module uses the names of addresses,
//! ids and protection bits alone.

pub mod auxv;
pub mod build_id;
pub mod cgroup;
pub mod error;
pub mod fd_link;
pub mod fdinfo;
mod files;
#[doc(hidden)]
pub mod fuzz;
pub mod host;
pub mod limits;
pub mod locks;
pub mod many;
pub mod map_files;
pub mod maps;
pub mod marks;
pub mod mountinfo;
pub mod multicast;
pub mod netlink_table;
pub mod numa_maps;
pub mod path;
mod scan;
pub mod sched;
pub mod smaps;
pub mod stat;
pub mod status;
pub mod strings;
pub mod syscall;
pub mod sysvipc;
mod task_dir;
pub mod tcp_table;
pub mod time_namespace;
pub mod timers;
pub mod values;
pub mod vm_flags;

pub use error::{Error, ParseError, if_present};
pub use files::{Files, ThreadName};
pub use task_dir::{TaskDir, living, processes};
