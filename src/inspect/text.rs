//! How reports spell bytes, times and raw names.

use std::fmt::Write;

/// `512 B`, `4.0 KiB`, `1.5 GiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 99.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// A duration in nanoseconds: `850 ns`, `85.0 us`, `1.25 ms`, `3.10 s`, `2 h 05 min`.
#[must_use]
pub fn nanos(nanos: u64) -> String {
    let seconds = nanos as f64 / 1e9;
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} us", seconds * 1e6),
        1_000_000..1_000_000_000 => format!("{:.2} ms", seconds * 1e3),
        1_000_000_000..120_000_000_000 => format!("{seconds:.2} s"),
        120_000_000_000..7_200_000_000_000 => {
            format!("{} min {:02} s", nanos / 60_000_000_000, nanos / 1_000_000_000 % 60)
        }
        7_200_000_000_000.. => format!("{} h {:02} min", nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60),
    }
}

/// Nanoseconds since the epoch as UTC: `2026-11-21 02:32:28.123`.
#[must_use]
pub fn instant(nanos: i64) -> String {
    let millis = nanos.div_euclid(1_000_000);
    let (days, in_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let seconds = in_day / 1000;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        in_day % 1000
    )
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years that begin in March put the leap day at the end; 719,468 days lie between 0000-03-01 and 1970-01-01.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Raw bytes as text for JSON: what is not UTF-8 stands as `\xNN`, all else is unchanged.
#[must_use]
pub fn lossless(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Raw bytes as text for a terminal: control characters are escaped too, so that no image can write to the terminal.
#[must_use]
pub fn printable(raw: &[u8]) -> String {
    escape_controls(&lossless(raw))
}

/// Text of an image for a terminal.
#[must_use]
pub fn escape_controls(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Bytes as hexadecimal digits, such as a build id.
#[must_use]
pub fn digits(raw: &[u8]) -> String {
    raw.iter().fold(String::with_capacity(raw.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `1 thread`, `2 threads`.
#[must_use]
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_a_unit_and_about_three_digits() {
        for (value, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (324_009_984, "309 MiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (value, text) in [
            (0, "0 ns"),
            (85_000, "85.0 us"),
            (1_250_000, "1.25 ms"),
            (3_100_000_000, "3.10 s"),
            (125_000_000_000, "2 min 05 s"),
            (7_500_000_000_000, "2 h 05 min"),
        ] {
            assert_eq!(nanos(value), text);
        }
    }

    #[test]
    fn instants_are_utc() {
        for (value, text) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_400_000_000_000, "2000-02-29 00:00:00.000"),
            (1_795_228_348_123_000_000, "2026-11-21 02:32:28.123"),
            (-1, "1969-12-31 23:59:59.999"),
            (i64::MIN, "1677-09-21 00:12:43.145"),
        ] {
            assert_eq!(instant(value), text);
        }
    }

    #[test]
    fn raw_names_lose_nothing_and_cannot_write_to_the_terminal() {
        assert_eq!(lossless(b"a\xff\n\xc3\xa4"), "a\\xff\n\u{e4}");
        assert_eq!(printable(b"a\xff\n\x1b[2J"), "a\\xff\\n\\u{1b}[2J");
    }
}
