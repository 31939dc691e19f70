//! Maps and programs by their numbers in the kernel, and by the paths under which they are pinned.

use super::{Described, NAME_LEN, OBJ_GET_INFO_BY_FD, call, opened};
use crate::sys::Result;
use nix::errno::Errno;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

// Commands of include/uapi/linux/bpf.h.
const OBJ_GET: u32 = 7;
const PROG_GET_NEXT_ID: u32 = 11;
const MAP_GET_NEXT_ID: u32 = 12;
const PROG_GET_FD_BY_ID: u32 = 13;
const MAP_GET_FD_BY_ID: u32 = 14;

/// The first part of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    code: [u64; 2],
    loaded: u64,
    user: u32,
    map_count: u32,
    maps: u64,
    name: [u8; NAME_LEN],
}

const _: () = assert!(size_of::<ProgramInfo>() == 80);

/// `union bpf_attr` for commands on numbers of objects.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Number {
    id: u32,
    next: u32,
    flags: u32,
}

/// `union bpf_attr` for BPF_OBJ_GET.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Named {
    path: u64,
    fd: u32,
    flags: u32,
}

/// A descriptor of the map with this number, to read or write alone with [`READ_ONLY`](super::READ_ONLY) or [`WRITE_ONLY`](super::WRITE_ONLY).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, ENOENT without such a map.
pub fn map_by_id(id: u32, flags: u32) -> io::Result<File> {
    let mut attributes = Number { id, next: 0, flags };
    // SAFETY: these attributes hold no pointer.
    unsafe { opened(MAP_GET_FD_BY_ID, &mut attributes) }
}

/// The numbers of all maps of the kernel.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn maps() -> Result<Vec<u32>> {
    all(MAP_GET_NEXT_ID)
}

fn all(command: u32) -> Result<Vec<u32>> {
    let (mut ids, mut attributes) = (Vec::new(), Number::default());
    loop {
        // SAFETY: these attributes hold no pointer.
        match unsafe { call(command, &mut attributes) } {
            Ok(_) => ids.push(attributes.next),
            Err(Errno::ENOENT) => return Ok(ids),
            Err(errno) => return Err(errno),
        }
        attributes = Number { id: attributes.next, ..Number::default() };
    }
}

/// A program of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: Vec<u8>,
    /// The numbers of the maps that it uses.
    pub maps: Vec<u32>,
}

/// All programs of the kernel. Those that end meanwhile are left out.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn programs() -> io::Result<Vec<Program>> {
    let mut found = Vec::new();
    for id in all(PROG_GET_NEXT_ID)? {
        let mut attributes = Number { id, ..Number::default() };
        // SAFETY: these attributes hold no pointer.
        match unsafe { opened(PROG_GET_FD_BY_ID, &mut attributes) } {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            program => found.push(describe(id, &program?)?),
        }
    }
    Ok(found)
}

fn describe(id: u32, program: &File) -> io::Result<Program> {
    let mut maps: Vec<u32> = Vec::new();
    loop {
        let mut info =
            ProgramInfo { map_count: maps.len() as u32, maps: maps.as_mut_ptr() as u64, ..ProgramInfo::default() };
        let fd = program.as_raw_fd().cast_unsigned();
        let mut attributes = Described { fd, len: size_of::<ProgramInfo>() as u32, info: (&raw mut info) as u64 };
        // SAFETY: the kernel writes so many bytes to the struct, and as many numbers as there is room for.
        unsafe { call(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
        let count = info.map_count as usize;
        if count <= maps.len() {
            maps.truncate(count);
            let name = info.name.iter().copied().take_while(|byte| *byte != 0).collect();
            return Ok(Program { id, name, maps });
        }
        maps.resize(count, 0);
    }
}

/// BPF_OBJ_GET: what is pinned there, a map or something else.
///
/// # Errors
/// As bpf(2).
pub fn pinned(path: &Path, flags: u32) -> io::Result<File> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Named { path: path.as_ptr() as u64, fd: 0, flags };
    // SAFETY: the path is a string.
    unsafe { opened(OBJ_GET, &mut attributes) }
}
