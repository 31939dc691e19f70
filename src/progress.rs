//! Progress of long work, told to whoever shows it.

/// Listens to the phases of a dump or a restore.
pub trait Progress: Sync {
    /// A phase begins, such as `freezing` or `writing pages`.
    fn phase(&self, name: &str);
    /// So many bytes of pages are done, of so many.
    fn pages(&self, done: u64, total: u64);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _: &str) {}
    fn pages(&self, _: u64, _: u64) {}
}
