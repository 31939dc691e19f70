//! Capabilities and securebits (capabilities(7)).

use super::bits;

const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The names of the capabilities in a set, without `CAP_` and in lower case.
#[must_use]
pub fn capabilities(set: u64) -> Vec<String> {
    (0..64)
        .filter(|bit| set >> bit & 1 == 1)
        .map(|bit| CAPABILITIES.get(bit).map_or_else(|| bit.to_string(), |&name| name.to_owned()))
        .collect()
}

/// A set for people: where most are in it, those that are not.
#[must_use]
pub fn capabilities_text(set: u64) -> String {
    const ALL: u64 = (1 << CAPABILITIES.len()) - 1;
    match set {
        0 => "none".to_owned(),
        ALL => "all".to_owned(),
        _ if set.count_ones() > 24 && set & !ALL == 0 => format!("all but {}", capabilities(ALL & !set).join(" ")),
        _ => capabilities(set).join(" "),
    }
}

/// SECBIT_* of prctl(2) PR_GET_SECUREBITS.
#[must_use]
pub fn securebits(value: u32) -> Vec<String> {
    bits(
        u64::from(value),
        &[
            (1 << 0, "noroot"),
            (1 << 1, "noroot-locked"),
            (1 << 2, "no-setuid-fixup"),
            (1 << 3, "no-setuid-fixup-locked"),
            (1 << 4, "keep-caps"),
            (1 << 5, "keep-caps-locked"),
            (1 << 6, "no-cap-ambient-raise"),
            (1 << 7, "no-cap-ambient-raise-locked"),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_name_the_smaller_part() {
        assert_eq!(capabilities_text(0), "none");
        assert_eq!(capabilities_text((1 << 41) - 1), "all");
        assert_eq!(capabilities_text((1 << 41) - 1 - (1 << 24)), "all but sys_resource");
        assert_eq!(capabilities(1 << 40 | 1 << 50), ["checkpoint_restore", "50"]);
    }
}
