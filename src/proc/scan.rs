//! Scanning of kernel text: lines, words, numbers, and the octal escapes of `seq_path` (fs/seq_file.c).

use std::borrow::Cow;
use std::io::BufRead;

/// Splits off the first line; neither part holds its newline.
pub(super) fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let mut rest = text;
    // skip_until on a slice is the libc's memchr and cannot fail.
    let taken = rest.skip_until(b'\n').unwrap_or(text.len());
    let line = &text[..taken];
    (line.strip_suffix(b"\n").unwrap_or(line), rest)
}

/// Lines with their numbers, counted from 1.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = text;
    let mut number = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, after) = split_line(rest);
        rest = after;
        number += 1;
        Some((number, line))
    })
}

/// Words between blanks and tabs.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| byte == b' ' || byte == b'\t').filter(|word| !word.is_empty())
}

/// Splits at the first `separator`.
pub(super) fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// A number of at most `SAFE` digits cannot overflow; a longer one may, or begins with zeros.
fn number<const RADIX: u32, const SAFE: usize>(text: &[u8]) -> Option<u64> {
    let radix = u64::from(RADIX);
    let mut digits = text.iter().map(|&byte| char::from(byte).to_digit(RADIX).map(u64::from));
    if text.is_empty() {
        None
    } else if text.len() <= SAFE {
        digits.try_fold(0_u64, |sum, digit| Some(sum.wrapping_mul(radix).wrapping_add(digit?)))
    } else {
        digits.try_fold(0_u64, |sum, digit| sum.checked_mul(radix)?.checked_add(digit?))
    }
}

fn base_ten(text: &[u8]) -> Option<u64> {
    number::<10, 19>(text)
}

/// An unsigned decimal number that fits `T`.
pub(super) fn decimal<T: TryFrom<u64>>(text: &[u8]) -> Option<T> {
    T::try_from(base_ten(text)?).ok()
}

/// A decimal number with an optional minus sign that fits `T`.
pub(super) fn signed<T: TryFrom<i64>>(text: &[u8]) -> Option<T> {
    let value = match text.strip_prefix(b"-") {
        Some(digits) => 0_i64.checked_sub_unsigned(base_ten(digits)?)?,
        None => i64::try_from(base_ten(text)?).ok()?,
    };
    T::try_from(value).ok()
}

/// A hexadecimal number without prefix that fits `T`.
pub(super) fn hex<T: TryFrom<u64>>(text: &[u8]) -> Option<T> {
    T::try_from(number::<16, 16>(text)?).ok()
}

/// A hexadecimal number with the prefix `0x` that fits `T`.
pub(super) fn prefixed_hex<T: TryFrom<u64>>(text: &[u8]) -> Option<T> {
    hex(text.strip_prefix(b"0x")?)
}

/// An octal number that fits `T`.
pub(super) fn octal<T: TryFrom<u64>>(text: &[u8]) -> Option<T> {
    T::try_from(number::<8, 21>(text)?).ok()
}

/// `major:minor`, both hexadecimal, as a `dev_t`.
pub(super) fn hex_device(text: &[u8]) -> Option<u64> {
    let (major, minor) = split_once(text, b':')?;
    Some(libc::makedev(hex(major)?, hex(minor)?))
}

/// `major:minor`, both decimal, as a `dev_t`.
pub(super) fn decimal_device(text: &[u8]) -> Option<u64> {
    let (major, minor) = split_once(text, b':')?;
    Some(libc::makedev(decimal(major)?, decimal(minor)?))
}

/// A bitmap as `%*pb` prints it: hexadecimal words of 32 bits, the most significant first, between commas.
/// Gives words of 64 bits, the least significant first.
pub(super) fn bitmap(text: &[u8]) -> Option<Vec<u64>> {
    let mut words = Vec::new();
    for (index, chunk) in text.rsplit(|&byte| byte == b',').enumerate() {
        let half: u32 = hex(chunk)?;
        if index % 2 == 0 {
            words.push(u64::from(half));
        } else if let Some(last) = words.last_mut() {
            *last |= u64::from(half) << 32;
        }
    }
    Some(words)
}

/// Decodes `\ooo` for the bytes of `escaped` alone: each file of /proc escapes a set of its own, and where the backslash
/// itself is not among them, a backslash in a name stands for itself.
pub(super) fn unescape<'a>(text: &'a [u8], escaped: &[u8]) -> Cow<'a, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| byte == b'\\').and_then(octal::<u8>);
        match code.filter(|code| escaped.contains(code)) {
            Some(code) => {
                decoded.push(code);
                rest = &after[3..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    Cow::Owned(decoded)
}

/// The value of a file that holds one line.
pub(super) fn only_line(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\n").unwrap_or(text)
}

/// The text without the blanks and tabs around it.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// Lines `Key:<blank>value`, looked up in the order of the file at almost no cost.
pub(super) struct Fields<'a> {
    lines: Vec<(usize, &'a [u8], &'a [u8])>,
    cursor: usize,
}

impl<'a> Fields<'a> {
    /// Splits every line at its first colon; lines without one are left out.
    pub(super) fn new(text: &'a [u8]) -> Self {
        let lines = lines(text).filter_map(|(number, line)| {
            let (key, value) = split_once(line, b':')?;
            Some((number, key, value.strip_prefix(b"\t").unwrap_or(value)))
        });
        Self { lines: lines.collect(), cursor: 0 }
    }

    /// The line number and the value of a key. Searching goes on where the last search ended.
    pub(super) fn get(&mut self, key: &[u8]) -> Option<(usize, &'a [u8])> {
        let count = self.lines.len();
        let found = (0..count).map(|step| (self.cursor + step) % count).find(|&index| self.lines[index].1 == key)?;
        self.cursor = found;
        Some((self.lines[found].0, self.lines[found].2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_their_bounds() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal::<u64>(b"18446744073709551616"), None);
        assert_eq!(decimal(b"000000000000000000000000007"), Some(7_u8));
        assert_eq!(decimal::<u8>(b"256"), None);
        assert_eq!(hex(b"ffffffffffffffff"), Some(u64::MAX));
        assert_eq!(hex::<u64>(b"10000000000000000"), None);
        assert_eq!(octal(b"1777777777777777777777"), Some(u64::MAX));
        assert_eq!(octal::<u64>(b"2777777777777777777777"), None);
        assert_eq!(signed(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(signed::<i64>(b"9223372036854775808"), None);
        for text in [b"".as_slice(), b"-", b"+1", b"1 ", b"0x1", b"8g"] {
            assert_eq!((decimal::<u64>(text), octal::<u64>(text), hex::<u64>(text)), (None, None, None));
            assert_eq!(signed::<i64>(text), None);
        }
    }

    #[test]
    fn bitmaps_of_any_length() {
        assert_eq!(bitmap(b"3"), Some(vec![3]));
        assert_eq!(bitmap(b"1,00000000,80000001"), Some(vec![0x8000_0001, 1]));
        assert_eq!(bitmap(b"ff,,1"), None);
        assert_eq!(bitmap(b"100000000"), None);
    }

    #[test]
    fn escapes_of_the_given_bytes_alone() {
        assert_eq!(unescape(br"a\012b\040c", b"\n").as_ref(), b"a\nb\\040c");
        assert_eq!(unescape(br"\134012", br"\").as_ref(), br"\012");
        assert_eq!(unescape(br"\01", b"\n\x01").as_ref(), br"\01");
        assert_eq!(unescape(br"\777", b"\xff").as_ref(), br"\777");
    }

    #[test]
    fn fields_in_any_order() {
        let mut fields = Fields::new(b"a:\t1\nb: 2\nno colon\na:\t3\n");
        assert_eq!(fields.get(b"b"), Some((2, b" 2".as_slice())));
        assert_eq!(fields.get(b"a"), Some((4, b"3".as_slice())));
        assert_eq!(fields.get(b"c"), None);
    }
}
