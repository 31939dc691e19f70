//! How values of options are read.

use std::net::IpAddr;
use std::time::Duration;

/// `--compress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Pages as they are.
    None,
    /// zstd at this level.
    Zstd(i32),
}

/// The level that `--compress zstd` means.
const DEFAULT_LEVEL: i32 = 1;

pub(super) fn compression(text: &str) -> Result<Compression, String> {
    let wrong = || "expected none, zstd, or zstd:LEVEL with LEVEL from -7 to 22".to_owned();
    match text.split_once(':') {
        None if text == "none" => Ok(Compression::None),
        None if text == "zstd" => Ok(Compression::Zstd(DEFAULT_LEVEL)),
        Some(("zstd", level)) => match level.parse() {
            Ok(level) if (-7..=22).contains(&level) => Ok(Compression::Zstd(level)),
            Ok(_) | Err(_) => Err(wrong()),
        },
        None | Some(_) => Err(wrong()),
    }
}

pub(super) fn pid(text: &str) -> Result<i32, String> {
    match text.parse::<i32>() {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(_) | Err(_) => Err("expected the number of a process, such as pidof(1) or ps(1) shows".to_owned()),
    }
}

/// `FD:LINK`.
pub(super) fn inherited(text: &str) -> Result<(i32, String), String> {
    let (fd, link) = text.split_once(':').ok_or("not FD:LINK, as in 3:pipe:[4711]")?;
    let fd = fd.parse().ok().filter(|fd| *fd >= 0).ok_or_else(|| format!("{fd} is no descriptor"))?;
    Ok((fd, link.to_owned()))
}

/// `OLD=NEW`, both of one family.
pub(super) fn mapped(text: &str) -> Result<(IpAddr, IpAddr), String> {
    let (old, new) = text.split_once('=').ok_or("not OLD=NEW, as in 10.0.0.1=10.0.0.7")?;
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("{text} is no address"));
    let (old, new) = (address(old)?, address(new)?);
    if old.is_ipv4() == new.is_ipv4() { Ok((old, new)) } else { Err("one is of IPv4 and one of IPv6".to_owned()) }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected seconds, such as 5 or 0.5".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Ok(_) | Err(_) => Err("expected more than 0 seconds".to_owned()),
    }
}
