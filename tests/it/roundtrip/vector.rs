//! What a thread has beside its general registers: vector registers across a dump, and the shadow stack, which is refused.

use crate::support::needs::cpu_has;
use crate::support::{Room, isolated, require_cpu};

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
        if has(room, "amx_tile", "c-amx") {
            room.survives(room.victim("c-amx", &[]));
            room.survives(room.victim("c-amx", &["permission"]));
        }
    });
}

#[test]
fn a_shadow_stack_is_refused_where_the_cpu_has_them() {
    isolated(|room| {
        if has(room, "user_shstk", "c-shadow") {
            room.refuses(room.victim("c-shadow", &[]), &["shadow stack", "shadow stacks are not supported"]);
        }
    });
}

/// Whether the CPU has what a victim uses. Where /proc/cpuinfo does not tell of it, the victim must not find it either (it exits with 64), and
/// the test was not run.
fn has(room: &Room, flag: &str, victim: &str) -> bool {
    if cpu_has(flag) {
        return true;
    }
    let program = crate::support::victim::program(victim);
    let status = std::process::Command::new(program).arg(room.path("unused")).status().expect("a victim");
    assert_eq!(status.code(), Some(64), "cpuinfo knows no {flag}, but {victim} has found it");
    crate::support::needs::not_run(&format!("this CPU has no {flag}"));
    false
}
