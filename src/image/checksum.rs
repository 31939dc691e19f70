//! Joining CRC-32C checksums: that of a block's head, which is known last, with that of its content, taken while it was in the cache.
//!
//! A checksum is a polynomial over GF(2). To put `len` bytes behind a string multiplies its checksum by x^(8·len) modulo the
//! generator. The crc32c crate does this with matrices, which takes a quarter of a millisecond for each block.

/// The generator of CRC-32C, bit-reversed: bit 31 stands for x^0.
const GENERATOR: u32 = 0x82f6_3b78;

/// One, the neutral element of [`multiply`].
const ONE: u32 = 1 << 31;

/// x^(8·2^k) at place k.
const SHIFTS: [u32; 32] = shifts();

/// The checksum of two strings, one after the other, from the checksum of each and the length of the second.
pub fn combine(first: u32, second: u32, second_len: u32) -> u32 {
    let places = (0..32).filter(|k| second_len & 1 << k != 0);
    let shift = places.fold(ONE, |shift, k| multiply(shift, SHIFTS[k as usize]));
    multiply(first, shift) ^ second
}

const fn shifts() -> [u32; 32] {
    let mut shifts = [0; 32];
    // x^8.
    let mut shift = ONE >> 8;
    let mut k = 0;
    while k < 32 {
        shifts[k] = shift;
        shift = multiply(shift, shift);
        k += 1;
    }
    shifts
}

/// The product of two polynomials modulo the generator.
const fn multiply(a: u32, b: u32) -> u32 {
    let (mut a, mut b, mut product) = (a, b, 0);
    while a != 0 {
        if a & ONE != 0 {
            product ^= b;
        }
        a <<= 1;
        b = if b & 1 != 0 { b >> 1 ^ GENERATOR } else { b >> 1 };
    }
    product
}

#[cfg(test)]
mod tests {
    use super::combine;
    use crc32c::crc32c;

    #[test]
    fn joined_checksums_are_those_of_the_whole() {
        let bytes: Vec<u8> = (0..3 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for len in [0, 1, 2, 7, 8, 100, 4095, 4096, 65_536, 99_999, 1 << 20, (1 << 20) + 1, 2 << 20] {
            for at in [0, 1, 80, 4064, 500_000] {
                let (first, second) = (&bytes[..at], &bytes[at..at + len]);
                assert_eq!(
                    combine(crc32c(first), crc32c(second), len as u32),
                    crc32c(&bytes[..at + len]),
                    "{at} {len}"
                );
            }
        }
    }
}
