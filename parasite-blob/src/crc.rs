//! CRC-32C by the instruction of SSE 4.2, three pages at a time: each step of one has to wait for the step before.

use core::arch::asm;
use protocol::PAGE;

const WORDS: usize = PAGE as usize / 8;

/// The generator of CRC-32C, bit-reversed: bit 31 stands for x^0.
const GENERATOR: u32 = 0x82f6_3b78;

/// What a checksum is multiplied with when a page is put behind it: x^(8 * PAGE).
const BEHIND: u32 = {
    // x^8, squared until the exponent is that of a page.
    let mut shift = 1 << 23;
    let mut bytes = 1;
    while bytes < PAGE {
        shift = multiply(shift, shift);
        bytes *= 2;
    }
    shift
};

/// The checksum of pages, one after the other.
pub struct Checksum {
    state: u32,
    waiting: usize,
    first: *const u64,
    second: *const u64,
}

impl Checksum {
    /// That of nothing.
    pub const fn new() -> Self {
        Self { state: u32::MAX, waiting: 0, first: core::ptr::null(), second: core::ptr::null() }
    }

    /// Adds a page.
    ///
    /// # Safety
    /// It can be read and is aligned, now and until the end.
    pub unsafe fn add(&mut self, page: *const u64) {
        match self.waiting {
            0 => (self.waiting, self.first) = (1, page),
            1 => (self.waiting, self.second) = (2, page),
            _ => {
                // SAFETY: the caller vouches for all three.
                self.state = unsafe { three(self.state, self.first, self.second, page) };
                self.waiting = 0;
            }
        }
    }

    /// That of all pages.
    ///
    /// # Safety
    /// As for [`Self::add`].
    pub unsafe fn finish(self) -> u32 {
        let mut state = self.state;
        // SAFETY: the caller vouches for the pages that wait.
        unsafe {
            if self.waiting > 0 {
                state = one(state, self.first);
            }
            if self.waiting > 1 {
                state = one(state, self.second);
            }
        }
        !state
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

unsafe fn one(state: u32, page: *const u64) -> u32 {
    let mut state = u64::from(state);
    for at in 0..WORDS {
        // SAFETY: within the page.
        state = unsafe { step(state, page.add(at).read()) };
    }
    state as u32
}

unsafe fn three(state: u32, first: *const u64, second: *const u64, third: *const u64) -> u32 {
    let (mut a, mut b, mut c) = (u64::from(state), 0, 0);
    for at in 0..WORDS {
        // SAFETY: within the pages.
        unsafe {
            a = step(a, first.add(at).read());
            b = step(b, second.add(at).read());
            c = step(c, third.add(at).read());
        }
    }
    multiply(multiply(a as u32, BEHIND) ^ b as u32, BEHIND) ^ c as u32
}

#[inline(always)]
unsafe fn step(state: u64, word: u64) -> u64 {
    let mut state = state;
    // SAFETY: the host side runs this only where the CPU has the instruction.
    unsafe {
        asm!("crc32 {state}, {word}", state = inout(reg) state, word = in(reg) word,
             options(pure, nomem, nostack, preserves_flags));
    }
    state
}

/// The product of two polynomials modulo the generator, without a branch that depends on them.
const fn multiply(a: u32, b: u32) -> u32 {
    let (mut a, mut b, mut product) = (a, b, 0);
    let mut bits = 0;
    while bits < 32 {
        product ^= b & (a >> 31).wrapping_neg();
        a <<= 1;
        b = b >> 1 ^ GENERATOR & (b & 1).wrapping_neg();
        bits += 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit.
    fn plain(bytes: &[u8]) -> u32 {
        let step = |crc: u32, byte: &u8| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ GENERATOR & (crc & 1).wrapping_neg())
        };
        !bytes.iter().fold(u32::MAX, step)
    }

    #[test]
    fn any_number_of_pages() {
        if !std::is_x86_feature_detected!("sse4.2") {
            return;
        }
        let words: Vec<u64> = (0..8 * WORDS as u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(plain(b"123456789"), 0xe306_9283);
        for pages in 0..=8 {
            let mut sum = Checksum::new();
            for page in words.chunks_exact(WORDS).take(pages) {
                // SAFETY: the page is a slice of words.
                unsafe { sum.add(page.as_ptr()) };
            }
            // SAFETY: as before.
            assert_eq!(unsafe { sum.finish() }, plain(&bytes[..pages * PAGE as usize]), "{pages}");
        }
    }
}
