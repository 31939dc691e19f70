//! The command line: what each command does, says, and returns.

mod check;
mod demo;
mod dump;
mod foreground;
mod hostile;
mod inspect;
mod privilege;
mod refusals;
mod restore;
mod stream;
mod usage;
mod vdso;
