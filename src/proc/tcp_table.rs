//! `/proc/net/tcp` and `/proc/net/tcp6`: the TCP sockets of a network namespace that packets can reach (net/ipv4/tcp_ipv4.c, `tcp4_seq_show`).

use super::error::{Error, ParseError, if_present};
use super::scan;
use super::task_dir::read_whole;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const KIND: &str = "tcp";

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its own address.
    pub local: SocketAddr,
    /// That of the other side.
    pub peer: SocketAddr,
    /// State, numbered as in include/net/tcp_states.h.
    pub state: u8,
    /// Bytes that were received and not read; of a listener, connections that were not accepted.
    pub unread: u32,
    /// Inode number, 0 where no process has it.
    pub ino: u64,
}

/// Reads both tables of our own network namespace.
///
/// # Errors
/// See [`Error`]. A kernel without IPv6 has no second one.
pub fn read(buffer: &mut Vec<u8>) -> Result<Vec<Row>, Error> {
    read_of("tcp", buffer)
}

/// As [`read`], of another protocol whose tables are like these: `udp`, `udplite`, `raw`, `icmp`.
///
/// # Errors
/// As [`read`].
pub fn read_of(protocol: &str, buffer: &mut Vec<u8>) -> Result<Vec<Row>, Error> {
    read_versions(protocol, &[Version::Four, Version::Six], buffer)
}

/// The tables of our own network namespace by inode number, each read when a socket is asked for that is not in it yet.
#[derive(Debug, Default)]
pub struct Tables {
    known: HashMap<&'static str, HashMap<u64, Row>>,
}

impl Tables {
    /// What is known of a socket of that protocol, as for [`read_of`].
    ///
    /// # Errors
    /// As [`read`].
    pub fn row(&mut self, protocol: &'static str, ino: u64) -> Result<Option<Row>, Error> {
        if let Some(row) = self.known.get(protocol).and_then(|rows| rows.get(&ino)) {
            return Ok(Some(*row));
        }
        let rows: HashMap<u64, Row> =
            read_of(protocol, &mut Vec::new())?.into_iter().map(|row| (row.ino, row)).collect();
        let found = rows.get(&ino).copied();
        self.known.insert(protocol, rows);
        Ok(found)
    }
}

/// Which of the two tables: that of the sockets of AF_INET, or that of those of AF_INET6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `/proc/net/tcp`.
    Four,
    /// `/proc/net/tcp6`.
    Six,
}

/// As [`read_of`], of some tables alone: for each of them the kernel goes through all that it has room for.
///
/// # Errors
/// As [`read`].
pub fn read_versions(protocol: &str, versions: &[Version], buffer: &mut Vec<u8>) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for version in versions {
        let suffix = match version {
            Version::Four => "",
            Version::Six => "6",
        };
        rows.extend(if_present(table(&format!("/proc/self/net/{protocol}{suffix}"), buffer))?.unwrap_or_default());
    }
    Ok(rows)
}

fn table(path: &str, buffer: &mut Vec<u8>) -> Result<Vec<Row>, Error> {
    let read = std::fs::File::open(path).and_then(|file| read_whole(&file, buffer));
    read.map_err(|source| Error::from_io(path, source))?;
    parse(buffer).map_err(|source| Error::Parse { path: path.into(), source })
}

/// Parses one table.
///
/// # Errors
/// Names the line.
pub fn parse(text: &[u8]) -> Result<Vec<Row>, ParseError> {
    scan::lines(text)
        .skip(1)
        .map(|(number, line)| parse_line(line).map_err(|expected| ParseError::new(KIND, number, expected, line)))
        .collect()
}

fn parse_line(line: &[u8]) -> Result<Row, &'static str> {
    let mut words = scan::words(line).skip(1);
    let local = words.next().and_then(address).ok_or("own address")?;
    let peer = words.next().and_then(address).ok_or("other address")?;
    let state = words.next().and_then(scan::hex).ok_or("state")?;
    let queues = words.next().and_then(|word| scan::split_once(word, b':')).ok_or("queues")?;
    let unread = scan::hex(queues.1).ok_or("bytes received")?;
    let ino = words.nth(4).and_then(scan::decimal).ok_or("inode")?;
    Ok(Row { local, peer, state, unread, ino })
}

/// Words of the address as this CPU has them in memory, then the port.
fn address(word: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = scan::split_once(word, b':')?;
    let words = |at: usize| scan::hex::<u32>(ip.get(at..at + 8)?).map(u32::to_ne_bytes);
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(words(0)?).into(),
        32 => {
            let parts: Option<Vec<[u8; 4]>> = (0..4).map(|part| words(part * 8)).collect();
            let octets: [u8; 16] = parts?.concat().try_into().ok()?;
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, scan::hex(port)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn sockets_of_both_families() {
        let four = parse(include_bytes!("../../fixtures/proc/net/tcp")).unwrap();
        let listener = Row {
            local: "127.0.0.1:5000".parse().unwrap(),
            peer: "0.0.0.0:0".parse().unwrap(),
            state: 10,
            unread: 2,
            ino: 1_045_649,
        };
        assert_eq!((four.len(), four[0]), (4, listener));
        assert_eq!((four[2].peer.port(), four[2].ino), (43880, 0));
        let six = parse(include_bytes!("../../fixtures/proc/net/tcp6")).unwrap();
        assert_eq!(six[0].local, "[::1]:5001".parse().unwrap());
        assert_eq!(six[1].peer, "[::ffff:127.0.0.1]:5000".parse().unwrap());
    }

    #[test]
    fn errors_name_the_line() {
        let error = parse(b"head\n 0: 0100007F:1388 0000:0 0A").unwrap_err();
        assert_eq!((error.line, error.expected), (2, "other address"));
    }

    #[test]
    fn a_socket_that_is_younger_than_the_table_is_found() {
        let ino = |socket: &std::net::TcpListener| {
            let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
            link.to_str().unwrap().trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap()
        };
        let mut tables = Tables::default();
        for _ in 0..2 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let row = tables.row("tcp", ino(&listener)).unwrap().unwrap();
            assert_eq!(row.local, listener.local_addr().unwrap());
            assert_eq!(tables.row("udp", ino(&listener)).unwrap(), None);
        }
    }

    #[test]
    fn a_socket_of_our_own_is_listed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let rows = read(&mut Vec::new()).unwrap();
        assert!(rows.iter().any(|row| row.local == local && row.state == 10 && row.ino != 0), "{rows:?}");
    }
}
