//! Any bytes as an image: mapped and streamed, as they are and with checksums that fit. Nothing may panic, and both ways
//! of reading must agree on whether it is an image.
#![no_main]

mod repair;

use libfuzzer_sys::fuzz_target;
use snap::image::model::address::{Addr, PageRange};
use snap::image::model::memory::ContentOwner;
use snap::image::{Image, PageSink};
use std::io::{self, Cursor};
use std::sync::atomic::{AtomicU64, Ordering};

fuzz_target!(|data: &[u8]| {
    read(data.to_vec());
    read(repair::checksums(data));
});

fn read(bytes: Vec<u8>) {
    let mapped = Image::open(bytes.clone()).and_then(|image| {
        let sum = Sum::default();
        image.restore_pages(&sum, 1)?;
        look_around(&image);
        Ok((image.snapshot().clone(), sum.0.into_inner()))
    });
    let streamed = Image::stream(Cursor::new(bytes)).and_then(|image| {
        let sum = Sum::default();
        image.restore_pages(&sum, 1)?;
        Ok((image.snapshot().clone(), sum.0.into_inner()))
    });
    match (mapped, streamed) {
        (Ok(mapped), Ok(streamed)) => assert!(mapped == streamed, "both ways give the same"),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(error)) => panic!("only the stream is refused: {error}"),
        (Err(error), Ok(_)) => panic!("only the mapping is refused: {error}"),
    }
}

/// Reads at random from an intact image: every run that it says it has is there.
fn look_around(image: &Image) {
    let runs = image.page_runs().expect("an intact image");
    for (owner, range) in runs.into_iter().take(16) {
        let mut buf = [0; 100];
        let read = image.read_at(owner, range.start.add(10), &mut buf).expect("an intact image");
        assert_eq!(read, 100);
    }
}

/// A sum over all pages that does not depend on their order.
#[derive(Default)]
struct Sum(AtomicU64);

impl PageSink for Sum {
    fn fill(&self, _: ContentOwner, start: Addr, data: &[u8]) -> io::Result<()> {
        for (i, page) in data.chunks(4096).enumerate() {
            let at = u64::from(crc32c::crc32c_append(i as u32, page)).wrapping_mul(start.0 | 1);
            self.0.fetch_add(at, Ordering::Relaxed);
        }
        Ok(())
    }

    fn zero(&self, _: ContentOwner, range: PageRange) -> io::Result<()> {
        self.0.fetch_add(range.start.0 ^ range.len(), Ordering::Relaxed);
        Ok(())
    }
}
