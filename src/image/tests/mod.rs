//! Tests of the container as a whole.

mod blocks;
mod builder;
mod copied;
mod damage;
mod golden;
mod hostile;
mod properties;
mod roundtrip;
pub mod sample;
