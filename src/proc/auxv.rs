//! `/proc/PID/auxv`: the auxiliary vector as the kernel keeps it (getauxval(3)).

use super::error::{Error, ParseError};
use super::files::Files;
use super::task_dir::TaskDir;

const KIND: &str = "auxv";

/// Words of the vector, each type followed by its value, AT_NULL included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auxv {
    /// The words.
    pub words: Vec<u64>,
}

impl Auxv {
    /// The value of a type such as `libc::AT_SYSINFO_EHDR`.
    #[must_use]
    pub fn get(&self, kind: u64) -> Option<u64> {
        self.entries().find(|entry| entry.0 == kind).map(|entry| entry.1)
    }

    /// Types and values up to AT_NULL.
    pub fn entries(&self) -> impl Iterator<Item = (u64, u64)> {
        let pairs = self.words.as_chunks::<2>().0.iter();
        pairs.map(|pair| (pair[0], pair[1])).take_while(|entry| entry.0 != libc::AT_NULL)
    }
}

/// Reads the vector of a process; a zombie has none and counts as vanished (ESRCH).
///
/// # Errors
/// See [`Error`].
pub fn read(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Auxv, Error> {
    task.parse("auxv", buffer, parse)
}

/// Parses the whole file of a 64-bit process.
///
/// # Errors
/// When it is not a whole number of pairs.
pub fn parse(bytes: &[u8]) -> Result<Auxv, ParseError> {
    let (words, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() || words.len() % 2 != 0 {
        return Err(ParseError::new(KIND, 1, "pairs of words of 8 bytes", rest));
    }
    Ok(Auxv { words: words.iter().map(|word| u64::from_ne_bytes(*word)).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_real_program() {
        let auxv = parse(include_bytes!("../../fixtures/proc/mappings/auxv")).unwrap();
        assert_eq!(auxv.words.len(), 46);
        assert_eq!(auxv.get(libc::AT_PAGESZ), Some(4096));
        // The address of [vdso] in the maps of the same program.
        assert_eq!(auxv.get(libc::AT_SYSINFO_EHDR), Some(0x7f34_5fa5_1000));
        assert_eq!(auxv.get(libc::AT_NULL), None);
        assert_eq!(auxv.entries().count(), 22);
    }

    #[test]
    fn empty_and_cut_off() {
        assert!(parse(b"").unwrap().words.is_empty());
        assert!(parse(&[0; 8]).is_err());
        assert!(parse(&[0; 17]).is_err());
    }
}
