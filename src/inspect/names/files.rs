//! Files: modes, open flags (open(2), inode(7)).

use super::bits;

/// Access mode of F_GETFL: `r`, `w`, `rw`, or `-` for O_PATH and the ioctl-only mode 3.
#[must_use]
pub fn access(flags: u32) -> &'static str {
    match (flags & 0x20_0000 != 0, flags & 3) {
        (true, _) => "-",
        (false, 0) => "r",
        (false, 1) => "w",
        (false, 2) => "rw",
        (false, _) => "-",
    }
}

/// Status flags of F_GETFL, the access mode left out.
#[must_use]
pub fn open_flags(flags: u32) -> Vec<String> {
    bits(
        u64::from(flags & !3),
        &[
            (0x40, "O_CREAT"),
            (0x80, "O_EXCL"),
            (0x100, "O_NOCTTY"),
            (0x200, "O_TRUNC"),
            (0x400, "O_APPEND"),
            (0x800, "O_NONBLOCK"),
            (0x41_0000, "O_TMPFILE"),
            (0x10_1000, "O_SYNC"),
            (0x1000, "O_DSYNC"),
            (0x2000, "O_ASYNC"),
            (0x4000, "O_DIRECT"),
            (0x8000, "O_LARGEFILE"),
            (0x1_0000, "O_DIRECTORY"),
            (0x2_0000, "O_NOFOLLOW"),
            (0x4_0000, "O_NOATIME"),
            (0x8_0000, "O_CLOEXEC"),
            (0x20_0000, "O_PATH"),
        ],
    )
}

/// `st_mode` as ls(1) writes it: `-rwxr-xr-x`.
#[must_use]
pub fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o140_000 => 's',
        0o120_000 => 'l',
        0o100_000 => '-',
        0o060_000 => 'b',
        0o040_000 => 'd',
        0o020_000 => 'c',
        0o010_000 => 'p',
        _ => '?',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Major and minor number of a `dev_t` as `8:1` (makedev(3)).
#[must_use]
pub fn device(dev: u64) -> String {
    let major = (dev >> 8 & 0xfff) | (dev >> 32 & 0xffff_f000);
    let minor = (dev & 0xff) | (dev >> 12 & 0xffff_ff00);
    format!("{major}:{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_like_those_of_ls() {
        for (value, text) in [
            (0o100_755, "-rwxr-xr-x"),
            (0o041_777, "drwxrwxrwt"),
            (0o104_711, "-rws--x--x"),
            (0o102_644, "-rw-r-Sr--"),
            (0o020_620, "crw--w----"),
        ] {
            assert_eq!(mode(value), text);
        }
    }

    #[test]
    fn flags_are_named_longest_first() {
        assert_eq!(access(0x8001), "w");
        assert_eq!(access(0x20_0000), "-");
        assert_eq!(open_flags(0x8c02), ["O_APPEND", "O_NONBLOCK", "O_LARGEFILE"]);
        assert_eq!(open_flags(0x10_1000), ["O_SYNC"]);
        assert_eq!(open_flags(0x1_0000), ["O_DIRECTORY"]);
        assert_eq!(open_flags(0x41_0002), ["O_TMPFILE"]);
    }

    #[test]
    fn devices_have_two_numbers() {
        assert_eq!(device(0x801), "8:1");
        assert_eq!(device(0x0000_0000_0010_0001), "0:257");
    }
}
