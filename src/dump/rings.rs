//! Mappings of the memory of sockets.

use super::collect::Builder;
use crate::image::model::memory::Backing;

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
}
