//! The image as a file that is mapped for reading.

pub use crate::sys::file_map::map;
