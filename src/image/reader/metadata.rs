//! Sections read one after the other, from anything that can be read: header, metadata, and in a stream all the rest.

use crate::image::digest::Digest;
use crate::image::error::Error;
use crate::image::header::{HEADER_LEN, Header};
use crate::image::model::Snapshot;
use crate::image::section::{Kind, Order, SECTION_HEADER_LEN, SectionHeader, padding};
use crate::image::validate;
use crate::image::versions::{self, v1};
use std::io::Read;

/// Most bytes of metadata in one section; only so much input can make a reader hold so much.
const MAX_METADATA: u64 = 4 << 30;

/// Bytes that are skipped or reserved at a time.
const STEP: u64 = 64 << 10;

/// A position in an image, and what was seen before it.
pub struct Walk<R> {
    input: R,
    pub position: u64,
    pub header: Header,
    pub digest: Digest,
    pub order: Order,
}

/// A section whose header was read.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    pub kind: Kind,
    pub offset: u64,
    pub header: SectionHeader,
}

impl<R: Read> Walk<R> {
    /// Reads the header of an image.
    pub fn begin(mut input: R) -> Result<Self, Error> {
        let mut bytes = [0; HEADER_LEN];
        let mut position = 0;
        fill(&mut input, &mut position, &mut bytes).map_err(|e| match e {
            Error::Truncated { offset: 0, needed: _ } => Error::Empty,
            // What is too short for a header may not be an image at all.
            Error::Truncated { .. } if !bytes.starts_with(b"\x89SNAP") => Error::NotAnImage,
            other => other,
        })?;
        let header = Header::decode(&bytes)?;
        Ok(Self { input, position, header, digest: Digest::new(&bytes), order: Order::default() })
    }

    /// Reads all sections of metadata, up to and with the header of the first section behind them.
    pub fn snapshot(&mut self) -> Result<(Snapshot, Section), Error> {
        let mut parts = v1::Parts::default();
        loop {
            let section = self.section()?;
            if section.kind >= Kind::PageBlock {
                let snapshot = parts.snapshot(section.offset)?;
                validate::snapshot(&snapshot)?;
                return Ok((snapshot, section));
            }
            parts.take(section.kind, &self.payload(&section)?)?;
        }
    }

    /// Reads the header of the next section of a known kind; unknown ones that may be skipped are skipped. The digest takes in the
    /// header unless it is the trailer's.
    pub fn section(&mut self) -> Result<Section, Error> {
        loop {
            let offset = self.position;
            let mut bytes = [0; SECTION_HEADER_LEN];
            fill(&mut self.input, &mut self.position, &mut bytes)?;
            let header = SectionHeader::decode(&bytes, offset)?;
            if header.kind != Kind::Trailer as u16 {
                self.digest.update(&bytes);
            }
            match known(&header, offset, &self.header)? {
                Some(kind) => {
                    self.order.next(kind, offset)?;
                    return Ok(Section { kind, offset, header });
                }
                None => self.skip(&header, offset)?,
            }
        }
    }

    /// Reads the payload of a section other than a page block.
    pub fn payload(&mut self, section: &Section) -> Result<Vec<u8>, Error> {
        let Section { kind, offset, header } = *section;
        if header.length > MAX_METADATA {
            return Err(Error::TooLong { kind, offset, length: header.length });
        }
        let hashed = if kind == Kind::Trailer { header.hashed } else { header.length };
        if header.hashed != hashed {
            return Err(Error::SectionDamaged { offset });
        }
        let mut payload = Vec::with_capacity(header.length.min(STEP) as usize);
        let read = self.input.by_ref().take(header.length).read_to_end(&mut payload);
        let read = read.map_err(|source| Error::Io { offset: self.position, source })? as u64;
        self.position += read;
        if read < header.length {
            return Err(Error::Truncated { offset: self.position, needed: header.length - read });
        }
        if crc32c::crc32c(&payload) != header.crc {
            return Err(Error::Checksum { kind: kind.name(), offset });
        }
        if kind != Kind::Trailer {
            self.digest.update(&payload);
        }
        self.end_padding()?;
        Ok(payload)
    }

    /// Fills `out` from the input.
    pub fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        fill(&mut self.input, &mut self.position, out)
    }

    /// Reads what lies between the end of a section and the next.
    pub fn end_padding(&mut self) -> Result<(), Error> {
        let mut bytes = [0; 8];
        let offset = self.position;
        let bytes = &mut bytes[..padding(offset) as usize];
        self.fill(bytes)?;
        check_padding(bytes, offset)
    }

    /// Makes sure that nothing follows.
    pub fn end(&mut self) -> Result<(), Error> {
        let mut byte = [0];
        match fill(&mut self.input, &mut 0, &mut byte) {
            Ok(()) => Err(Error::TrailingBytes { offset: self.position }),
            Err(Error::Truncated { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    fn skip(&mut self, header: &SectionHeader, offset: u64) -> Result<(), Error> {
        let mut buffer = vec![0; header.length.min(STEP) as usize];
        let (mut left, mut hashed, mut crc) = (header.length, header.hashed, 0);
        while left > 0 {
            let part = &mut buffer[..left.min(STEP) as usize];
            fill(&mut self.input, &mut self.position, part)?;
            crc = crc32c::crc32c_append(crc, part);
            self.digest.update(&part[..hashed.min(part.len() as u64) as usize]);
            left -= part.len() as u64;
            hashed = hashed.saturating_sub(part.len() as u64);
        }
        if crc != header.crc {
            return Err(Error::Checksum { kind: "unknown", offset });
        }
        self.end_padding()
    }
}

/// The kind of a section, if this version knows it and its version; `None` for one to be skipped.
pub fn known(header: &SectionHeader, offset: u64, image: &Header) -> Result<Option<Kind>, Error> {
    let Some(kind) = header.kind(offset, image.read_by)? else { return Ok(None) };
    match header.version {
        0 => Err(Error::SectionDamaged { offset }),
        version if version > versions::version(kind) => {
            Err(Error::Newer { what: format!("version {version} of the section {kind}"), read_by: image.read_by })
        }
        _ => Ok(Some(kind)),
    }
}

/// Whether the bytes between two sections are zero.
pub fn check_padding(bytes: &[u8], offset: u64) -> Result<(), Error> {
    if bytes.iter().all(|&b| b == 0) { Ok(()) } else { Err(Error::Padding { offset }) }
}

fn fill(input: &mut impl Read, position: &mut u64, mut out: &mut [u8]) -> Result<(), Error> {
    while !out.is_empty() {
        match input.read(out) {
            Ok(0) => return Err(Error::Truncated { offset: *position, needed: out.len() as u64 }),
            Ok(n) => {
                *position += n as u64;
                out = out.get_mut(n..).unwrap_or_default();
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Io { offset: *position, source }),
        }
    }
    Ok(())
}
