//! What sockets are called, by family, type and protocol.

use super::datagram;

/// Names of address families (include/linux/socket.h).
const FAMILIES: &[(i32, &str)] = &[
    (libc::AF_UNIX, "UNIX"),
    (libc::AF_INET, "IPv4"),
    (3, "AX.25"),
    (4, "IPX"),
    (5, "AppleTalk"),
    (6, "NET/ROM"),
    (8, "ATM PVC"),
    (9, "X.25"),
    (libc::AF_INET6, "IPv6"),
    (11, "ROSE"),
    (15, "key management"),
    (libc::AF_NETLINK, "netlink"),
    (libc::AF_PACKET, "packet"),
    (20, "ATM SVC"),
    (21, "RDS"),
    (24, "PPP"),
    (26, "LLC"),
    (27, "InfiniBand"),
    (28, "MPLS"),
    (libc::AF_CAN, "CAN"),
    (libc::AF_TIPC, "TIPC"),
    (libc::AF_BLUETOOTH, "bluetooth"),
    (32, "IUCV"),
    (33, "RxRPC"),
    (34, "ISDN"),
    (35, "Phonet"),
    (36, "IEEE 802.15.4"),
    (37, "CAIF"),
    (libc::AF_ALG, "kernel crypto"),
    (39, "NFC"),
    (libc::AF_VSOCK, "vsock"),
    (41, "KCM"),
    (42, "Qualcomm IPC router"),
    (43, "SMC"),
    (libc::AF_XDP, "XDP"),
    (45, "MCTP"),
];

/// What a socket of this family, type and protocol is called.
#[must_use]
pub fn name((domain, kind, protocol): (i32, i32, i32)) -> String {
    if let Some(name) = datagram::name((domain, kind, protocol)) {
        return name.into();
    }
    let internet = matches!(domain, libc::AF_INET | libc::AF_INET6);
    match (internet, protocol) {
        (true, libc::IPPROTO_TCP) => return "TCP".into(),
        (true, libc::IPPROTO_SCTP) => return "SCTP".into(),
        (true, libc::IPPROTO_DCCP) => return "DCCP".into(),
        (true, 256) => return "SMC".into(),
        (true, libc::IPPROTO_MPTCP) => return "MPTCP".into(),
        _ => {}
    }
    let family = FAMILIES.iter().find(|(number, _)| *number == domain);
    let family = family.map_or_else(|| format!("family {domain}"), |(_, name)| (*name).into());
    if internet { format!("{family} (type {kind}, protocol {protocol})") } else { family }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_their_names() {
        assert_eq!(name((libc::AF_INET, libc::SOCK_STREAM, 262)), "MPTCP");
        assert_eq!(name((libc::AF_INET6, libc::SOCK_DGRAM, 17)), "UDP");
        assert_eq!(name((libc::AF_VSOCK, libc::SOCK_STREAM, 0)), "vsock");
        assert_eq!(name((99, 1, 0)), "family 99");
        assert_eq!(name((libc::AF_INET, libc::SOCK_DCCP, 200)), "IPv4 (type 6, protocol 200)");
    }
}
