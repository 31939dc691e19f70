//! Golden images: files that were written once and have to be read for ever.
//!
//! When this fails because the model changed: before the first release, `SNAP_BLESS=1 cargo test golden` writes them
//! again. After it, take the steps that `versions/mod.rs` lists; the files of old versions never change.

use super::builder::Builder;
use super::sample::*;
use crate::image::Image;
use std::path::{Path, PathBuf};

/// Name and bytes as the writer of today makes them.
fn images() -> [(&'static str, Vec<u8>); 2] {
    [("small", small_image()), ("raw", raw_image())]
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/golden/v1-{name}.snap"))
}

#[test]
fn golden_images_of_version_1_are_read() {
    for (name, today) in images() {
        if std::env::var_os("SNAP_BLESS").is_some() {
            std::fs::write(path(name), &today).unwrap();
        }
        let bytes = std::fs::read(path(name)).unwrap();
        let image = Image::open(bytes).unwrap_or_else(|e| panic!("{name}: {e} (see the top of this file)"));
        assert_eq!(image.snapshot(), &snapshot(), "{name}: see the top of this file");
        assert_eq!(image.restore_pages(&Collect::default(), 2).unwrap(), stats());
        let expected = Image::open(today).unwrap();
        let (read, written) = (Collect::default(), Collect::default());
        image.restore_pages(&read, 1).unwrap();
        expected.restore_pages(&written, 1).unwrap();
        assert_eq!(read.memory(), written.memory(), "{name}");
    }
}

#[test]
fn an_independent_builder_makes_the_same_raw_image() {
    let built = Builder::new(0).snapshot(&snapshot()).block(0, &[(ANON, 4096)], &page(1), 0).finish(&stats());
    assert_eq!(built, raw_image());
}

#[test]
fn an_independent_builder_makes_the_same_image_of_every_codec() {
    let image = small_image();
    let packed = |value| zstd::bulk::compress(&[value; 4096], 1).unwrap();
    let mut builder = Builder::new(1);
    builder.snapshot(&snapshot());
    let first = builder.bytes.len() as u64;
    builder.block(1, &[(ANON, 4096)], &packed(1), 0);
    builder.block(2, &[(PRIVATE_FILE, 4096)], &[], 0);
    builder.block_of(1, 0, 1, &[(0, 4096)], &packed(2), 0);
    builder.block_of(2, 1, 3, &[(0, 4096)], &[], first);
    builder.block_of(3, 6, 3, &[(0, 4096)], &[], first);
    assert_eq!(builder.finish(&stats()), image);
}
