//! Mappings of the memory of sockets, and of maps of bpf(2).

use super::collect::Builder;
use crate::image::model::id::Pid;
use crate::image::model::memory::{Backing, Vma};
use crate::resources::bpf::BpfMaps;
use crate::resources::bpf::mapped::{self, Page};
use std::io;

impl Builder {
    /// Refuses those that are not the whole ring of a packet socket in the image, once all tables are known.
    pub(super) fn refuse_parts_of_rings(&mut self) {
        let rings = self.descriptors.sockets.rings();
        for (pid, mm) in self.spaces.values() {
            for vma in &self.mms[mm.0 as usize].vmas {
                let Backing::PacketRing { ino } = vma.backing else { continue };
                let (reason, remedy) = match rings.get(&ino) {
                    Some(len) if *len == vma.range.len() => continue,
                    Some(_) => (
                        "it is a part of the ring of a packet socket, of which only the whole can be mapped",
                        "unmap it before the dump",
                    ),
                    None if self.descriptors.sockets.is_refused(ino) => continue,
                    None => (
                        "it maps memory of a socket that no descriptor of the tree leads to, or that is no ring of a packet socket",
                        "keep a descriptor of the socket open, or unmap it before the dump",
                    ),
                };
                self.findings.block(
                    format!("pid {pid}"),
                    format!("mapping {} socket:[{ino}]", vma.range),
                    reason,
                    remedy,
                );
            }
        }
    }

    /// Finds out which maps of bpf(2) are mapped where, once all tables are known.
    pub(super) fn find_mapped_maps(&mut self) {
        for (pid, mm) in self.spaces.values() {
            for vma in &mut self.mms[mm.0 as usize].vmas {
                let Err((reason, remedy)) = find_map(*pid, vma, &self.descriptors.bpf_maps) else { continue };
                let name = String::from_utf8_lossy(mapped::NAME);
                self.findings.block(format!("pid {pid}"), format!("mapping {} {name}", vma.range), reason, remedy);
            }
        }
    }
}

/// Notes which map a mapping is of, if it is of one, or says why that cannot be had.
fn find_map(pid: Pid, vma: &mut Vma, maps: &BpfMaps) -> Result<(), (String, &'static str)> {
    let range = vma.range;
    let Backing::BpfMap { map, offset, may_write: _ } = &mut vma.backing else { return Ok(()) };
    let found = Page::of(pid, range, *offset)
        .and_then(|page| Ok(maps.mapped(page)?.map(|found| (found.id, found.memory_len()))));
    match found {
        Ok(Some((id, len))) if *offset + range.len() <= len => {
            *map = id;
            Ok(())
        }
        Ok(_) => {
            let reason = "it maps memory of a BPF map that no descriptor of the tree leads to, or that is no array";
            Err((reason.into(), "keep a descriptor of the map open, or unmap it before the dump"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let reason = "which BPF map it maps cannot be told: no page of it is there";
            Err((reason.into(), "unmap it before the dump"))
        }
        Err(error) => {
            Err((format!("which BPF map it maps cannot be told: {error}"), "run snap dump with CAP_SYS_ADMIN"))
        }
    }
}
