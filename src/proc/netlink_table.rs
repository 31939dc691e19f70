//! `/proc/net/netlink`: the netlink sockets of a network namespace (net/netlink/af_netlink.c, `netlink_native_seq_show`).

use super::error::{Error, ParseError};
use super::scan;

const KIND: &str = "netlink";

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The protocol, such as NETLINK_ROUTE.
    pub protocol: u32,
    /// Its port id.
    pub port: u32,
    /// Bytes of memory of what was not read.
    pub unread: u32,
    /// Whether the kernel has not ended its answer to a request for a list.
    pub dumping: bool,
    /// Inode number, 0 for those of the kernel.
    pub ino: u64,
}

/// Reads the table of our own network namespace.
///
/// # Errors
/// See [`Error`].
pub fn read() -> Result<Vec<Row>, Error> {
    const PATH: &str = "/proc/self/net/netlink";
    let text = std::fs::read(PATH).map_err(|source| Error::from_io(PATH, source))?;
    parse(&text).map_err(|source| Error::Parse { path: PATH.into(), source })
}

/// Parses the table.
///
/// # Errors
/// Names the line.
pub fn parse(text: &[u8]) -> Result<Vec<Row>, ParseError> {
    scan::lines(text)
        .skip(1)
        .map(|(number, line)| row(line).map_err(|expected| ParseError::new(KIND, number, expected, line)))
        .collect()
}

fn row(line: &[u8]) -> Result<Row, &'static str> {
    let mut words = scan::words(line).skip(1);
    let protocol = words.next().and_then(scan::decimal).ok_or("protocol")?;
    let port = words.next().and_then(scan::decimal).ok_or("port id")?;
    let unread = words.nth(1).and_then(scan::decimal).ok_or("bytes received")?;
    let dumping = words.nth(1).and_then(scan::decimal::<u32>).ok_or("whether a list is being read")? != 0;
    let ino = words.nth(2).and_then(scan::decimal).ok_or("inode")?;
    Ok(Row { protocol, port, unread, dumping, ino })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_what_waits() {
        let text = b"sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
            0000000000000000 0   1423       00000551 768      0        1     2        0        15341   \n";
        let expected = Row { protocol: 0, port: 1423, unread: 768, dumping: true, ino: 15341 };
        assert_eq!(parse(text).unwrap(), [expected]);
        assert_eq!(parse(b"head\n0 0 x").unwrap_err().expected, "port id");
    }

    #[test]
    fn those_of_this_host_are_read() {
        assert!(!read().unwrap().is_empty());
    }
}
