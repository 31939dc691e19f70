//! `/proc/net/igmp` and `/proc/net/igmp6`: the multicast groups of each network device (net/ipv4/igmp.c, net/ipv6/mcast.c).

use super::error::{Error, ParseError};
use super::scan;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const KIND: &str = "igmp";

/// A group that somebody has joined on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The device's number.
    pub index: u32,
    /// The device's name.
    pub device: Vec<u8>,
    /// The group.
    pub address: IpAddr,
}

/// Reads those of our own network namespace, IPv4 first.
///
/// # Errors
/// See [`Error`]. A kernel without one of the protocols has no file of it, and no groups.
pub fn read() -> Result<Vec<Group>, Error> {
    let mut groups = Vec::new();
    for (path, parse) in [("/proc/net/igmp", parse_v4 as fn(&[u8]) -> _), ("/proc/net/igmp6", parse_v6)] {
        match std::fs::read(path) {
            Ok(text) => {
                groups.extend(parse(&text).map_err(|source| Error::Parse { path: path.into(), source })?);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::from_io(path, error)),
        }
    }
    Ok(groups)
}

/// Parses `igmp`: a line for each device, and under it indented ones for its groups.
///
/// # Errors
/// Names the line.
pub fn parse_v4(text: &[u8]) -> Result<Vec<Group>, ParseError> {
    let mut groups = Vec::new();
    let mut device: Option<(u32, Vec<u8>)> = None;
    for (number, line) in scan::lines(text).skip(1) {
        let mut words = scan::words(line);
        if line.first().is_some_and(|byte| byte.is_ascii_whitespace()) {
            // The address is printed as one number of this CPU's byte order.
            let address = words.next().and_then(scan::hex::<u32>).map(u32::to_ne_bytes);
            let (Some(address), Some((index, name))) = (address, &device) else {
                return Err(ParseError::new(KIND, number, "a group of a device", line));
            };
            groups.push(Group { index: *index, device: name.clone(), address: Ipv4Addr::from(address).into() });
        } else {
            let index = words.next().and_then(scan::decimal);
            let (Some(index), Some(name)) = (index, words.next()) else {
                return Err(ParseError::new(KIND, number, "number and name of a device", line));
            };
            device = Some((index, name.to_vec()));
        }
    }
    Ok(groups)
}

/// Parses `igmp6`: a line for each group of each device.
///
/// # Errors
/// Names the line.
pub fn parse_v6(text: &[u8]) -> Result<Vec<Group>, ParseError> {
    let group = |line: &[u8]| {
        let mut words = scan::words(line);
        let index = words.next().and_then(scan::decimal)?;
        let device = words.next()?.to_vec();
        let word = words.next().filter(|word| word.len() == 32)?;
        let half = |at: usize| scan::hex::<u64>(&word[at..at + 16]).map(u128::from);
        let address = Ipv6Addr::from(half(0)? << 64 | half(16)?).into();
        Some(Group { index, device, address })
    };
    scan::lines(text)
        .map(|(number, line)| {
            group(line).ok_or_else(|| ParseError::new(KIND, number, "number and name of a device, and a group", line))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_protocols() {
        let text = b"Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
            1\tlo        :     2      V3\n\t\t\t\tFA0101EF     1 0:00000000\t\t1\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
            3\teth0      :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n";
        let group = |index, device: &[u8], address: &str| Group {
            index,
            device: device.to_vec(),
            address: address.parse().unwrap(),
        };
        assert_eq!(
            parse_v4(text).unwrap(),
            [group(1, b"lo", "239.1.1.250"), group(1, b"lo", "224.0.0.1"), group(3, b"eth0", "224.0.0.1")]
        );
        let text = b"1    lo              ff020000000000000000000000000001     1 0000000C 0\n";
        assert_eq!(parse_v6(text).unwrap(), [group(1, b"lo", "ff02::1")]);
        assert!(parse_v4(b"head\n\t\tFA0101EF 1\n").is_err());
        assert!(parse_v6(b"1 lo ff02\n").is_err());
    }

    #[test]
    fn those_of_this_host_are_read() {
        read().unwrap();
    }
}
