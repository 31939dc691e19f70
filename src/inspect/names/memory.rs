//! Memory: protections, attributes of mappings, policies (mmap(2), madvise(2), set_mempolicy(2), getauxval(3)).

use super::{at, bits};
use crate::image::model::memory::{MemoryPolicy, Prot, VmaFlags};

/// Protection as `/proc/PID/maps` has it: `r-x`.
#[must_use]
pub fn prot(prot: Prot) -> String {
    [(Prot::READ, 'r'), (Prot::WRITE, 'w'), (Prot::EXEC, 'x')]
        .into_iter()
        .map(|(bit, letter)| if prot.contains(bit) { letter } else { '-' })
        .collect()
}

/// The names of [`VmaFlags`], in lower case with hyphens.
#[must_use]
pub fn vma_flags(flags: VmaFlags) -> Vec<String> {
    flags.iter_names().map(|(name, _)| name.to_ascii_lowercase().replace('_', "-")).collect()
}

/// A NUMA policy: `bind:0-1`, with its node mask in hexadecimal words, least significant first.
#[must_use]
pub fn policy(policy: &MemoryPolicy) -> String {
    const MODES: [&str; 7] =
        ["default", "preferred", "bind", "interleave", "local", "preferred-many", "weighted-interleave"];
    const FLAGS: [(u64, &str); 3] = [(1 << 15, "static"), (1 << 14, "relative"), (1 << 13, "numa-balancing")];
    let mut text = at(u64::from(policy.mode & 0x1fff), &MODES);
    for flag in bits(u64::from(policy.mode & !0x1fff), &FLAGS) {
        text.push('=');
        text.push_str(&flag);
    }
    for word in &policy.nodes {
        text.push_str(&format!(":{word:#x}"));
    }
    text
}

/// The name of an entry of the auxiliary vector.
#[must_use]
pub fn auxv(kind: u64) -> String {
    let name = match kind {
        0 => "AT_NULL",
        1 => "AT_IGNORE",
        2 => "AT_EXECFD",
        3 => "AT_PHDR",
        4 => "AT_PHENT",
        5 => "AT_PHNUM",
        6 => "AT_PAGESZ",
        7 => "AT_BASE",
        8 => "AT_FLAGS",
        9 => "AT_ENTRY",
        10 => "AT_NOTELF",
        11 => "AT_UID",
        12 => "AT_EUID",
        13 => "AT_GID",
        14 => "AT_EGID",
        15 => "AT_PLATFORM",
        16 => "AT_HWCAP",
        17 => "AT_CLKTCK",
        23 => "AT_SECURE",
        24 => "AT_BASE_PLATFORM",
        25 => "AT_RANDOM",
        26 => "AT_HWCAP2",
        27 => "AT_RSEQ_FEATURE_SIZE",
        28 => "AT_RSEQ_ALIGN",
        29 => "AT_HWCAP3",
        30 => "AT_HWCAP4",
        31 => "AT_EXECFN",
        32 => "AT_SYSINFO",
        33 => "AT_SYSINFO_EHDR",
        51 => "AT_MINSIGSTKSZ",
        _ => return kind.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protections_and_attributes_have_short_names() {
        assert_eq!(prot(Prot::READ | Prot::EXEC), "r-x");
        assert_eq!(prot(Prot::empty()), "---");
        assert_eq!(vma_flags(VmaFlags::GROWS_DOWN | VmaFlags::LOCKED), ["grows-down", "locked"]);
    }

    #[test]
    fn a_policy_has_its_flags_and_nodes() {
        assert_eq!(policy(&MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![3] }), "bind=static:0x3");
    }
}
