//! The tracer against living programs: whatever it does, and wherever it is killed, they go on unharmed.

mod deputy;
mod freeze;
mod kill;
mod session;
mod twin;
mod victim;
