//! Facts of this host: kernel, boot, CPU, vdso, clocks, and what /proc/sys says.

use super::error::{Error, ParseError};
use super::task_dir::{TaskDir, read_whole};
use super::{auxv, build_id, maps, scan};
use crate::image::model::address::Addr;
use nix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// The machine and its kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `uname -n`.
    pub node: String,
    /// `uname -r`.
    pub release: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `model name` of `/proc/cpuinfo`, empty where it has none.
    pub cpu: String,
    /// GNU build id of the vdso, empty where there is none.
    pub vdso_build_id: Vec<u8>,
    /// The vdso, as it is mapped.
    pub vdso: Vec<u8>,
}

/// Clocks of the calling thread's time namespace, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// CLOCK_REALTIME.
    pub realtime: i64,
    /// CLOCK_MONOTONIC.
    pub monotonic: i64,
    /// CLOCK_BOOTTIME.
    pub boottime: i64,
}

impl Clocks {
    /// Samples the three clocks one right after the other.
    ///
    /// # Errors
    /// When the kernel lacks one of them.
    pub fn now() -> io::Result<Self> {
        let nanos = |clock| {
            let time = clock_gettime(clock)?;
            Ok::<_, io::Error>(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
        };
        Ok(Self {
            realtime: nanos(ClockId::CLOCK_REALTIME)?,
            monotonic: nanos(ClockId::CLOCK_MONOTONIC)?,
            boottime: nanos(ClockId::CLOCK_BOOTTIME)?,
        })
    }
}

/// Reads what is known of this host.
///
/// # Errors
/// See [`Error`].
pub fn read() -> Result<Host, Error> {
    let names = nix::sys::utsname::uname().map_err(|errno| Error::from_io("uname", errno.into()))?;
    let mut buffer = Vec::new();
    let vdso = own_vdso(&mut buffer)?.unwrap_or_default();
    Ok(Host {
        node: names.nodename().to_string_lossy().into_owned(),
        release: names.release().to_string_lossy().into_owned(),
        boot_id: sysctl("kernel/random/boot_id", &mut buffer)?,
        cpu: parse_cpu_model(&first_page("/proc/cpuinfo")?).unwrap_or_default(),
        vdso_build_id: build_id::of_bytes(&vdso).unwrap_or_default(),
        vdso,
    })
}

/// Bytes of memory that can be had without swapping: `MemAvailable` of `/proc/meminfo`.
#[must_use]
pub fn available_memory() -> Option<u64> {
    meminfo(b"MemAvailable:")
}

/// Bytes of all swap: `SwapTotal` of `/proc/meminfo`.
#[must_use]
pub fn swap_size() -> Option<u64> {
    meminfo(b"SwapTotal:")
}

fn meminfo(key: &[u8]) -> Option<u64> {
    let text = first_page("/proc/meminfo").ok()?;
    let (_, line) = scan::lines(&text).find(|(_, line)| line.starts_with(key))?;
    let kilobytes: u64 = scan::decimal(scan::words(line).nth(1)?)?;
    Some(kilobytes << 10)
}

/// CPUs that this machine may ever have: how many there are, and the number behind that of the last one.
///
/// # Errors
/// See [`Error`].
pub fn possible_cpus() -> Result<(u64, u64), Error> {
    let path = "/sys/devices/system/cpu/possible";
    let text = first_page(path)?;
    parse_cpu_list(&text).ok_or_else(|| Error::Parse {
        path: path.into(),
        source: ParseError::new("possible", 1, "a list of CPUs", &text),
    })
}

/// `0-3,8`: how many there are, and the number behind the last one.
#[must_use]
pub fn parse_cpu_list(text: &[u8]) -> Option<(u64, u64)> {
    let mut sum = (0, 0);
    for part in scan::trim(text).split(|byte| *byte == b',') {
        let (first, last) = scan::split_once(part, b'-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (scan::decimal(first)?, scan::decimal(last)?);
        sum = (sum.0 + last.checked_sub(first)?.checked_add(1)?, last.checked_add(1)?);
    }
    Some(sum)
}

/// Reads one value of /proc/sys, such as `kernel/pid_max`, without its newline.
///
/// # Errors
/// [`Error::Absent`] if this kernel does not have it; else see [`Error`].
pub fn sysctl(name: &str, buffer: &mut Vec<u8>) -> Result<String, Error> {
    let path = format!("/proc/sys/{name}");
    let read = File::open(&path).and_then(|file| read_whole(&file, buffer));
    read.map_err(|source| Error::from_io(path, source))?;
    Ok(String::from_utf8_lossy(scan::trim(buffer)).into_owned())
}

/// Reads a value of /proc/sys that is one number.
///
/// # Errors
/// As [`sysctl`], and when it is no number.
pub fn sysctl_number(name: &str, buffer: &mut Vec<u8>) -> Result<i64, Error> {
    let text = sysctl(name, buffer)?;
    scan::signed(text.as_bytes()).ok_or_else(|| Error::Parse {
        path: format!("/proc/sys/{name}"),
        source: ParseError::new("sysctl", 1, "a number", text.as_bytes()),
    })
}

/// The first `model name` of `/proc/cpuinfo`.
#[must_use]
pub fn parse_cpu_model(text: &[u8]) -> Option<String> {
    scan::lines(text).find_map(|(_, line)| {
        let (key, value) = scan::split_once(line, b':')?;
        (scan::trim(key) == b"model name").then(|| String::from_utf8_lossy(scan::trim(value)).into_owned())
    })
}

/// The bytes of our own vdso; `None` on a kernel booted without one.
///
/// # Errors
/// See [`Error`].
pub fn own_vdso(buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
    let task = TaskDir::current()?;
    let Some(base) = auxv::read(&task, buffer)?.get(libc::AT_SYSINFO_EHDR).map(Addr) else {
        return Ok(None);
    };
    let maps = maps::read(&task, buffer)?;
    let Some(mapping) = maps.iter().find(|mapping| mapping.range.start == base) else {
        return Ok(None);
    };
    let mut bytes = vec![0; mapping.range.len() as usize];
    let read = task.open("mem")?.read_exact_at(&mut bytes, base.0);
    read.map_err(|source| Error::from_io("/proc/thread-self/mem", source))?;
    Ok(Some(bytes))
}

/// The beginning of a file: all of cpuinfo takes long where there are many CPUs.
fn first_page(path: &str) -> Result<Vec<u8>, Error> {
    let mut page = Vec::with_capacity(4096);
    let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut page));
    read.map_err(|source| Error::from_io(path, source))?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_this_host() {
        let host = read().unwrap();
        assert_eq!(host.release, std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim_end());
        assert_eq!(host.node, std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim_end());
        assert_eq!(host.boot_id.len(), 36);
        assert!(!host.cpu.is_empty());
        // The kernel has linked it with --build-id=sha1 since 2.6.
        assert_eq!(host.vdso_build_id.len(), 20);
    }

    #[test]
    fn values_of_sysctl() {
        let mut buffer = Vec::new();
        assert!(sysctl_number("kernel/pid_max", &mut buffer).unwrap() > 300);
        assert!(sysctl_number("kernel/osrelease", &mut buffer).is_err());
        assert!(sysctl("kernel/no_such_value", &mut buffer).unwrap_err().is_absent());
    }

    #[test]
    fn clocks_go_forward() {
        let (first, second) = (Clocks::now().unwrap(), Clocks::now().unwrap());
        assert!(second.monotonic >= first.monotonic && second.boottime >= first.boottime);
        assert!(first.boottime >= first.monotonic);
    }

    #[test]
    fn lists_of_cpus() {
        let lists = [&b"0\n"[..], b"0-1\n", b"0-3,8,10-11\n"].map(parse_cpu_list);
        assert_eq!(lists, [Some((1, 1)), Some((2, 2)), Some((7, 12))]);
        assert_eq!([&b""[..], b"1-", b"3-1", b"x"].map(parse_cpu_list), [None; 4]);
    }

    #[test]
    fn model_of_a_cpu() {
        let text = b"processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Some: CPU @ 2.0GHz\n";
        assert_eq!(parse_cpu_model(text).as_deref(), Some("Some: CPU @ 2.0GHz"));
        assert_eq!(parse_cpu_model(b"processor\t: 0\n"), None);
    }
}
