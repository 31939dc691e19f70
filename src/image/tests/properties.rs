//! Laws over random input: what is written is read, and what is mutilated is refused by both ways of reading alike.

use super::sample::*;
use crate::image::model::address::PAGE_SIZE;
use crate::image::model::memory::ContentOwner;
use crate::image::{Image, WriteOptions, ZeroPolicy};
use proptest::prelude::*;
use std::io::Cursor;

/// Pages at random places, some of them equal, some zero.
fn memory() -> impl Strategy<Value = Memory> {
    let place = prop_oneof![
        6 => (0..ANON_PAGES).prop_map(|page| (MM, ANON + page * PAGE_SIZE)),
        1 => (0u64..4).prop_map(|page| (MM, PRIVATE_FILE + page * PAGE_SIZE)),
        1 => (0u64..64).prop_map(|page| (SHM, page * PAGE_SIZE)),
        1 => (0u64..64).prop_map(|page| (FILE, page * PAGE_SIZE)),
        1 => (0u64..64).prop_map(|page| (MAP, page * PAGE_SIZE)),
    ];
    let extent = (place, 1u64..40, 0u64..4);
    proptest::collection::vec(extent, 0..30).prop_map(|extents| {
        let mut memory = Memory::default();
        for ((owner, start), pages, seed) in extents {
            let end = match owner {
                ContentOwner::Mm(_) if start < PRIVATE_FILE => ANON + ANON_PAGES * PAGE_SIZE,
                ContentOwner::Mm(_) => PRIVATE_FILE + 4 * PAGE_SIZE,
                ContentOwner::SharedMemory(_) | ContentOwner::File(_) | ContentOwner::BpfMap(_) => 64 * PAGE_SIZE,
            };
            for addr in (start..end).step_by(PAGE_SIZE as usize).take(pages as usize) {
                memory.put(owner, addr, seed);
            }
        }
        memory
    })
}

fn options() -> impl Strategy<Value = WriteOptions> {
    let compression = prop_oneof![Just(None), Just(Some(-5)), Just(Some(3))];
    (compression, 1usize..4, any::<bool>()).prop_map(|(compression, workers, references)| WriteOptions {
        compression,
        workers,
        references,
    })
}

/// One way of spoiling bytes.
#[derive(Clone, Debug)]
enum Spoil {
    Overwrite(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
    Exchange(usize, usize, usize),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let at = || 0usize..4096;
    prop_oneof![
        (at(), proptest::collection::vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Spoil::Overwrite(at, bytes)),
        (at(), 1usize..200).prop_map(|(at, len)| Spoil::Remove(at, len)),
        (at(), 1usize..200).prop_map(|(at, len)| Spoil::Repeat(at, len)),
        (at(), at(), 1usize..200).prop_map(|(a, b, len)| Spoil::Exchange(a, b, len)),
    ]
}

fn apply(bytes: &mut Vec<u8>, spoil: &Spoil) {
    let range = |at: usize, len: usize| (at % bytes.len())..(at % bytes.len() + len).min(bytes.len());
    match spoil {
        Spoil::Overwrite(at, new) => {
            let range = range(*at, new.len());
            let len = range.len();
            bytes[range].copy_from_slice(&new[..len]);
        }
        Spoil::Remove(at, len) => drop(bytes.drain(range(*at, *len))),
        Spoil::Repeat(at, len) => {
            let range = range(*at, *len);
            let copy = bytes[range.clone()].to_vec();
            bytes.splice(range.end..range.end, copy);
        }
        Spoil::Exchange(a, b, len) => {
            for i in 0..*len {
                let (a, b) = ((a + i) % bytes.len(), (b + i) % bytes.len());
                bytes.swap(a, b);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_read(memory in memory(), options in options(), keep in any::<bool>(), workers in 1usize..4) {
        let policy = if keep { ZeroPolicy::Keep } else { ZeroPolicy::Drop };
        let expected = if keep { memory.clone() } else { memory.without_zero() };
        let bytes = image(&snapshot(), &memory, policy, options);
        for image in [Image::open(bytes.clone()).unwrap(), Image::stream(Cursor::new(bytes.clone())).unwrap()] {
            let sink = Collect::default();
            prop_assert_eq!(image.restore_pages(&sink, workers).unwrap(), stats());
            prop_assert_eq!(&sink.memory(), &expected);
        }
        let image = Image::open(bytes).unwrap();
        for (&(owner, addr), page) in expected.0.iter().step_by(7) {
            let mut buf = vec![1; PAGE_SIZE as usize];
            prop_assert!(image.read_at(owner, addr, &mut buf).unwrap() == buf.len() && &buf == page);
        }
    }

    #[test]
    fn what_is_spoiled_is_refused(spoils in proptest::collection::vec(spoil(), 1..5)) {
        let whole = small_image();
        let mut bytes = whole.clone();
        spoils.iter().for_each(|spoil| apply(&mut bytes, spoil));
        prop_assume!(bytes != whole);
        let mapped = Image::open(bytes.clone()).and_then(|image| image.verify());
        let streamed = Image::stream(Cursor::new(bytes)).and_then(|image| image.verify());
        prop_assert!(mapped.is_err() && streamed.is_err());
    }
}
