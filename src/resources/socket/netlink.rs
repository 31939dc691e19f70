//! Netlink sockets.

use super::Refusal;
use crate::image::model::socket::netlink::Netlink;
use crate::proc::netlink_table;
use crate::sys::audit::{self, NETLINK_AUDIT};
use crate::sys::socket;
use std::io;
use std::os::fd::BorrowedFd;

// include/uapi/linux/netlink.h
const NETLINK_LIST_MEMBERSHIPS: i32 = 9;

/// Why a socket with messages cannot be saved.
pub const UNREAD: &str = "messages wait in it that nobody has read and that nobody but the kernel can send";

/// The protocols whose sockets the kernel ties to nothing that cannot be seen, and what they are called.
const KNOWN: &[(i32, &str)] = &[
    (0, "NETLINK_ROUTE"),
    (2, "NETLINK_USERSOCK"),
    (4, "NETLINK_SOCK_DIAG"),
    (6, "NETLINK_XFRM"),
    (7, "NETLINK_SELINUX"),
    (NETLINK_AUDIT, "NETLINK_AUDIT"),
    (10, "NETLINK_FIB_LOOKUP"),
    (11, "NETLINK_CONNECTOR"),
    (NETFILTER, "NETLINK_NETFILTER"),
    (15, "NETLINK_KOBJECT_UEVENT"),
    (16, "NETLINK_GENERIC"),
];
const NETFILTER: i32 = 12;

/// The others that have a name.
const TIED: &[(i32, &str)] = &[
    (5, "NETLINK_NFLOG"),
    (8, "NETLINK_ISCSI"),
    (14, "NETLINK_DNRTMSG"),
    (18, "NETLINK_SCSITRANSPORT"),
    (19, "NETLINK_ECRYPTFS"),
    (20, "NETLINK_RDMA"),
    (21, "NETLINK_CRYPTO"),
    (22, "NETLINK_SMC"),
];

/// What a protocol of netlink is called.
#[must_use]
pub fn protocol(number: i32) -> String {
    let named = KNOWN.iter().chain(TIED).find(|(named, _)| *named == number);
    named.map_or_else(|| format!("netlink protocol {number}"), |(_, name)| (*name).to_owned())
}

/// What is known of it, or why it cannot be saved.
///
/// # Errors
/// As getsockname(2) and its like, or the table of /proc.
pub fn collect(ino: u64, fd: BorrowedFd<'_>, number: i32) -> io::Result<Result<Netlink, Refusal>> {
    if !KNOWN.iter().any(|(known, _)| *known == number) {
        let reason = format!("{}: what the kernel keeps for its sockets cannot be read", protocol(number));
        return Ok(Err(Refusal::Never(reason)));
    }
    if number == NETLINK_AUDIT
        && let Some(reason) = audit_role(ino)?
    {
        return Ok(Err(Refusal::Never(reason.into())));
    }
    let [port, _] = words(&socket::own_address(fd)?)?;
    if let Some(role) = netfilter_role(number, port)? {
        return Ok(Err(Refusal::Never(format!("the kernel sends it the packets of {role}"))));
    }
    let waiting = socket::waiting(fd)?;
    if waiting & libc::POLLERR != 0 {
        let reason = "it has an error that was not told yet, which cannot be read without taking it away";
        return Ok(Err(Refusal::passing(reason)));
    }
    // The table has those alone that have a port id; without one nothing can come.
    let rows = netlink_table::read().map_err(io::Error::other)?;
    let row = rows.iter().find(|row| row.ino == ino);
    if row.is_some_and(|row| row.dumping) {
        return Ok(Err(Refusal::passing("it reads a list from the kernel, which keeps the place where it stands")));
    }
    if waiting & libc::POLLIN != 0 {
        return Ok(Err(Refusal::passing(UNREAD)));
    }
    let peer = words(&socket::peer_address(fd)?)?;
    Ok(Ok(Netlink { port, groups: groups(fd)?, peer }))
}

/// Whether the kernel keeps memory for a socket in which nothing waits: what is to tell its process of a message in a POSIX message queue (ipc/mqueue.c,
/// `do_mq_notify`), or what is on its way this very moment.
///
/// # Errors
/// As getsockopt(2).
pub fn is_charged(fd: BorrowedFd<'_>) -> io::Result<bool> {
    /// The first word is SK_MEMINFO_RMEM_ALLOC.
    const SO_MEMINFO: i32 = 55;
    let words = socket::option(fd, libc::SOL_SOCKET, SO_MEMINFO)?;
    Ok(words.first_chunk().is_some_and(|word| u32::from_ne_bytes(*word) > 0))
}

/// Port id and groups of a `struct sockaddr_nl`.
fn words(address: &[u8]) -> io::Result<[u32; 2]> {
    let word = |at: usize| Some(u32::from_ne_bytes(*address.get(at..)?.first_chunk()?));
    word(4).zip(word(8)).map(|(port, groups)| [port, groups]).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let bits = socket::option(fd, libc::SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS)?;
    let (words, _) = bits.as_chunks();
    let words = words.iter().map(|word| u32::from_ne_bytes(*word)).zip((0..).step_by(32));
    Ok(words
        .flat_map(|(word, first)| (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit + 1))
        .collect())
}

/// Why it may be the socket to which the kernel sends what is audited, which an audit daemon has said of its own (AUDIT_SET).
fn audit_role(ino: u64) -> io::Result<Option<&'static str>> {
    // Nobody else may say so (kernel/audit.c, `audit_netlink_ok`), and the target is where we are.
    if !is_initial("pid", 0xeffffffc) || !is_initial("user", 0xeffffffd) {
        return Ok(None);
    }
    match audit::daemon() {
        Ok(None) => Ok(None),
        Ok(Some(pid)) => {
            let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let own = format!("socket:[{ino}]");
            let is_own = |link: io::Result<std::path::PathBuf>| link.is_ok_and(|link| link.as_os_str() == own.as_str());
            let mut links = descriptors.map(|entry| std::fs::read_link(entry.path()));
            Ok(links
                .any(is_own)
                .then_some("NETLINK_AUDIT: the kernel sends what is audited to the process that has it"))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Some(
            "NETLINK_AUDIT: whether the kernel sends to it what is audited is told to those with CAP_AUDIT_CONTROL",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether our namespace of this kind is the one that was there first (include/linux/proc_ns.h).
fn is_initial(kind: &str, ino: u64) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/self/ns/{kind}")).is_ok_and(|meta| meta.ino() == ino)
}

/// What of the packet filter leads to this port (net/netfilter/nfnetlink_queue.c and nfnetlink_log.c, `seq_show`): number and port id come first.
fn netfilter_role(number: i32, port: u32) -> io::Result<Option<String>> {
    if number != NETFILTER {
        return Ok(None);
    }
    for (path, role) in [("nfnetlink_queue", "queue"), ("nfnetlink_log", "log")] {
        let text = match std::fs::read_to_string(format!("/proc/net/netfilter/{path}")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in text.lines() {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            if let (Some(Ok(queue)), Some(Ok(to))) = (numbers.next(), numbers.next())
                && to == port
                && port != 0
            {
                return Ok(Some(format!("netfilter {role} {queue}")));
            }
        }
    }
    Ok(None)
}
