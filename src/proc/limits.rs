//! `/proc/PID/limits`: resource limits (fs/proc/base.c, `proc_pid_limits`).

use super::error::{Error, ParseError};
use super::files::Files;
use super::scan;
use super::task_dir::TaskDir;

const KIND: &str = "limits";

/// Names in the order of RLIMIT_*.
const NAMES: [&[u8]; 16] = [
    b"Max cpu time",
    b"Max file size",
    b"Max data size",
    b"Max stack size",
    b"Max core file size",
    b"Max resident set",
    b"Max processes",
    b"Max open files",
    b"Max locked memory",
    b"Max address space",
    b"Max file locks",
    b"Max pending signals",
    b"Max msgqueue size",
    b"Max nice priority",
    b"Max realtime priority",
    b"Max realtime timeout",
];

/// Soft and hard limits indexed by RLIMIT_*; `libc::RLIM_INFINITY` for unlimited.
pub type Limits = [[u64; 2]; 16];

/// Reads the limits of a process.
///
/// # Errors
/// See [`Error`].
pub fn read(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Limits, Error> {
    task.parse("limits", buffer, parse)
}

/// Parses the whole file.
///
/// # Errors
/// Names the line; each of the sixteen limits must be there.
pub fn parse(text: &[u8]) -> Result<Limits, ParseError> {
    let mut limits = [None; 16];
    for (number, line) in scan::lines(text) {
        let found = NAMES.iter().zip(&mut limits).find_map(|(name, limit)| Some((line.strip_prefix(*name)?, limit)));
        let Some((values, limit)) = found else {
            continue;
        };
        let pair = pair(values).ok_or_else(|| ParseError::new(KIND, number, "soft and hard limit", line))?;
        *limit = Some(pair);
    }
    let mut all = [[0; 2]; 16];
    for ((limit, found), name) in all.iter_mut().zip(limits).zip(NAMES) {
        *limit = found.ok_or_else(|| ParseError::new(KIND, 0, "all sixteen limits", name))?;
    }
    Ok(all)
}

fn pair(values: &[u8]) -> Option<[u64; 2]> {
    let mut words = scan::words(values).map(|word| match word {
        b"unlimited" => Some(libc::RLIM_INFINITY),
        number => scan::decimal(number),
    });
    Some([words.next()??, words.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_real_program() {
        let limits = parse(include_bytes!("../../fixtures/proc/fds/limits")).unwrap();
        let infinity = libc::RLIM_INFINITY;
        assert_eq!(limits[libc::RLIMIT_NOFILE as usize], [300, 400]);
        assert_eq!(limits[libc::RLIMIT_STACK as usize], [8_388_608, infinity]);
        assert_eq!(limits[libc::RLIMIT_CORE as usize], [0, infinity]);
        assert_eq!(limits[libc::RLIMIT_SIGPENDING as usize], [96365, 96365]);
        assert_eq!(limits[libc::RLIMIT_RTTIME as usize], [infinity, infinity]);
    }

    #[test]
    fn our_own_as_getrlimit_says() {
        let limits = read(&TaskDir::current().unwrap(), &mut Vec::new()).unwrap();
        for resource in [nix::sys::resource::Resource::RLIMIT_NOFILE, nix::sys::resource::Resource::RLIMIT_AS] {
            let (soft, hard) = nix::sys::resource::getrlimit(resource).unwrap();
            assert_eq!(limits[resource as usize], [soft, hard]);
        }
    }

    #[test]
    fn a_missing_limit_is_named() {
        let error = parse(b"Max cpu time              unlimited            7            seconds\n").unwrap_err();
        assert_eq!(error.found, "Max file size");
        assert_eq!(parse(b"Max cpu time   unlimited\n").unwrap_err().line, 1);
    }
}
