//! `comm`, `cmdline` and `environ`: raw bytes.

use super::error::Error;
use super::scan;
use super::task_dir::TaskDir;

/// Reads the command name of a thread, at most 15 bytes, not escaped.
///
/// # Errors
/// See [`Error`].
pub fn comm(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Vec<u8>, Error> {
    Ok(parse_comm(task.read_into("comm", buffer)?).to_vec())
}

/// Reads the arguments, as the program may have rewritten them; none for a zombie and a thread of the kernel.
///
/// # Errors
/// See [`Error`].
pub fn cmdline(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Vec<Vec<u8>>, Error> {
    Ok(parse_strings(task.read_into("cmdline", buffer)?))
}

/// Reads the environment that the program was started with. A zombie has none and counts as vanished (ESRCH).
///
/// # Errors
/// See [`Error`].
pub fn environ(task: &TaskDir, buffer: &mut Vec<u8>) -> Result<Vec<Vec<u8>>, Error> {
    Ok(parse_strings(task.read_into("environ", buffer)?))
}

/// The name without the newline that the kernel adds.
#[must_use]
pub fn parse_comm(text: &[u8]) -> &[u8] {
    scan::only_line(text)
}

/// Strings that each end in a zero byte; the last may lack it.
#[must_use]
pub fn parse_strings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_program_with_odd_names() {
        assert_eq!(parse_comm(include_bytes!("../../fixtures/proc/fds/comm")), b"a b) (\\\n:c");
        let args = parse_strings(include_bytes!("../../fixtures/proc/fds/cmdline"));
        assert_eq!(args, [b"python3".as_slice(), b"fds.py", b"arg", b"", b"two words"]);
        let environ = parse_strings(include_bytes!("../../fixtures/proc/fds/environ"));
        assert_eq!(environ, [b"LANG=C".as_slice(), b"EMPTY=", b"ODD=a=b\nc"]);
    }

    #[test]
    fn empty_and_unterminated() {
        assert!(parse_strings(b"").is_empty());
        assert_eq!(parse_strings(b"a\0b"), [b"a", b"b"]);
    }
}
