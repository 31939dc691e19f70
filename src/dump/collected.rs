//! What a frozen tree is, and where its pages are.

use super::content::TargetMemory;
use crate::image::model::Snapshot;
use crate::image::model::address::PageRange;
use crate::image::model::id::{BpfMapId, FileId, MmId, Pid, ShmId};
use crate::image::model::memory::ContentOwner;
use crate::image::{PageRun, ZeroPolicy};
use crate::resources::CollectError;
use crate::resources::bpf::MapSource;
use crate::resources::mapped_only::PageSource;
use crate::resources::mqueue::exchange::Exchange;
use crate::resources::pages::{self, PageSet};
use crate::resources::shared_memory::Content;
use crate::resources::socket::packet::asking::Asking;
use crate::resources::socket::tcp::lock::Lock;
use crate::tracer::Twin;
use std::collections::HashMap;
use std::fs::File;

/// What the frozen tree is, and where its pages are read.
pub struct Collected {
    /// The model.
    pub snapshot: Snapshot,
    /// Pages that must be read while the target stands still.
    pub runs: Vec<PageRun>,
    /// Pages that a twin keeps as they are, if there is one.
    pub forked_runs: Vec<PageRun>,
    /// Copies of address spaces, by the ids of those.
    pub twins: Vec<Option<Twin>>,
    /// Where the pages of shared objects and unlinked files are read.
    pub sources: HashMap<ContentOwner, PageSource>,
    /// Memory of the address spaces, by their ids.
    pub memories: Vec<Option<TargetMemory>>,
    /// Bytes of zero pages left out.
    pub zero: u64,
    /// Bytes of clean file pages left out.
    pub clean_file: u64,
    /// Resident bytes.
    pub resident: u64,
    /// TCP connections of the tree.
    pub connections: Vec<File>,
    /// Message queues that have to be looked into.
    pub exchanges: Vec<Exchange>,
    /// Rings of packet sockets that have to be asked where the kernel stands in them.
    pub askings: Vec<Asking>,
    /// What drops packets of those that lead outside, if the tree is to be killed.
    pub lock: Option<Lock>,
}

impl Collected {
    /// Pages of the address spaces, in the order of these.
    pub(super) fn add_pages(&mut self, sets: &[PageSet]) {
        for (index, set) in sets.iter().enumerate() {
            let (owner, has_twin) = (ContentOwner::Mm(MmId(index as u32)), self.twins[index].is_some());
            self.zero += set.zero;
            self.clean_file += set.clean_file;
            for span in &set.spans {
                let zero = if span.keep_zero { ZeroPolicy::Keep } else { ZeroPolicy::Drop };
                let runs = if has_twin && span.forked { &mut self.forked_runs } else { &mut self.runs };
                runs.push(PageRun { owner, range: span.range, zero });
            }
        }
    }

    /// Shared memory, in the order of the model.
    pub(super) fn add_objects(&mut self, contents: Vec<Option<Content>>, root: Pid) -> Result<(), CollectError> {
        for (index, content) in contents.into_iter().enumerate() {
            let owner = ContentOwner::SharedMemory(ShmId(index as u32));
            match content {
                None => {}
                Some(Content::File(file)) => {
                    self.add_source(owner, file, self.snapshot.shared_memory[index].size, root)?;
                }
                Some(Content::Attached(attachment, ranges)) => {
                    self.add_ranges(owner, &ranges);
                    self.sources.insert(owner, PageSource::Attached(attachment));
                }
            }
        }
        Ok(())
    }

    /// Files whose content is in the image.
    pub(super) fn add_files(
        &mut self,
        contents: impl IntoIterator<Item = (FileId, File)>,
        root: Pid,
    ) -> Result<(), CollectError> {
        for (id, file) in contents {
            self.add_source(ContentOwner::File(id), file, self.snapshot.files[id.0 as usize].size, root)?;
        }
        Ok(())
    }

    /// Maps of bpf(2) in which there is much.
    pub(super) fn add_maps(&mut self, sources: Vec<(BpfMapId, MapSource)>) {
        for (id, source) in sources {
            let owner = ContentOwner::BpfMap(id);
            for (range, keep_zero) in source.ranges() {
                let zero = if keep_zero { ZeroPolicy::Keep } else { ZeroPolicy::Drop };
                self.runs.push(PageRun { owner, range, zero });
            }
            self.sources.insert(owner, PageSource::BpfMap(source));
        }
    }

    fn add_source(&mut self, owner: ContentOwner, file: File, size: u64, root: Pid) -> Result<(), CollectError> {
        let ranges = pages::data_ranges(&file, size).map_err(CollectError::at(root.leader(), "lseek SEEK_DATA"))?;
        self.add_ranges(owner, &ranges);
        self.sources.insert(owner, PageSource::File(file));
        Ok(())
    }

    pub(super) fn add_ranges(&mut self, owner: ContentOwner, ranges: &[PageRange]) {
        self.runs.extend(ranges.iter().map(|&range| PageRun { owner, range, zero: ZeroPolicy::Drop }));
    }
}
