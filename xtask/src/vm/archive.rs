//! A cpio archive in the format that the kernel unpacks as its first file system (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// One that is being written. Every path is absolute, that of the file in the machine.
pub struct Archive {
    out: BufWriter<File>,
    there: BTreeSet<PathBuf>,
    inode: u32,
}

impl Archive {
    /// An empty one.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { out: BufWriter::new(File::create(path)?), there: BTreeSet::new(), inode: 0 })
    }

    /// A directory, with those above it.
    pub fn directory(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        if path == Path::new("/") || self.there.contains(path) {
            return Ok(());
        }
        self.above(path)?;
        self.entry(path, DIRECTORY | mode, b"")
    }

    /// A regular file.
    pub fn file(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        self.above(path)?;
        self.entry(path, REGULAR | mode, content)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        self.above(path)?;
        self.entry(path, LINK | 0o777, target.as_os_str().as_encoded_bytes())
    }

    /// A file of this machine under its own path, with every link on the way to it.
    pub fn copy(&mut self, path: &Path) -> io::Result<()> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let true_path = fs::canonicalize(above)?.join(name);
        for ancestor in above.ancestors().filter(|ancestor| ancestor.is_symlink()) {
            self.link(ancestor, &fs::read_link(ancestor)?)?;
        }
        if self.there.contains(&true_path) {
            return Ok(());
        }
        let meta = fs::symlink_metadata(&true_path)?;
        if meta.is_symlink() {
            let target = fs::read_link(&true_path)?;
            self.link(&true_path, &target)?;
            self.copy(&true_path.parent().unwrap_or(Path::new("/")).join(target))
        } else {
            self.file(&true_path, meta.permissions().mode() & 0o7777, &fs::read(&true_path)?)
        }
    }

    /// Writes the end.
    pub fn finish(mut self) -> io::Result<()> {
        self.there.clear();
        self.entry(Path::new("/TRAILER!!!"), 0, b"")?;
        self.out.flush()
    }

    fn above(&mut self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) => self.directory(parent, 0o755),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        if !self.there.insert(path.to_path_buf()) {
            return Ok(());
        }
        let name = path.as_os_str().as_encoded_bytes().strip_prefix(b"/").unwrap_or_default();
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        self.inode += 1;
        // Magic, inode, mode, uid, gid, links, time, size, two device numbers of two words, length of the name, no checksum.
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        let mut header = String::from("070701");
        fields.iter().for_each(|field| header += &format!("{field:08x}"));
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name)?;
        self.out.write_all(&[0; 4][..1 + padding(header.len() + name.len() + 1)])?;
        self.out.write_all(content)?;
        self.out.write_all(&[0; 4][..padding(content.len())])
    }
}

/// Bytes up to the next multiple of four.
fn padding(len: usize) -> usize {
    len.next_multiple_of(4) - len
}
