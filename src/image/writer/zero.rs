//! Finding pages that are all zero, which are most pages that hold nothing.

/// Bytes that are looked at together: the compiler makes a few vector instructions of them.
const STEP: usize = 128;

/// Whether all bytes of a page are zero. Leaves at the first step that is not: data is told from zero within a cache line or two.
pub fn is_zero(page: &[u8]) -> bool {
    let (steps, rest) = page.as_chunks::<STEP>();
    steps.iter().all(step_is_zero) && rest.iter().all(|&b| b == 0)
}

fn step_is_zero(step: &[u8; STEP]) -> bool {
    let (words, _) = step.as_chunks::<8>();
    words.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word)) == 0
}
