//! NUMA policies of mappings, asked of the process itself by get_mempolicy(2).
//!
//! `numa_maps` tells them all at once, but counts the pages of every node, for which the kernel walks all page tables; and where a mapping has no policy of
//! its own, it names that of the task.

use super::CollectError;
use super::ask::Asker;
use crate::image::model::address::Addr;
use crate::image::model::id::Tid;
use crate::image::model::memory::MemoryPolicy;
use crate::tracer;
use std::collections::HashMap;

/// Most nodes that a policy can name.
const NODES: usize = 1024;
/// Words of one answer: the mode, and the nodes.
const WORDS: usize = 1 + NODES / 64;
/// Answers for which there is room.
const TOGETHER: usize = tracer::SCRATCH as usize / (WORDS * 8);
const MPOL_F_ADDR: u64 = 2;

/// The policies of those mappings that have one, by start address. Empty on a kernel without NUMA.
///
/// # Errors
/// When a call could not be made.
pub fn ask(asker: &mut Asker<'_, '_>, tid: Tid, starts: &[Addr]) -> Result<HashMap<u64, MemoryPolicy>, CollectError> {
    let mut policies = HashMap::new();
    let mut answers = Vec::new();
    // The page of vsyscall is no mapping, and lies where no program has one.
    let starts: Vec<Addr> = starts.iter().copied().filter(|start| start.0 >> 63 == 0).collect();
    for starts in starts.chunks(TOGETHER) {
        answers.clear();
        answers.resize(starts.len() * WORDS * 8, 0);
        asker.fill(0, &answers)?;
        for (start, slot) in starts.iter().zip((0..).step_by(WORDS * 8)) {
            let at = asker.scratch(slot).0;
            let args = [at, at + 8, NODES as u64 + 1, start.0, MPOL_F_ADDR, 0];
            match asker.call(tid, "get_mempolicy", libc::SYS_get_mempolicy, args)? {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return Ok(HashMap::new()),
                Err(error) => return Err(CollectError::at(tid, "get_mempolicy")(error)),
            }
        }
        asker.read(0, &mut answers)?;
        for (start, answer) in starts.iter().zip(answers.as_chunks::<{ WORDS * 8 }>().0) {
            policies.extend(policy(answer).map(|policy| (start.0, policy)));
        }
    }
    Ok(policies)
}

/// `None` for the default.
fn policy(answer: &[u8; WORDS * 8]) -> Option<MemoryPolicy> {
    let (words, _) = answer.as_chunks::<8>();
    let mode = u64::from_le_bytes(words[0]) as u32;
    let mut nodes: Vec<u64> = words[1..].iter().map(|word| u64::from_le_bytes(*word)).collect();
    nodes.truncate(nodes.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1));
    (mode != 0).then_some(MemoryPolicy { mode, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_mode_and_nodes_without_zeros_at_the_end() {
        let mut answer = [0; WORDS * 8];
        assert_eq!(policy(&answer), None);
        answer[0] = 2;
        assert_eq!(policy(&answer), Some(MemoryPolicy { mode: 2, nodes: vec![] }));
        answer[16] = 5;
        assert_eq!(policy(&answer), Some(MemoryPolicy { mode: 2, nodes: vec![0, 5] }));
    }
}
