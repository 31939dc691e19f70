//! The image file or stream that is restored.

use super::{Error, Filler, Input, Options, Pages};
use crate::image::model::Snapshot;
use crate::image::model::address::{Addr, PageRange};
use crate::image::model::memory::ContentOwner;
use crate::image::{self, Image, PageSink};
use crate::sys::file_map;
use std::fs::File;
use std::io;

/// Threads that unpack and fill; more contend for the page tables of one address space.
const WORKERS: usize = 2;

/// An opened image with its name.
#[derive(Debug)]
pub struct Opened {
    name: String,
    image: Image,
}

impl Opened {
    /// Opens what the options name and reads its metadata.
    ///
    /// # Errors
    /// [`Error::Image`].
    pub fn open(options: &Options<'_>) -> Result<Self, Error> {
        let (name, image) = match &options.image {
            Input::File(path) => {
                let name = path.display().to_string();
                let unreadable = |error: io::Error| {
                    let remedy = image::unreadable(&error);
                    Error::Image { image: name.clone(), reason: error.to_string(), remedy }
                };
                let file = File::open(path).map_err(unreadable)?;
                let kind = file.metadata().map_err(unreadable)?.file_type();
                if kind.is_dir() {
                    return Err(unreadable(io::ErrorKind::IsADirectory.into()));
                }
                let image = if kind.is_file() {
                    Image::open(file_map::map(&file).map_err(unreadable)?)
                } else {
                    Image::stream(file)
                };
                (name.clone(), image)
            }
            Input::Stdin => ("standard input".to_owned(), Image::stream(io::stdin())),
        };
        match image {
            Ok(image) => Ok(Self { name, image }),
            Err(error) => Err(damaged(&name, &error)),
        }
    }
}

fn damaged(name: &str, error: &image::Error) -> Error {
    if let image::Error::Sink { owner, addr, source } = error {
        let source = io::Error::from_raw_os_error(source.raw_os_error().unwrap_or(libc::EIO));
        return Error::Step { step: format!("filling {owner:?} at {addr}"), source };
    }
    Error::Image { image: name.to_owned(), reason: error.to_string(), remedy: error.remedy() }
}

impl Pages for Opened {
    fn snapshot(&self) -> &Snapshot {
        self.image.snapshot()
    }

    fn is_stream(&self) -> bool {
        self.image.is_stream()
    }

    fn restore(&self, filler: &Filler<'_>) -> Result<(), Error> {
        self.image.restore_pages(filler, WORKERS).map(drop).map_err(|error| damaged(&self.name, &error))
    }
}

impl PageSink for Filler<'_> {
    fn wants(&self, owner: ContentOwner) -> bool {
        Filler::wants(self, owner)
    }

    fn fill(&self, owner: ContentOwner, start: Addr, data: &[u8]) -> io::Result<()> {
        Filler::fill(self, owner, start, data)
    }

    fn zero(&self, owner: ContentOwner, range: PageRange) -> io::Result<()> {
        Filler::zero(self, owner, range)
    }
}
