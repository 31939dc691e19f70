//! Damaged images: every truncation and every flipped bit is found, mapped and streamed.

use super::sample::*;
use crate::image::{Error, Image};
use std::io::Cursor;

/// Reads everything, from a mapping and from a stream.
fn read_both(bytes: &[u8]) -> [Result<(), Error>; 2] {
    let mapped = Image::open(bytes.to_vec()).and_then(|image| image.restore_pages(&Collect::default(), 1));
    let streamed =
        Image::stream(Cursor::new(bytes.to_vec())).and_then(|image| image.restore_pages(&Collect::default(), 1));
    [mapped.map(drop), streamed.map(drop)]
}

#[test]
fn every_truncation_is_found() {
    for bytes in [small_image(), raw_image()] {
        for len in 0..bytes.len() {
            for result in read_both(&bytes[..len]) {
                assert!(result.is_err(), "{len} of {} bytes", bytes.len());
            }
        }
        assert!(read_both(&bytes).iter().all(Result::is_ok));
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let mut bytes = small_image();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        for result in read_both(&bytes) {
            assert!(result.is_err(), "bit {bit} of {} bytes", bytes.len());
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn flipped_bits_of_raw_blocks_and_their_padding_are_found() {
    let mut bytes = raw_image();
    for bit in (0..bytes.len() * 8).step_by(13) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        for result in read_both(&bytes) {
            assert!(result.is_err(), "bit {bit} of {} bytes", bytes.len());
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn bytes_behind_the_end_are_found() {
    for extra in [1, 8, 4096] {
        let mut bytes = small_image();
        bytes.resize(bytes.len() + extra, 0);
        assert!(read_both(&bytes).iter().all(Result::is_err));
    }
}
