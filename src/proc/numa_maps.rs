//! `/proc/PID/numa_maps`: the memory policy of each mapping (fs/proc/task_mmu.c, `show_numa_map`; mm/mempolicy.c,
//! `mpol_to_str`).

use super::error::{Error, ParseError};
use super::files::Files;
use super::scan;
use super::task_dir::TaskDir;
use crate::image::model::address::Addr;

const KIND: &str = "numa_maps";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaMapping {
    /// First address of the mapping.
    pub start: Addr,
    /// Its policy, or that of the task where the mapping has none.
    pub policy: Policy,
}

/// A memory policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// MPOL_* with MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES as set_mempolicy(2) takes them.
    pub mode: u32,
    /// Nodes, bit N of word N/64; empty for none.
    pub nodes: Vec<u64>,
}

impl Policy {
    /// Whether it is MPOL_DEFAULT.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.mode == 0
    }
}

const MODES: [(&[u8], u32); 7] = [
    (b"default", 0),
    (b"prefer", 1),
    (b"bind", 2),
    (b"interleave", 3),
    (b"local", 4),
    (b"prefer (many)", 5),
    (b"weighted interleave", 6),
];

/// `=static`, `=relative`; `=balancing` is MPOL_F_NUMA_BALANCING and may stand behind a bar (`static|balancing`).
const MODE_FLAGS: [(&[u8], u32); 3] = [(b"static", 1 << 15), (b"relative", 1 << 14), (b"balancing", 1 << 13)];

/// No machine has more nodes (MAX_NUMNODES is 1 << CONFIG_NODES_SHIFT, at most 10).
const MAX_NODES: u32 = 1024;

/// Reads the policies of a process in ascending order of addresses.
///
/// # Errors
/// [`Error::Absent`] on a kernel without NUMA; else see [`Error`].
pub fn read(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Vec<NumaMapping>, Error> {
    task.parse("numa_maps", buffer, parse)
}

/// Parses the whole file.
///
/// # Errors
/// Names the line; a policy that is not known is an error.
pub fn parse(text: &[u8]) -> Result<Vec<NumaMapping>, ParseError> {
    scan::lines(text)
        .map(|(number, line)| {
            let fail = |expected| ParseError::new(KIND, number, expected, line);
            let (start, rest) = scan::split_once(line, b' ').ok_or_else(|| fail("address"))?;
            Ok(NumaMapping {
                start: Addr(scan::hex(start).ok_or_else(|| fail("address"))?),
                policy: policy(rest).ok_or_else(|| fail("memory policy"))?,
            })
        })
        .collect()
}

/// `bind=static:0-1,3 file=...`: two names of modes hold a blank, so that the longest name that fits is taken.
fn policy(text: &[u8]) -> Option<Policy> {
    let fits = |rest: &[u8]| matches!(rest.first(), None | Some(b' ' | b':' | b'='));
    let (rest, mode) = MODES
        .iter()
        .rev()
        .filter_map(|(name, mode)| text.strip_prefix(*name).map(|rest| (rest, *mode)))
        .find(|(rest, _)| fits(rest) && !rest.starts_with(b" (many)"))?;
    let word = rest.split(|&byte| byte == b' ').next().unwrap_or_default();
    let (flags, nodes) = match scan::split_once(word, b':') {
        Some((flags, nodes)) => (flags, node_list(nodes)?),
        None => (word, Vec::new()),
    };
    let mode = match flags.strip_prefix(b"=") {
        Some(names) => names.split(|&byte| byte == b'|').try_fold(mode, |mode, name| Some(mode | mode_flag(name)?))?,
        None if flags.is_empty() => mode,
        None => return None,
    };
    Some(Policy { mode, nodes })
}

fn mode_flag(name: &[u8]) -> Option<u32> {
    MODE_FLAGS.iter().find(|flag| flag.0 == name).map(|flag| flag.1)
}

/// `0-1,3` as a bitmap.
fn node_list(text: &[u8]) -> Option<Vec<u64>> {
    let mut words = Vec::new();
    if text.is_empty() {
        return Some(words);
    }
    for part in text.split(|&byte| byte == b',') {
        let (first, last) = scan::split_once(part, b'-').unwrap_or((part, part));
        let (first, last): (u32, u32) = scan::decimal(first).zip(scan::decimal(last))?;
        for node in first..=last.min(MAX_NODES) {
            let word = node as usize / 64;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (node % 64);
        }
        if last >= MAX_NODES {
            return None;
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Option<Policy> {
        parse(format!("1000 {text}\n").as_bytes()).ok().map(|mut maps| maps.remove(0).policy)
    }

    #[test]
    fn policies_of_a_real_program() {
        let maps = parse(include_bytes!("../../fixtures/proc/mappings/numa_maps")).unwrap();
        assert_eq!(maps.len(), 45);
        let set: Vec<_> = maps.into_iter().filter(|mapping| !mapping.policy.is_default()).collect();
        let mapping = |start, mode| NumaMapping { start: Addr(start), policy: Policy { mode, nodes: vec![1] } };
        let expected =
            [mapping(0x100_0140_0000, 2), mapping(0x100_0150_0000, 1 | 1 << 15), mapping(0x100_0160_0000, 3)];
        assert_eq!(set, expected);
    }

    #[test]
    fn every_mode_and_flag() {
        let policy = |mode, nodes: &[u64]| Some(Policy { mode, nodes: nodes.to_vec() });
        assert_eq!(one("prefer (many):0-1,64 anon=1"), policy(5, &[3, 1]));
        assert_eq!(one("weighted interleave=relative:2 file=/x"), policy(6 | 1 << 14, &[4]));
        assert_eq!(one("bind=static|balancing:0"), policy(2 | 1 << 15 | 1 << 13, &[1]));
        assert_eq!(one("local stack anon=3"), policy(4, &[]));
        assert_eq!(one("bind:0-4294967295"), None);
        assert_eq!(one("bind=odd:0"), None);
        assert_eq!(one("novel:0"), None);
        assert_eq!(one("binder"), None);
    }
}
