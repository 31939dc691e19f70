//! Ctrl-C during a dump: a flag that [`run`](super::run) polls wherever it waits, and answers with
//! [`Error::Interrupted`](super::Error::Interrupted) after the target is thawed.

pub use crate::sys::interrupt::{catch, requested};
