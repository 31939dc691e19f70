//! Network namespaces of a test's own: ports and addresses that nobody else has, in which root of a user namespace may do everything.

use super::wait;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;

/// Puts this thread, and whatever it starts, into a network namespace of its own with a loopback interface.
pub fn own_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    ip("link set lo up");
}

/// Takes CAP_NET_ADMIN away from whatever this thread starts from here on: an ordinary user does not have it in the network namespace of the machine.
pub fn without_network_rights() {
    const CAP_NET_ADMIN: u32 = 12;
    // SAFETY: PR_CAPBSET_DROP takes a number.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0) };
    assert_eq!(result, 0, "PR_CAPBSET_DROP: {}", std::io::Error::last_os_error());
    let (header, mut sets) = ([0x2008_0522u32, 0], [0u32; 6]);
    // SAFETY: the kernel reads the header and writes both halves of three sets.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    assert_eq!(result, 0, "capget: {}", std::io::Error::last_os_error());
    // Of those that exec(2) keeps.
    sets[2] &= !(1 << CAP_NET_ADMIN);
    // SAFETY: the kernel reads both.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(result, 0, "capset: {}", std::io::Error::last_os_error());
}

/// ip(8).
pub fn ip(arguments: &str) {
    run("ip", arguments);
}

/// tc(8).
pub fn tc(arguments: &str) {
    run("tc", arguments);
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output().expect("a program of iproute2");
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// So many bytes of a connection.
pub fn received(mut from: &TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).expect("bytes of the other side");
    bytes
}

/// The network namespace of this thread.
fn current() -> File {
    File::open("/proc/thread-self/ns/net").expect("a network namespace")
}

/// A network namespace that lives as long as this, and as what runs in it.
pub struct Namespace {
    file: File,
    name: &'static str,
}

impl Namespace {
    /// Does something in it; what is started there stays there.
    pub fn inside<T>(&self, body: impl FnOnce() -> T) -> T {
        let before = current();
        setns(&self.file, CloneFlags::CLONE_NEWNET).expect("setns");
        let done = body();
        setns(before, CloneFlags::CLONE_NEWNET).expect("setns");
        done
    }

    /// Takes an address and begins to send and to receive.
    pub fn take(&self, address: IpAddr) {
        let name = self.name;
        let (length, more) = if address.is_ipv4() { (24, "") } else { (64, " nodad") };
        self.inside(|| {
            ip(&format!("link set {name}-in up"));
            ip(&format!("address add {address}/{length} dev {name}-in{more}"));
        });
    }
}

/// What connects namespaces, in one of its own.
pub struct Bridge(());

impl Bridge {
    /// In a new namespace of this thread.
    pub fn new() -> Self {
        own_network();
        ip("link add bridge type bridge");
        ip("link set bridge up");
        Self(())
    }

    /// A new namespace that is connected, and has no address yet.
    pub fn attach(&self, name: &'static str) -> Namespace {
        let before = current();
        own_network();
        let namespace = Namespace { file: current(), name };
        setns(before, CloneFlags::CLONE_NEWNET).expect("setns");
        ip(&format!("link add {name} type veth peer name {name}-in"));
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.file.as_raw_fd());
        ip(&format!("link set {name}-in netns {path}"));
        ip(&format!("link set {name} master bridge"));
        ip(&format!("link set {name} up"));
        namespace
    }

    /// Lets go of a namespace in which nothing runs any more, and waits until the kernel has taken it apart.
    pub fn ends(&self, namespace: Namespace) {
        let Namespace { file, name } = namespace;
        drop(file);
        wait::until(&format!("the end of namespace {name}"), || {
            let shown = Command::new("ip").args(["link", "show", name]).output().expect("ip of iproute2");
            (!shown.status.success()).then_some(())
        });
    }
}
