//! Paths as the kernel prints them, with the marks that it appends and that a name may hold as well.

/// A path from `d_path` (fs/d_path.c): raw bytes, possibly with ` (deleted)` at its end.
///
/// A file may really be called `x (deleted)`. Only the inode decides: compare `st_ino` and `st_nlink` of what the
/// link leads to with those of [`PathText::raw`] and of [`PathText::without_deleted`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathText {
    /// The text, escapes decoded, marks kept.
    pub raw: Vec<u8>,
}

const DELETED: &[u8] = b" (deleted)";
const UNREACHABLE: &[u8] = b"(unreachable)";

impl PathText {
    /// Whether the text ends in ` (deleted)`: the file is unlinked, or is called so.
    #[must_use]
    pub fn may_be_deleted(&self) -> bool {
        self.raw.ends_with(DELETED)
    }

    /// The text without ` (deleted)`, if it ends so.
    #[must_use]
    pub fn without_deleted(&self) -> Option<&[u8]> {
        self.raw.strip_suffix(DELETED)
    }

    /// Whether the path cannot be reached from the root of the reader: `(unreachable)/...`. No real path begins so,
    /// since it does not begin with a slash.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.raw.starts_with(UNREACHABLE)
    }

    /// The path itself: neither ` (deleted)` nor `(unreachable)`.
    #[must_use]
    pub fn stripped(&self) -> &[u8] {
        let text = self.without_deleted().unwrap_or(&self.raw);
        text.strip_prefix(UNREACHABLE).unwrap_or(text)
    }
}
