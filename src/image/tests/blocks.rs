//! Blocks with intact checksums that lie.

use super::builder::Builder;
use super::hostile::{PAGE, assert_refused, refused, with_block, with_blocks};
use super::sample::*;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::id::{BpfMapId, FileId, MmId, ShmId};
use crate::image::model::memory::ContentOwner;
use crate::image::{BlockFault, Error, Image, Kind};
use std::io::Cursor;

const ZEROS: [u8; 4096] = [0; 4096];

/// A range that may wrap around.
fn range(start: u64, len: u64) -> PageRange {
    PageRange { start: Addr(start), end: Addr(start.wrapping_add(len)) }
}

fn assert_block_refused(bytes: &[u8], expected: BlockFault) {
    assert_refused!(bytes, Error::Block { fault, .. } if fault == expected);
}

#[test]
fn runs_that_lie_are_refused() {
    let two = [ZEROS; 2].concat();
    for (start, len) in [(ANON + 1, PAGE), (ANON, 0), (ANON, 100), (u64::MAX - 4095, 2 * PAGE), (u64::MAX - 4095, PAGE)]
    {
        assert_block_refused(&with_block(2, &[(start, len)], &[], 0), BlockFault::Run(range(start, len)));
    }
    let whole = ANON_PAGES * PAGE;
    for (start, len) in [
        (0, PAGE),
        (ANON - PAGE, 2 * PAGE),
        (ANON, whole + PAGE),
        (PRIVATE_FILE, 5 * PAGE),
        (0x6000_0000, PAGE),
        (0x7fff_0000_0000, PAGE),
        (0xffff_ffff_ff60_0000, PAGE),
        (ANON, 1 << 62),
    ] {
        assert_block_refused(&with_block(2, &[(start, len)], &[], 0), BlockFault::Outside(range(start, len)));
    }
    let overlap = BlockFault::Overlap(range(ANON, PAGE));
    assert_block_refused(&with_block(0, &[(ANON, PAGE), (ANON, PAGE)], &two, 0), overlap);
    assert_block_refused(
        &with_block(2, &[(ANON, 3 * PAGE), (ANON + PAGE, PAGE)], &[], 0),
        BlockFault::Overlap(range(ANON + PAGE, PAGE)),
    );
    let twice = with_blocks(|b| {
        b.block(2, &[(ANON, 3 * PAGE)], &[], 0);
        b.block(2, &[(ANON + 4 * PAGE, PAGE)], &[], 0);
        b.block(0, &[(ANON + 2 * PAGE, 2 * PAGE)], &two, 0);
    });
    assert_block_refused(&twice, BlockFault::Overlap(range(ANON + 2 * PAGE, 2 * PAGE)));
    let below = with_blocks(|b| {
        b.block(2, &[(ANON + 2 * PAGE, PAGE)], &[], 0);
        b.block(2, &[(ANON + PAGE, 2 * PAGE)], &[], 0);
    });
    assert_block_refused(&below, BlockFault::Overlap(range(ANON + PAGE, 2 * PAGE)));
}

#[test]
fn heads_that_lie_are_refused() {
    let many: Vec<(u64, u64)> = (0..257).map(|i| (ANON + 2 * i * PAGE, PAGE)).collect();
    assert_block_refused(&with_block(2, &many, &[], 0), BlockFault::Head);
    assert_block_refused(&with_block(2, &[], &[], 0), BlockFault::Head);
    assert_block_refused(&with_block(2, &[(ANON, PAGE)], &[0; 8], 0), BlockFault::Head);
    assert_block_refused(&with_block(2, &[(ANON, PAGE)], &[], 64), BlockFault::Head);
    assert_block_refused(&with_block(0, &[(ANON, 2 * PAGE)], &ZEROS, 0), BlockFault::Head);
    assert_block_refused(&with_block(0, &[(ANON, PAGE)], &[0; 8192], 0), BlockFault::Head);
    assert_block_refused(&with_block(0, &[(ANON, PAGE)], &ZEROS, 64), BlockFault::Head);
    assert_block_refused(&with_block(1, &[(ANON, PAGE)], &[], 0), BlockFault::Head);
    assert_block_refused(&with_block(1, &[(ANON, PAGE)], &ZEROS, 0), BlockFault::Head);
    assert_block_refused(&with_block(1, &[(ANON, 257 * PAGE)], &[0; 8], 0), BlockFault::Head);
    let wrapping = !4095;
    let bytes = with_block(1, &[(ANON, wrapping), (ANON, PAGE)], &[0; 8], 0);
    assert_block_refused(&bytes, BlockFault::Run(range(ANON, wrapping)));
    // The index, which the mapped reader sees first, has no such codec either.
    let [mapped, streamed] = refused(&with_block(7, &[(ANON, PAGE)], &[], 0));
    assert!(matches!(mapped, Error::Decode { kind: Kind::Index, .. }), "{mapped:?}");
    assert!(matches!(streamed, Error::Block { fault: BlockFault::Codec(7), .. }), "{streamed:?}");
    let long = with_block(0, &[(ANON, 257 * PAGE)], &vec![1; 257 << 12], 0);
    assert_refused!(long, Error::Block { fault: BlockFault::Head, .. } | Error::TooLong { .. });
}

#[test]
fn owners_that_do_not_exist_are_refused() {
    for (kind, id, owner) in [
        (0, 1, ContentOwner::Mm(MmId(1))),
        (1, u32::MAX, ContentOwner::SharedMemory(ShmId(u32::MAX))),
        (2, 3, ContentOwner::File(FileId(3))),
        // It is there, but has no pages.
        (3, 0, ContentOwner::BpfMap(BpfMapId(0))),
    ] {
        let bytes = with_blocks(|b| {
            b.block_of(kind, id, 2, &[(0, PAGE)], &[], 0);
        });
        assert_block_refused(&bytes, BlockFault::Owner(owner));
    }
    let bytes = with_blocks(|b| {
        b.block_of(4, 0, 2, &[(0, PAGE)], &[], 0);
    });
    let [mapped, streamed] = refused(&bytes);
    assert!(matches!(mapped, Error::Decode { kind: Kind::Index, .. }), "{mapped:?}");
    assert!(matches!(streamed, Error::Block { fault: BlockFault::Head, .. }), "{streamed:?}");
}

#[test]
fn content_that_does_not_unpack_to_its_length_is_refused() {
    let packed = |len: usize| zstd::bulk::compress(&vec![5; len], 1).unwrap();
    for content in [packed(4095), packed(4097), packed(100 << 20), vec![1; 50], packed(4096)[..10].to_vec()] {
        assert_block_refused(
            &with_block(1, &[(ANON, PAGE)], &content[..content.len().min(4000)], 0),
            BlockFault::Compression,
        );
    }
    let good = with_block(1, &[(ANON, PAGE)], &packed(4096), 0);
    assert!(Image::open(good).unwrap().verify().is_ok());
}

#[test]
fn references_to_what_is_no_earlier_content_are_refused() {
    let refer = |reference: &dyn Fn(&[u64; 4]) -> u64, len: u64| {
        with_blocks(|b| {
            let mut at = [0; 4];
            at[0] = b.bytes.len() as u64;
            b.block(0, &[(ANON, PAGE)], &page(1), 0);
            at[1] = b.bytes.len() as u64;
            b.block(2, &[(ANON + PAGE, PAGE)], &[], 0);
            at[2] = b.bytes.len() as u64;
            b.block(3, &[(ANON + 2 * PAGE, PAGE)], &[], at[0]);
            at[3] = b.bytes.len() as u64;
            b.block(3, &[(ANON + 3 * PAGE, len)], &[], reference(&at));
        })
    };
    assert!(Image::open(refer(&|at| at[0], PAGE)).unwrap().verify().is_ok());
    assert_block_refused(&refer(&|at| at[0], 2 * PAGE), BlockFault::Reference);
    let wrong: [fn(&[u64; 4]) -> u64; 7] =
        [|at| at[1], |at| at[2], |at| at[3], |_| 64, |at| at[0] + 8, |_| u64::MAX, |at| at[3] + 80];
    for reference in wrong {
        assert_block_refused(&refer(&reference, PAGE), BlockFault::Reference);
    }
}

#[test]
fn references_beyond_the_window_or_unannounced_are_refused() {
    let far = |blocks: u64| {
        with_blocks(|b| {
            let first = b.bytes.len() as u64;
            for i in 0..blocks {
                b.block(0, &[(ANON + i * PAGE, PAGE)], &page(1 + i), 0);
            }
            b.block(3, &[(ANON + blocks * PAGE, PAGE)], &[], first);
        })
    };
    assert!(Image::open(far(16)).unwrap().verify().is_ok());
    assert!(Image::stream(Cursor::new(far(16))).unwrap().verify().is_ok());
    assert_block_refused(&far(17), BlockFault::Reference);
    let mut builder = Builder::new(0);
    builder.snapshot(&snapshot());
    let first = builder.bytes.len() as u64;
    builder.block(0, &[(ANON, PAGE)], &page(1), 0);
    let bytes = builder.block(3, &[(ANON + PAGE, PAGE)], &[], first).finish(&stats());
    assert_block_refused(&bytes, BlockFault::Reference);
}
