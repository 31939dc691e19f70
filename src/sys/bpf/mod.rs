//! Maps of bpf(2), and who uses them.
#![allow(unsafe_code)]

mod memory;
mod objects;
mod types;

pub use memory::{MapMemory, read_memory, with_page, write_memory};
pub use objects::{Program, map_by_id, maps, pinned, programs};
pub use types::{TypesInfo, load_types, read_types, types_by_id, types_info};

use super::open::owned;
use super::{Result, checked};
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

// Commands of include/uapi/linux/bpf.h.
const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_GET_NEXT_KEY: u32 = 4;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const MAP_FREEZE: u32 = 22;
const MAP_LOOKUP_BATCH: u32 = 24;
const MAP_UPDATE_BATCH: u32 = 26;

/// BPF_F_RDONLY: a descriptor that only reads.
pub const READ_ONLY: u32 = 1 << 3;
/// BPF_F_WRONLY: a descriptor that only writes.
pub const WRITE_ONLY: u32 = 1 << 4;

/// What the kernel gives for a command that a kind of map does not have (ENOTSUPP of include/linux/errno.h), and that libc does not know.
const NOT_SUPPORTED: i32 = 524;

/// Bytes of a name, with the zero behind it (BPF_OBJ_NAME_LEN).
pub const NAME_LEN: usize = 16;

/// What a map is made with: the first part of `union bpf_attr` for BPF_MAP_CREATE.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// BPF_MAP_TYPE_*.
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// The most entries, or bytes of a ring.
    pub max_entries: u32,
    /// BPF_F_*.
    pub flags: u32,
    /// A descriptor of a map of which all those are like that it takes.
    pub inner: u32,
    /// The NUMA node, with BPF_F_NUMA_NODE.
    pub node: u32,
    /// Its name, with zeros behind it.
    pub name: [u8; NAME_LEN],
    /// The network device that has it.
    pub device: u32,
    /// Descriptions of the types of its keys and values (BTF), and which of these they are.
    pub types: [u32; 3],
    /// Types of the kernel's own that its value is of.
    pub vmlinux_value_type: u32,
    /// What the flags of one kind of map need besides.
    pub extra: u64,
}

const _: () = assert!(size_of::<Attributes>() == 72);

/// The first part of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapInfo {
    /// BPF_MAP_TYPE_*.
    pub kind: u32,
    /// Its number in this kernel.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// The most entries, or bytes of a ring.
    pub max_entries: u32,
    /// BPF_F_*, of those that last.
    pub flags: u32,
    /// Its name, with zeros behind it.
    pub name: [u8; NAME_LEN],
    /// The network device that has it.
    pub device: u32,
    /// Types of the kernel's own that its value is of.
    pub vmlinux_value_type: u32,
    namespace: [u64; 2],
    /// Descriptions of the types of its keys and values (BTF), 0 without any.
    pub types: u32,
    /// The number of the keys' type there.
    pub key_type: u32,
    /// That of the values'.
    pub value_type: u32,
    vmlinux_types: u32,
    /// What the flags of one kind of map need besides.
    pub extra: u64,
}

const _: () = assert!(size_of::<MapInfo>() == 88);

/// `union bpf_attr` for commands on one element. The descriptor has half a word, and the other half must be zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Element {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// The same for commands on many.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<Element>() == 32 && size_of::<Batch>() == 56);

/// `union bpf_attr` for BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Described {
    fd: u32,
    len: u32,
    info: u64,
}

/// The call itself.
///
/// # Safety
/// What the attributes point to must be as the command needs it.
unsafe fn call<T>(command: u32, attributes: &mut T) -> Result<usize> {
    // SAFETY: the kernel reads and writes so many bytes of the attributes; the caller answers for what these point to.
    checked(unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attributes), size_of::<T>()) })
}

/// A descriptor that a command has given.
///
/// # Safety
/// As [`call`].
unsafe fn opened<T>(command: u32, attributes: &mut T) -> io::Result<File> {
    // SAFETY: see above; what is opened is ours.
    let fd = unsafe { call(command, attributes) }?;
    owned(fd as i32)
}

fn at(bytes: &[u8]) -> u64 {
    if bytes.is_empty() { 0 } else { bytes.as_ptr() as u64 }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

impl Attributes {
    /// With an inner map of which all those that are in it are like, for maps of maps.
    #[must_use]
    pub fn with_inner(self, inner: Option<BorrowedFd<'_>>) -> Self {
        Self { inner: inner.map_or(0, number), ..self }
    }

    /// With types that are described in this BTF: those of its keys and of its values.
    #[must_use]
    pub fn with_types(self, of: BorrowedFd<'_>, key: u32, value: u32) -> Self {
        Self { types: [number(of), key, value], ..self }
    }
}

/// BPF_MAP_CREATE.
///
/// # Errors
/// As bpf(2): EPERM without CAP_BPF.
pub fn create(attributes: Attributes) -> io::Result<File> {
    let mut attributes = attributes;
    // SAFETY: these attributes hold no pointer.
    unsafe { opened(MAP_CREATE, &mut attributes) }
}

/// BPF_OBJ_GET_INFO_BY_FD of a map.
///
/// # Errors
/// EINVAL for what is none.
pub fn info(map: BorrowedFd<'_>) -> Result<MapInfo> {
    let mut info = MapInfo::default();
    let mut attributes = Described { fd: number(map), len: size_of::<MapInfo>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: the kernel writes so many bytes to the struct.
    unsafe { call(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info)
}

/// BPF_MAP_LOOKUP_ELEM; of queues and stacks, which have no keys, the element that would be next.
///
/// # Errors
/// ENOENT without such an element.
pub fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> Result<()> {
    let value = value.as_mut_ptr() as u64;
    let mut attributes = Element { map: number(map).into(), key: at(key), value, flags: 0 };
    // SAFETY: the caller's slices have the sizes of the map's keys and values.
    unsafe { call(MAP_LOOKUP_ELEM, &mut attributes) }.map(drop)
}

/// BPF_MAP_GET_NEXT_KEY: the key behind `key`, or the first.
///
/// # Errors
/// ENOENT behind the last one.
pub fn next_key(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> Result<()> {
    let value = next.as_mut_ptr() as u64;
    let mut attributes = Element { map: number(map).into(), key: key.map_or(0, at), value, flags: 0 };
    // SAFETY: both slices have the size of a key.
    unsafe { call(MAP_GET_NEXT_KEY, &mut attributes) }.map(drop)
}

/// BPF_MAP_UPDATE_ELEM with BPF_ANY.
///
/// # Errors
/// As bpf(2).
pub fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> Result<()> {
    let mut attributes = Element { map: number(map).into(), key: at(key), value: at(value), flags: 0 };
    // SAFETY: the slices have the sizes of the map's keys and values.
    unsafe { call(MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// Elements that were read together.
#[derive(Debug)]
pub enum Found {
    /// So many, and there may be more.
    Some(usize),
    /// So many, and no more.
    Last(usize),
    /// There must be room for more of them at once.
    TooMany,
    /// This kind of map has no such command.
    Never,
}

/// BPF_MAP_LOOKUP_BATCH: as many elements as there is room for in `values`. `from` is where the last one has ended, and becomes where this one does.
///
/// # Errors
/// As bpf(2).
pub fn lookup_batch(
    map: BorrowedFd<'_>,
    from: &mut Option<Vec<u8>>,
    (keys, values): (&mut [u8], &mut [u8]),
    count: usize,
) -> Result<Found> {
    // Where a batch ends is a key, or the number of a bucket.
    let mut to = vec![0u8; (keys.len() / count.max(1)).max(size_of::<u32>())];
    let mut attributes = Batch {
        from: from.as_deref().map_or(0, at),
        to: to.as_mut_ptr() as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: count as u32,
        map: number(map),
        ..Batch::default()
    };
    // SAFETY: the slices have room for so many keys and values, and `to` for a key.
    let done = unsafe { call(MAP_LOOKUP_BATCH, &mut attributes) };
    let found = attributes.count as usize;
    *from = Some(to);
    match done {
        Ok(_) => Ok(Found::Some(found)),
        Err(Errno::ENOENT) => Ok(Found::Last(found)),
        Err(Errno::ENOSPC) => Ok(Found::TooMany),
        Err(Errno::EINVAL) => Ok(Found::Never),
        Err(_) if lacks_command() => Ok(Found::Never),
        Err(errno) => Err(errno),
    }
}

/// BPF_MAP_UPDATE_BATCH with BPF_ANY: whether this kind of map has such a command.
///
/// # Errors
/// As bpf(2).
pub fn update_batch(map: BorrowedFd<'_>, keys: &[u8], values: &[u8], count: usize) -> Result<bool> {
    let mut attributes =
        Batch { keys: at(keys), values: at(values), count: count as u32, map: number(map), ..Batch::default() };
    // SAFETY: the slices hold so many keys and values.
    match unsafe { call(MAP_UPDATE_BATCH, &mut attributes) } {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(_) if lacks_command() => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether the last call has failed because there is no such command.
fn lacks_command() -> bool {
    is_unsupported(&io::Error::last_os_error())
}

/// Whether a call has failed because such a map cannot do this.
#[must_use]
pub fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(NOT_SUPPORTED)
}

/// BPF_MAP_FREEZE: no program of user space writes to it any more.
///
/// # Errors
/// EBUSY when it is frozen already, or mapped for writing.
pub fn freeze(map: BorrowedFd<'_>) -> Result<()> {
    let mut attributes = Element { map: number(map).into(), ..Element::default() };
    // SAFETY: this command takes no pointer. Only the first four bytes may be other than zero.
    unsafe { call(MAP_FREEZE, &mut attributes) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_map_tells_what_it_is_and_holds() {
        let name = *b"snap_test\0\0\0\0\0\0\0";
        let attributes =
            Attributes { kind: 1, key_size: 4, value_size: 8, max_entries: 9, name, ..Attributes::default() };
        let map = match create(attributes) {
            // Only root may.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return,
            map => map.unwrap(),
        };
        let map = map.as_fd();
        let told = info(map).unwrap();
        assert_eq!((told.kind, told.key_size, told.value_size, told.max_entries), (1, 4, 8, 9));
        assert_eq!((told.name, told.flags, told.types, told.extra), (attributes.name, 0, 0, 0));
        update(map, &7u32.to_ne_bytes(), &8u64.to_ne_bytes()).unwrap();
        assert!(update_batch(map, &[1, 0, 0, 0, 2, 0, 0, 0], &[3; 16], 2).unwrap());
        let (mut keys, mut values, mut from) = ([0; 36], [0; 72], None);
        let found = lookup_batch(map, &mut from, (&mut keys, &mut values), 9).unwrap();
        assert!(matches!(found, Found::Last(3)), "{found:?}");
        let (mut key, mut value) = ([0; 4], [0; 8]);
        next_key(map, None, &mut key).unwrap();
        lookup(map, &7u32.to_ne_bytes(), &mut value).unwrap();
        assert_eq!(value, 8u64.to_ne_bytes());
        assert!(maps().unwrap().contains(&told.id));
        assert!(programs().unwrap().iter().all(|program| !program.maps.contains(&told.id)));
        let reader = map_by_id(told.id, READ_ONLY).unwrap();
        assert_eq!(update(reader.as_fd(), &key, &value), Err(Errno::EPERM));
        freeze(map).unwrap();
        assert_eq!(update(map, &key, &value), Err(Errno::EPERM));
    }
}
