//! The model in sections, through all versions of the format.
//!
//! Every section carries the version of its kind. The newest version of a kind is the type in [`super::model`] itself;
//! how each kind is written and read today stands in [`v1`].
//!
//! To change a type of the model after a release:
//!
//! 1. Copy the types of the kind as they are into `versions/vN.rs`, with their serde attributes: the copy is frozen.
//! 2. Write `From<vN::Kind> for vN+1::Kind` (the newest is the model): one step, no jump over versions.
//! 3. Raise the number in [`version`] and add the old one to the match in `v1::Parts::take`, so that it goes through all
//!    steps. If an older `snap` could misread the image, raise [`FORMAT`](super::header::FORMAT) too.
//! 4. Put a golden image of the new version beside the old ones in `fixtures/golden/`; the old ones stay and keep reading.
//!
//! The test `golden` fails when a type changes and these steps were not taken.

pub mod v1;

use super::section::Kind;

/// The version of a kind that is written now. A reader takes this one and every one before it.
pub const fn version(kind: Kind) -> u16 {
    match kind {
        Kind::Inventory
        | Kind::Processes
        | Kind::Mms
        | Kind::SharedMemory
        | Kind::Files
        | Kind::Descriptions
        | Kind::FdTables
        | Kind::FsContexts
        | Kind::Pipes
        | Kind::SeccompFilters
        | Kind::Zombies
        | Kind::Terminals
        | Kind::Sockets
        | Kind::SignalHandlers
        | Kind::Ipc
        | Kind::BpfMaps
        | Kind::PageBlock
        | Kind::Stats
        | Kind::Index
        | Kind::Trailer => 1,
    }
}
