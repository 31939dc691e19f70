//! An image that is restored otherwise than it was written: under other ids, or with other addresses.

use super::{Error, Filler, Pages};
use crate::image::model::Snapshot;

/// The pages of an image, and what is made of the rest.
pub struct Rewritten<'a> {
    pages: &'a dyn Pages,
    snapshot: Snapshot,
}

impl<'a> Rewritten<'a> {
    /// With what `rewrite` changes.
    #[must_use]
    pub fn new(pages: &'a dyn Pages, rewrite: impl FnOnce(&mut Snapshot)) -> Self {
        let mut snapshot = pages.snapshot().clone();
        rewrite(&mut snapshot);
        Self { pages, snapshot }
    }
}

impl Pages for Rewritten<'_> {
    fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn is_stream(&self) -> bool {
        self.pages.is_stream()
    }

    fn restore(&self, filler: &Filler<'_>) -> Result<(), Error> {
        self.pages.restore(filler)
    }
}
