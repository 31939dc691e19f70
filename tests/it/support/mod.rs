//! The harness: a pid namespace for each test, victims, runs of `snap`, and the facts of /proc by which they are compared.

pub mod code;
pub mod exchange;
pub mod facts;
pub mod half_closed;
pub mod huge_pages;
pub mod namespace;
pub mod needs;
pub mod network;
pub mod room;
pub mod snap;
pub mod victim;
pub mod wait;

pub use facts::Facts;
pub use huge_pages::HugePages;
pub use namespace::{isolated, isolated_as, isolated_for};
pub(crate) use needs::{only_once, require, require_cpu, require_kernel, require_root};
pub use room::Room;
pub use victim::Victim;
