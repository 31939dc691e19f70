//! The executable bytes of a process: the only place where a killed `snap` may leave something behind.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Largest residue that is permitted, in bytes: two stubs, a batch, the registers that they put back, and what is left of timeouts.
const RESIDUE: usize = 1536;
/// And the rest of transfers, in other padding.
const REMAINDERS: usize = 8 * 128;

/// The content of every executable mapping but those of the kernel's own.
pub struct Code(Vec<Mapping>);

/// Where it starts and what it holds.
type Mapping = (u64, Vec<u8>);

impl Code {
    /// Reads the code of a live process.
    pub fn of(pid: i32) -> Self {
        let memory = File::open(format!("/proc/{pid}/mem")).expect("mem");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
        let executable = maps.lines().filter(|line| !line.ends_with("[vsyscall]")).filter_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
            (rest.as_bytes().get(2) == Some(&b'x')).then_some((start, (end - start) as usize))
        });
        let read = |(start, length): (u64, usize)| {
            let mut bytes = vec![0; length];
            // Pages behind the end of a file cannot be read; what is left of the buffer stays zero on both sides.
            let mut at = 0;
            while at < length {
                match memory.read_at(&mut bytes[at..], start + at as u64) {
                    Ok(count) if count > 0 => at += count,
                    _ => at = (at + 4096) & !4095,
                }
            }
            (start, bytes)
        };
        Self(executable.map(read).collect())
    }

    /// What differs, unless all of it is a stub in what was unused padding: zero bytes, close together. With `transfers` it may be the rest of
    /// those too.
    pub fn more_than_residue(&self, pid: i32, transfers: bool) -> Option<String> {
        let after = Self::of(pid);
        if self.mappings() != after.mappings() {
            return Some(format!("executable mappings: were {:x?}, are {:x?}", self.mappings(), after.mappings()));
        }
        let changed = self.changed(&after);
        let (first, last) = (changed.first()?, changed.last()?);
        if transfers && changed.len() > RESIDUE + REMAINDERS {
            return Some(format!("{} bytes of code differ", changed.len()));
        }
        if !transfers && last - first >= RESIDUE as u64 {
            return Some(format!("code differs from {first:#x} to {last:#x}"));
        }
        let used = changed.iter().find(|at| self.byte(**at) != 0);
        used.map(|at| format!("code differs where it was not padding: {at:#x}"))
    }

    /// Whether it is not the same any more.
    pub fn is_changed(&self, pid: i32) -> bool {
        self.0 != Self::of(pid).0
    }

    /// Where each mapping begins, and its length.
    fn mappings(&self) -> Vec<(u64, usize)> {
        self.0.iter().map(|(start, bytes)| (*start, bytes.len())).collect()
    }

    fn changed(&self, after: &Self) -> Vec<u64> {
        let differ = |((start, old), (_, new)): (&Mapping, &Mapping)| {
            let (start, pairs) = (*start, old.iter().zip(new).enumerate());
            pairs.filter(|(_, (old, new))| old != new).map(|(at, _)| start + at as u64).collect::<Vec<_>>()
        };
        self.0.iter().zip(&after.0).flat_map(differ).collect()
    }

    fn byte(&self, at: u64) -> u8 {
        let inside = |(start, bytes): &&Mapping| at >= *start && at - *start < bytes.len() as u64;
        self.0.iter().find(inside).map_or(0, |(start, bytes)| bytes[(at - start) as usize])
    }
}
