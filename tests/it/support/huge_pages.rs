//! Huge pages for a test: reserved from the machine, by one test at a time, and given back.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};

const FILE: &str = "/proc/sys/vm/nr_hugepages";

/// Huge pages that this test has reserved, given back when it ends.
pub struct HugePages {
    before: u64,
    wanted: u64,
    /// The number is the machine's, whatever namespaces tests are in: who changes it holds this directory locked.
    _lock: Flock<File>,
}

impl HugePages {
    /// Asks for so many more.
    pub fn reserve(pages: u64) -> Self {
        let directory = File::open("/dev/shm").expect("/dev/shm");
        let lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno).expect("flock");
        let before = number();
        fs::write(FILE, (before + pages).to_string()).expect("nr_hugepages");
        Self { before, wanted: before + pages, _lock: lock }
    }

    /// Whether the machine had the memory for all of them.
    pub fn are_there(&self) -> bool {
        number() >= self.wanted
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(FILE, self.before.to_string());
    }
}

fn number() -> u64 {
    fs::read_to_string(FILE).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
