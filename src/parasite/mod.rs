//! Controller side of the code that runs in targets and in copies of them.

pub mod aio;
pub mod code;
pub mod copiers;
