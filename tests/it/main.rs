//! The integration tests: one binary, arranged by kind and by law, against the command line alone.

mod cli;
mod faults;
mod harness;
mod programs;
mod promise;
mod roundtrip;
mod tree;

mod structure;
mod support;
