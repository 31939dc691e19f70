//! Makes the checksums of a mutated image fit again, so that what lies behind them is reached.
//!
//! Written from `docs/image-format.md`; shares no code with the reader.

const HEADER_LEN: usize = 64;
const SECTION_LEN: usize = 32;
const TRAILER_KIND: u16 = 0x202;
const TRAILER_LEN: usize = 64;

/// The image with every checksum and digest right, as far as its lengths lead.
pub fn checksums(data: &[u8]) -> Vec<u8> {
    let mut image = data.to_vec();
    let length = image.len() as u64;
    let Some((header, mut rest)) = image.split_at_mut_checked(HEADER_LEN) else { return image };
    seal(header, 60);
    let mut digest = blake3::Hasher::new();
    digest.update(header);
    while rest.len() >= SECTION_LEN {
        let (section, after) = rest.split_at_mut(SECTION_LEN);
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| section[at + i]));
        let (claimed, hashed) = (number(8), number(16));
        let kind = u16::from_le_bytes([section[0], section[1]]);
        let Some(len) = usize::try_from(claimed).ok().filter(|&len| len <= after.len()) else {
            seal(section, 28);
            break;
        };
        let payload = &mut after[..len];
        if kind == TRAILER_KIND && len == TRAILER_LEN {
            payload[24..32].copy_from_slice(&length.to_le_bytes());
            payload[32..].copy_from_slice(digest.finalize().as_bytes());
        }
        section[24..28].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        seal(section, 28);
        digest.update(section);
        digest.update(&payload[..usize::try_from(hashed).map_or(len, |hashed| hashed.min(len))]);
        rest = after.get_mut(len.next_multiple_of(8)..).unwrap_or_default();
    }
    image
}

/// Puts the checksum of what stands before `at` there.
fn seal(bytes: &mut [u8], at: usize) {
    let crc = crc32c::crc32c(&bytes[..at]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}
