//! The end of `snap restore` in the foreground, where the program was ended by a signal: it ends by the same one.

pub use crate::sys::interrupt::die_by;
