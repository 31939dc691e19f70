//! Descriptions of types (BTF, Documentation/bpf/btf.rst).

use super::{Described, OBJ_GET_INFO_BY_FD, call, number, opened};
use crate::sys::Result;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

// Commands of include/uapi/linux/bpf.h.
const BTF_LOAD: u32 = 18;
const BTF_GET_FD_BY_ID: u32 = 19;

/// `struct bpf_btf_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Info {
    bytes: u64,
    size: u32,
    id: u32,
    name: u64,
    name_len: u32,
    kernel: u32,
}

/// `union bpf_attr` for BPF_BTF_LOAD, without a log.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    bytes: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    log_true_size: u32,
}

/// `union bpf_attr` for BPF_BTF_GET_FD_BY_ID.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Number {
    id: u32,
}

const _: () = assert!(size_of::<Info>() == 32 && size_of::<Load>() == 32);

/// What the kernel tells of a BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypesInfo {
    /// Its number in this kernel.
    pub id: u32,
    /// Its bytes.
    pub size: u32,
    /// Whether it is of the kernel itself, or of a module.
    pub kernel: bool,
}

/// BPF_OBJ_GET_INFO_BY_FD of a BTF.
///
/// # Errors
/// As bpf(2).
pub fn types_info(types: BorrowedFd<'_>) -> Result<TypesInfo> {
    let Info { bytes: _, size, id, name: _, name_len: _, kernel } = ask(types, &mut [])?;
    Ok(TypesInfo { id, size, kernel: kernel != 0 })
}

/// All of a BTF, of which the kernel said that it has so many bytes.
///
/// # Errors
/// As bpf(2).
pub fn read_types(types: BorrowedFd<'_>, size: u32) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size as usize];
    ask(types, &mut bytes)?;
    Ok(bytes)
}

fn ask(types: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<Info> {
    let pointer = if bytes.is_empty() { 0 } else { bytes.as_mut_ptr() as u64 };
    let mut info = Info { bytes: pointer, size: bytes.len() as u32, ..Info::default() };
    let mut attributes = Described { fd: number(types), len: size_of::<Info>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: the kernel writes so many bytes to the struct, and at most as many as there is room for to `bytes`.
    unsafe { call(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info)
}

/// BPF_BTF_LOAD.
///
/// # Errors
/// As bpf(2): EPERM without CAP_BPF, EINVAL for what the kernel does not take.
pub fn load_types(bytes: &[u8]) -> io::Result<File> {
    let mut attributes = Load { bytes: super::at(bytes), size: bytes.len() as u32, ..Load::default() };
    // SAFETY: the kernel reads so many bytes.
    unsafe { opened(BTF_LOAD, &mut attributes) }
}

/// BPF_BTF_GET_FD_BY_ID: another descriptor of the BTF with this number.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, ENOENT without such a BTF.
pub fn types_by_id(id: u32) -> io::Result<File> {
    let mut attributes = Number { id };
    // SAFETY: these attributes hold no pointer.
    unsafe { opened(BTF_GET_FD_BY_ID, &mut attributes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_loaded_is_read_again() {
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [24u32, 0, 16, 16, 5, 1, 1 << 24, 4, 32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"\0int\0");
        let types = match load_types(&bytes) {
            // Only root may.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return,
            types => types.unwrap(),
        };
        let info = types_info(types.as_fd()).unwrap();
        assert!(!info.kernel && info.size as usize == bytes.len(), "{info:?}");
        assert_eq!(read_types(types.as_fd(), info.size).unwrap(), bytes);
        let another = types_by_id(info.id).unwrap();
        assert_eq!(types_info(another.as_fd()).unwrap(), info);
        assert_eq!(load_types(&bytes[..40]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
