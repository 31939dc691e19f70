//! Any bytes as any file of /proc: no parser may panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| snap::proc::fuzz::fuzz_all(data));
