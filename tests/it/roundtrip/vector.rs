//! Vector registers across a dump.

use crate::support::needs::cpu_has;
use crate::support::{isolated, require_cpu};

#[test]
fn avx512_registers_masks_and_control_words() {
    isolated(|room| {
        require_cpu!("avx512bw", "the CPU has no AVX-512");
        room.survives(room.victim("c-vector", &[]));
    });
}

/// Where the CPU has no tiles there is nothing to lose; that it has none is checked twice.
#[test]
fn amx_tiles_where_the_cpu_has_them() {
    isolated(|room| {
        if cpu_has("amx_tile") {
            return room.survives(room.victim("c-amx", &[]));
        }
        let program = crate::support::victim::program("c-amx");
        let status = std::process::Command::new(program).arg(room.path("unused")).status().expect("c-amx");
        assert_eq!(status.code(), Some(64), "cpuinfo knows no amx_tile, but the victim found tiles");
        crate::support::needs::not_run("this CPU has no AMX tiles");
    });
}
