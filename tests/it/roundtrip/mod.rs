//! Dump, kill, restore, verify; dump, go on, verify, restore later: one file per kind of state.

mod blocked;
mod cgroup;
mod clocks;
mod copying;
mod credentials;
mod debug;
mod dispatch;
mod files;
mod go;
mod idle;
mod memory;
mod pipe;
mod robust;
mod rseq;
mod scheduling;
mod seccomp;
mod settings;
mod signals;
mod sleeper;
mod socket;
mod stopped;
mod tcp;
mod terminal;
mod threads;
mod timers;
mod vector;
