//! Images with intact checksums that lie: each is refused for the right reason, mapped and streamed.

use super::builder::{Builder, crc32c, header};
use super::sample::*;
use crate::image::{Error, Image, Kind};
use std::io::Cursor;

pub(super) const PAGE: u64 = 4096;

/// What is wrong with an image, once by each way of reading it.
pub(super) fn refused(bytes: &[u8]) -> [Error; 2] {
    let mapped = Image::open(bytes.to_vec()).and_then(|image| image.restore_pages(&Collect::default(), 2));
    let streamed =
        Image::stream(Cursor::new(bytes.to_vec())).and_then(|image| image.restore_pages(&Collect::default(), 2));
    [mapped.expect_err("mapped"), streamed.expect_err("streamed")]
}

macro_rules! assert_refused {
    ($bytes:expr, $pattern:pat $(if $guard:expr)?) => {
        for error in $crate::image::tests::hostile::refused(&$bytes) {
            assert!(matches!(error, $pattern $(if $guard)?), "{error:?}");
        }
    };
}
pub(super) use assert_refused;

/// An image whose only block this is.
pub(super) fn with_block(codec: u16, runs: &[(u64, u64)], content: &[u8], reference: u64) -> Vec<u8> {
    with_blocks(|builder| {
        builder.block(codec, runs, content, reference);
    })
}

pub(super) fn with_blocks(add: impl FnOnce(&mut Builder)) -> Vec<u8> {
    let mut builder = Builder::new(1);
    builder.snapshot(&snapshot());
    add(&mut builder);
    builder.finish(&stats())
}

/// A header with some bytes changed and a valid checksum, before an image.
fn with_header(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = small_image();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&image[..60]);
    image[60..64].copy_from_slice(&crc.to_le_bytes());
    image
}

#[test]
fn what_is_no_image_is_called_so() {
    for bytes in
        [&b"x"[..], b"\x7fELF", &[0; 4096], b"\x89PNG\r\n\x1a\n and so on and so on and so on and so on and so on .."]
    {
        assert_refused!(bytes, Error::NotAnImage);
    }
    assert_refused!(&b""[..], Error::Empty);
}

#[test]
fn a_newer_format_names_the_version_that_reads_it() {
    let mut newer = header(2, 0);
    newer[20..26].copy_from_slice(&[1, 0, 4, 0, 2, 0]);
    let crc = crc32c(&newer[..60]);
    newer[60..64].copy_from_slice(&crc.to_le_bytes());
    for error in refused(&newer) {
        let message = error.to_string();
        assert!(message.contains("use snap version 1.4.2 or newer"), "{message}");
    }
    assert_refused!(with_header(12, &[0x80]), Error::Newer { .. });
}

#[test]
fn headers_of_other_machines_are_refused() {
    assert_refused!(with_header(10, &[183]), Error::Architecture(183));
    assert_refused!(with_header(16, &16384u32.to_le_bytes()), Error::PageSize(16384));
    assert_refused!(with_header(8, &[0]), Error::HeaderDamaged);
    assert_refused!(with_header(40, &[1]), Error::HeaderDamaged);
}

#[test]
fn unknown_sections_are_skipped_or_refused_as_they_ask() {
    for must_understand in [0, 1] {
        let payload = vec![7; 100_001];
        for hashed in [0, 3, payload.len()] {
            let mut builder = Builder::new(0);
            builder.section(0x7000, 9, must_understand, &payload, hashed).snapshot(&snapshot());
            builder.section(0x7001, 9, must_understand, &payload, hashed);
            builder.block(0, &[(ANON, PAGE)], &page(1), 0).section(0x50, 9, must_understand, &payload, hashed);
            let bytes = builder.block(0, &[(ANON + PAGE, PAGE)], &page(2), 0).finish(&stats());
            if must_understand == 1 {
                assert_refused!(bytes, Error::Newer { .. });
            } else {
                let image = Image::open(bytes.clone()).unwrap();
                assert_eq!(image.snapshot(), &snapshot());
                assert_eq!(image.verify().unwrap(), stats());
                assert_eq!(Image::stream(Cursor::new(bytes)).unwrap().verify().unwrap(), stats());
            }
        }
    }
}

#[test]
fn a_skipped_section_is_still_checked() {
    let mut builder = Builder::new(0);
    builder.snapshot(&snapshot());
    let at = builder.bytes.len() + 32;
    let mut bytes = builder.section(0x7000, 1, 0, &[7; 100], 0).finish(&stats());
    bytes[at] ^= 1;
    assert_refused!(bytes, Error::Checksum { .. });
}

#[test]
fn newer_and_impossible_section_versions_and_flags_are_refused() {
    let payload = postcard::to_stdvec(&snapshot().inventory).unwrap();
    let built = |version, flags, hashed| Builder::new(0).section(1, version, flags, &payload, hashed).finish(&stats());
    assert_refused!(built(2, 1, payload.len()), Error::Newer { .. });
    assert_refused!(built(0, 1, payload.len()), Error::SectionDamaged { .. });
    assert_refused!(built(1, 0, payload.len()), Error::SectionDamaged { .. });
    assert_refused!(built(1, 3, payload.len()), Error::SectionDamaged { .. });
    assert_refused!(built(1, 1, 0), Error::SectionDamaged { .. });
}

/// Adds one section of the sample's metadata.
fn add(builder: &mut Builder, kind: u16) {
    let s = snapshot();
    match kind {
        1 => builder.metadata(1, &s.inventory),
        2 => builder.metadata(2, &s.processes),
        3 => builder.metadata(3, &s.mms),
        4 => builder.metadata(4, &s.shared_memory),
        5 => builder.metadata(5, &s.files),
        6 => builder.metadata(6, &s.descriptions),
        7 => builder.metadata(7, &s.fd_tables),
        8 => builder.metadata(8, &s.fs_contexts),
        9 => builder.metadata(9, &s.pipes),
        10 => builder.metadata(10, &s.seccomp_filters),
        11 => builder.metadata(11, &s.zombies),
        12 => builder.metadata(12, &s.terminals),
        13 => builder.metadata(13, &(&s.socket_options, &s.sockets)),
        14 => builder.metadata(14, &s.signal_handlers),
        24 => builder.metadata(24, &s.ipc),
        25 => builder.metadata(25, &(&s.bpf_types, &s.bpf_maps)),
        other => builder.metadata(other, &stats()),
    };
}

/// An image with these sections of metadata in this order.
fn in_order(kinds: &[u16]) -> Vec<u8> {
    let mut builder = Builder::new(0);
    kinds.iter().for_each(|&kind| add(&mut builder, kind));
    builder.finish(&stats())
}

#[test]
fn sections_out_of_order_twice_or_missing_are_refused() {
    let all: Vec<u16> = (1..=14).chain([24, 25]).collect();
    for i in 0..all.len() {
        let without: Vec<u16> = all.iter().copied().filter(|&kind| kind != all[i]).collect();
        assert_refused!(in_order(&without), Error::Missing { kind, .. } if kind as u16 == all[i]);
        let mut twice = all.clone();
        twice.insert(i, all[i]);
        assert_refused!(in_order(&twice), Error::Duplicate { kind, .. } if kind as u16 == all[i]);
        let mut late = all.clone();
        late.push(all[i]);
        assert_refused!(in_order(&late), Error::OutOfOrder { .. } | Error::Duplicate { .. });
        for j in i + 1..all.len() {
            let mut swapped = all.clone();
            swapped.swap(i, j);
            assert_refused!(in_order(&swapped), Error::OutOfOrder { .. } | Error::Missing { .. });
        }
    }
    let mut twice = all.clone();
    twice.push(0x200);
    assert_refused!(in_order(&twice), Error::Duplicate { kind: Kind::Stats, .. });
}

#[test]
fn pages_after_the_statistics_are_refused() {
    let mut builder = Builder::new(0);
    builder.snapshot(&snapshot()).metadata(0x200, &stats());
    let bytes = builder.block(0, &[(ANON, PAGE)], &page(1), 0).finish(&stats());
    assert_refused!(bytes, Error::OutOfOrder { kind: Kind::PageBlock, .. });
}

#[test]
fn exchanged_blocks_are_found_by_the_digest() {
    let bytes = with_blocks(|b| {
        b.block(0, &[(ANON, PAGE)], &page(1), 0);
        b.block(0, &[(ANON + PAGE, PAGE)], &page(2), 0);
        b.block(0, &[(ANON + 2 * PAGE, PAGE)], &page(3), 0);
    });
    let at = |seed| bytes.windows(4096).position(|window| window == page(seed)).unwrap();
    let (second, third) = (at(2), at(3));
    let mut exchanged = bytes.clone();
    exchanged[second - 4096..second + 4096].copy_from_slice(&bytes[third - 4096..third + 4096]);
    exchanged[third - 4096..third + 4096].copy_from_slice(&bytes[second - 4096..second + 4096]);
    let [mapped, streamed] = refused(&exchanged);
    assert!(matches!(mapped, Error::Digest), "{mapped:?}");
    assert!(matches!(streamed, Error::Inconsistent("the index")), "{streamed:?}");
}

#[test]
fn a_block_of_another_image_is_found_by_the_digest() {
    let image = |seed| with_block(0, &[(ANON, PAGE)], &page(seed), 0);
    let (mut mine, other) = (image(1), image(2));
    let content = mine.windows(4096).position(|window| window == page(1)).unwrap();
    let stats_at = content + 4096;
    let first_difference = mine.iter().zip(&other).position(|(a, b)| a != b).unwrap();
    mine[first_difference..stats_at].copy_from_slice(&other[first_difference..stats_at]);
    assert_refused!(mine, Error::Digest);
}

/// A section header with a valid checksum and no payload behind it.
fn claiming(kind: u16, length: u64) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(kind.to_le_bytes());
    out.extend([1, 0, 1, 0, 0, 0]);
    out.extend(length.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend([0; 4]);
    let crc = crc32c(&out);
    out.extend(crc.to_le_bytes());
    out
}

#[test]
fn hostile_lengths_are_refused() {
    for length in [1, 1 << 20, 3 << 30, 1 << 40, u64::MAX - 40, u64::MAX] {
        let mut bytes = header(1, 0);
        bytes.extend(claiming(1, length));
        assert_refused!(bytes, Error::Truncated { .. } | Error::TooLong { .. });
        let mut builder = Builder::new(0);
        builder.snapshot(&snapshot());
        builder.bytes.extend(claiming(0x100, length));
        assert_refused!(
            builder.bytes,
            Error::Truncated { .. } | Error::TooLong { .. } | Error::Block { .. } | Error::Checksum { .. }
        );
    }
}

#[test]
fn hostile_counts_and_rests_do_not_decode() {
    for kind in 1..=10u16 {
        for payload in [
            &[0xff; 10][..],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            let mut builder = Builder::new(0);
            (1..kind).for_each(|before| add(&mut builder, before));
            let bytes = builder.section(kind, 1, 1, payload, payload.len()).finish(&stats());
            assert_refused!(bytes, Error::Decode { kind: found, .. } if found as u16 == kind);
        }
    }
    let mut builder = Builder::new(0);
    let mut payload = postcard::to_stdvec(&snapshot().inventory).unwrap();
    payload.push(0);
    let bytes = builder.section(1, 1, 1, &payload, payload.len()).finish(&stats());
    assert_refused!(bytes, Error::Decode { kind: Kind::Inventory, .. });
}

#[test]
fn a_trailer_or_index_about_something_else_is_refused() {
    for (stats_off, index_off) in [(8, 0), (0, 8), (u64::MAX, 0), (0, u64::MAX), (1 << 40, 0)] {
        let mut builder = Builder::new(0);
        builder.snapshot(&snapshot());
        let stats_at = builder.bytes.len() as u64;
        builder.metadata(0x200, &stats());
        let index_at = builder.bytes.len() as u64;
        builder.section(0x201, 1, 1, &[0], 1);
        let bytes = builder.trailer(stats_at.wrapping_add(stats_off), index_at.wrapping_add(index_off));
        assert!(refused(&bytes).iter().all(|e| !e.to_string().is_empty()));
    }
    let mut builder = Builder::new(0);
    builder.snapshot(&snapshot());
    builder.block(0, &[(ANON, PAGE)], &page(1), 0);
    let stats_at = builder.bytes.len() as u64;
    builder.metadata(0x200, &stats());
    let index_at = builder.bytes.len() as u64;
    builder.section(0x201, 1, 1, &[0], 1);
    assert_refused!(builder.trailer(stats_at, index_at), Error::Inconsistent("the index"));
}

#[test]
fn statistics_hidden_in_another_section_are_refused() {
    let mut hidden = Builder::new(0);
    hidden.metadata(0x200, &stats());
    let hidden = hidden.bytes.split_off(64);
    let mut builder = Builder::new(0);
    builder.snapshot(&snapshot());
    let hidden_at = builder.bytes.len() as u64 + 32;
    builder.section(0x7000, 1, 0, &hidden, 0).metadata(0x200, &stats());
    let index_at = builder.bytes.len() as u64;
    builder.section(0x201, 1, 1, &[0], 1);
    assert_refused!(builder.trailer(hidden_at, index_at), Error::Inconsistent("the trailer"));
}
