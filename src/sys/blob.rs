//! The interpreter blob: code that runs at any address in any process; see `parasite-blob`.

/// The flat bytes. Entry at byte 0 with the address of a [`protocol::Task`] in rdi; needs 1 KiB of stack.
pub static INTERPRETER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/interpreter.bin"));
