//! Descriptions of types (BTF): the kernel keeps them as they were loaded, and gives them back whole.

use crate::image::model::bpf::{BpfTypes, MapTypes};
use crate::image::model::id::BpfTypesId;
use crate::sys::bpf::{self, TypesInfo};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Those of a dump, each once.
#[derive(Debug, Default)]
pub struct Types {
    found: Vec<(BpfTypes, File)>,
}

impl Types {
    /// Those behind a descriptor of the tree.
    ///
    /// # Errors
    /// Why they cannot be saved.
    pub fn intern(&mut self, file: &File) -> Result<BpfTypesId, String> {
        let unreadable = |error: io::Error| format!("a BTF, which cannot be read: {error}");
        let TypesInfo { id: number, size, kernel } =
            bpf::types_info(file.as_fd()).map_err(io::Error::from).map_err(unreadable)?;
        if let Some((known, _)) = self.found.iter().find(|(known, _)| known.number == number) {
            return Ok(known.id);
        }
        if kernel {
            return Err("a BTF of the kernel's own: another kernel has others".into());
        }
        if size as usize > BpfTypes::MOST {
            return Err(format!("a BTF of {size} bytes, which no kernel was known to take"));
        }
        let bytes = bpf::read_types(file.as_fd(), size).map_err(io::Error::from).map_err(unreadable)?;
        let id = BpfTypesId(self.found.len() as u32);
        self.found.push((BpfTypes { id, number, bytes }, file.try_clone().map_err(unreadable)?));
        Ok(id)
    }

    /// Those of a map, by their number in the kernel.
    ///
    /// # Errors
    /// Why they cannot be saved.
    pub fn of_map(&mut self, number: u32) -> Result<BpfTypesId, String> {
        let file = bpf::types_by_id(number);
        self.intern(
            &file.map_err(|error| format!("the BTF {number} that describes its types cannot be opened: {error}"))?,
        )
    }

    /// What they are.
    #[must_use]
    pub fn bytes(&self, id: BpfTypesId) -> &[u8] {
        self.found.get(id.0 as usize).map_or(&[], |(types, _)| &types.bytes)
    }

    /// A descriptor of those that a map has, if it has any.
    #[must_use]
    pub fn file(&self, types: Option<MapTypes>) -> Option<BorrowedFd<'_>> {
        types.and_then(|types| Some(self.found.get(types.of.0 as usize)?.1.as_fd()))
    }

    /// For the image.
    #[must_use]
    pub fn finish(self) -> Vec<BpfTypes> {
        self.found.into_iter().map(|(types, _)| types).collect()
    }
}
