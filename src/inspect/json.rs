//! What every report in JSON has in common: addresses as hex strings, names that are raw bytes as text.

use super::text;
use crate::image::model::address::{Addr, PageRange};
use serde::{Serialize, Serializer};
use std::fmt;

/// A number that is written as `"0x7f00"`: JSON readers lose digits of integers beyond 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex(pub u64);

impl From<Addr> for Hex {
    fn from(addr: Addr) -> Self {
        Self(addr.0)
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// First byte.
    pub start: Hex,
    /// First byte after it.
    pub end: Hex,
}

impl From<PageRange> for Range {
    fn from(range: PageRange) -> Self {
        Self { start: range.start.into(), end: range.end.into() }
    }
}

/// Raw bytes: a path, a name, an argument. In JSON what is not UTF-8 stands as `\xNN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    /// For a terminal.
    #[must_use]
    pub fn printable(&self) -> String {
        text::printable(&self.0)
    }
}

impl From<&[u8]> for Raw {
    fn from(raw: &[u8]) -> Self {
        Self(raw.to_vec())
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text::lossless(&self.0))
    }
}
