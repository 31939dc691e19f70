//! Stopping a process tree from outside, looking at it, and letting it go on as if nothing had happened.
//!
//! ```text
//! FrozenTree::freeze --> threads() --> RemoteSession::open .. close --> thaw | kill | leave_stopped
//! ```
//!
//! Architecture invariant: at every instant between two instructions of ours a SIGKILL may end us, and the target goes on
//! unharmed. Architecture invariant: ptrace(2) belongs to one OS thread, so nothing here is `Send`.

mod batch;
mod call;
mod deputy;
mod driver;
mod error;
mod family;
mod freeze;
mod gathering;
mod inject;
mod memory;
mod padding;
mod patience;
mod reaping;
mod remainder;
mod rseq;
mod seccomp;
mod session;
mod shorten;
mod stub;
mod tasks;
mod thaw;
mod thread;
mod tree;
mod twin;
mod unread;
mod urgency;
mod vdso;

pub use batch::{ANSWERS, Question};
pub use call::{Blocked, Restart, made_again};
pub use deputy::{Deputy, Fate};
pub use error::Error;
pub use family::descendants;
pub use freeze::{FreezeOptions, Scope};
pub use gathering::{Gathering, WORDS};
pub use memory::{Memory, Plain, RemotePtr};
pub use remainder::{MESSAGE_LEN, MOST_COUNT, Pieces, Remainder, Rest, Stream, StreamPart, StreamPlace, Vector, Way};
pub use seccomp::{Call, Policy};
pub use session::{RemoteSession, SCRATCH, let_out};
pub use shorten::{Form, Shortened, Slots, milliseconds, put};
pub use tasks::permission_hint;
pub use thread::{Stop, StoppedThread};
pub use tree::{FrozenTree, Process};
pub use twin::{Child, Twin};
pub use unread::{Argument, is_unread};
pub use urgency::Urgency;
