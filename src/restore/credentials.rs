//! The operations that give a thread its credentials, in the order in which the kernel allows them. Pure.

use super::script::{List, Script};
use crate::image::model::credentials::Credentials;

const PR_CAPBSET_DROP: u64 = 24;
const PR_SET_SECUREBITS: u64 = 28;
const PR_SET_KEEPCAPS: u64 = 8;
const PR_CAP_AMBIENT: u64 = 47;
const PR_CAP_AMBIENT_RAISE: u64 = 2;
const PR_CAP_AMBIENT_CLEAR_ALL: u64 = 4;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const SECBIT_KEEP_CAPS: u32 = 1 << 4;

/// Changes the credentials `from` into `to`; nothing where they are equal. With `groups_stay` supplementary groups are
/// left as they are.
pub fn change(list: &mut List, script: &mut Script, from: &Credentials, to: &Credentials, groups_stay: bool) {
    if same(from, to) {
        return;
    }
    for capability in (0..64).filter(|bit| from.cap_bounding >> bit & 1 == 1 && to.cap_bounding >> bit & 1 == 0) {
        list.call("dropping a capability from the bounding set", libc::SYS_prctl, &[PR_CAPBSET_DROP, capability]);
    }
    if from.groups != to.groups && !groups_stay {
        let packed: Vec<u8> = to.groups.iter().flat_map(|group| group.to_le_bytes()).collect();
        let groups = script.place(&packed);
        list.call("setting supplementary groups", libc::SYS_setgroups, &[to.groups.len() as u64, groups.0]);
    }
    if from.gid != to.gid {
        let [real, effective, saved, file_system] = to.gid.map(u64::from);
        list.call("setting group ids", libc::SYS_setresgid, &[real, effective, saved]);
        list.try_call("setting the file system group id", libc::SYS_setfsgid, &[file_system]);
    }
    change_users(list, from, to);
    change_capabilities(list, script, from, to);
}

/// Whether the two differ in nothing that a system call could change.
fn same(from: &Credentials, to: &Credentials) -> bool {
    let sets = |c: &Credentials| {
        [c.cap_inheritable, c.cap_permitted, c.cap_effective, c.cap_bounding, c.cap_ambient, u64::from(c.securebits)]
    };
    from.uid == to.uid && from.gid == to.gid && from.groups == to.groups && sets(from) == sets(to)
}

/// Leaving user id 0 would clear the permitted set but for KEEPCAPS.
fn change_users(list: &mut List, from: &Credentials, to: &Credentials) {
    if from.uid == to.uid {
        return;
    }
    let [real, effective, saved, file_system] = to.uid.map(u64::from);
    if from.securebits & SECBIT_KEEP_CAPS == 0 {
        list.call("keeping capabilities", libc::SYS_prctl, &[PR_SET_KEEPCAPS, 1]);
    }
    list.call("setting user ids", libc::SYS_setresuid, &[real, effective, saved]);
    list.try_call("setting the file system user id", libc::SYS_setfsuid, &[file_system]);
}

/// Securebits need CAP_SETPCAP, and ambient capabilities must be permitted and inheritable when they are raised.
fn change_capabilities(list: &mut List, script: &mut Script, from: &Credentials, to: &Credentials) {
    capset(list, script, from.cap_permitted, from.cap_permitted, to.cap_inheritable);
    list.call("clearing ambient capabilities", libc::SYS_prctl, &[PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0]);
    for capability in (0..64).filter(|bit| to.cap_ambient >> bit & 1 == 1) {
        let args = [PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0];
        list.call("raising an ambient capability", libc::SYS_prctl, &args);
    }
    let now = if from.uid == to.uid { from.securebits } else { from.securebits | SECBIT_KEEP_CAPS };
    if (now ^ to.securebits) & !SECBIT_KEEP_CAPS != 0 {
        list.call("setting securebits", libc::SYS_prctl, &[PR_SET_SECUREBITS, u64::from(to.securebits)]);
    } else if now != to.securebits {
        let keep = u64::from(to.securebits & SECBIT_KEEP_CAPS != 0);
        list.call("setting KEEPCAPS", libc::SYS_prctl, &[PR_SET_KEEPCAPS, keep]);
    }
    capset(list, script, to.cap_permitted, to.cap_effective, to.cap_inheritable);
}

/// capset(2): `struct __user_cap_header_struct` and two of `__user_cap_data_struct`.
fn capset(list: &mut List, script: &mut Script, permitted: u64, effective: u64, inheritable: u64) {
    let header = script.place(&CAPABILITY_VERSION_3.to_le_bytes().iter().chain(&[0; 4]).copied().collect::<Vec<u8>>());
    let half = |shift: u32| [effective, permitted, inheritable].map(|set| (set >> shift) as u32);
    let data: Vec<u8> = [half(0), half(32)].concat().iter().flat_map(|word| word.to_le_bytes()).collect();
    let data = script.place(&data);
    list.call("setting capabilities", libc::SYS_capset, &[header.0, data.0]);
}
