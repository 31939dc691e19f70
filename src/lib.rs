//! `snap` freezes a running Linux process tree from outside, writes it into one image, and restores it later,
//! elsewhere, or many times.
//!
//! ```text
//! kernel --collect--> facts --> model --> image file          (dump)
//! image file --> model --plan--> ordered steps --apply--> kernel   (restore)
//! image file --> model --> report                              (inspect; touches no kernel interface)
//! ```
#![deny(unsafe_code)]

pub mod blocker;
pub mod cli;
pub mod dump;
pub mod fault;
pub mod image;
pub mod inspect;
pub mod parasite;
pub mod proc;
pub mod progress;
pub mod resources;
pub mod restore;
pub mod sys;
pub mod tracer;
