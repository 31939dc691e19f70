//! Overwrites the entry points of an old vdso: jumps to the host's, or system calls where the host has none.

use super::Entry;
use crate::image::model::address::Addr;
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, eax, r8, rax};

/// A vdso whose entry points lead elsewhere.
#[derive(Debug)]
pub struct Patched {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Entry points that fail from now on: no system call does the same.
    pub failing: Vec<String>,
}

/// Patches `vdso`, whose entry points are `old`; those of the host are `new`, from `target`.
///
/// # Errors
/// The name of an entry point that has no room.
pub fn patch(vdso: &[u8], old: &[Entry], target: Addr, new: &[Entry]) -> Result<Patched, String> {
    let mut patched = Patched { bytes: vdso.to_vec(), failing: Vec::new() };
    for entry in old {
        let name = entry.names.first().cloned().unwrap_or_default();
        let counterpart = new.iter().find(|new| new.names.iter().any(|name| entry.names.contains(name)));
        let code = match (counterpart, entry.names.iter().find_map(|name| system_call(name))) {
            (Some(new), _) => jump(target.add(new.offset)),
            (None, Some(call)) => call_instead(call),
            (None, None) => {
                patched.failing.push(name.clone());
                fail()
            }
        };
        let code = code.map_err(|_| name.clone())?;
        let room = patched.bytes.get_mut(entry.offset as usize..(entry.offset + entry.len) as usize);
        let place = room.and_then(|room| room.get_mut(..code.len())).ok_or(name)?;
        place.copy_from_slice(&code);
    }
    Ok(patched)
}

/// The system call with the same arguments and result.
fn system_call(name: &str) -> Option<u32> {
    let number = match name {
        "clock_gettime" => libc::SYS_clock_gettime,
        "clock_getres" => libc::SYS_clock_getres,
        "gettimeofday" => libc::SYS_gettimeofday,
        "time" => libc::SYS_time,
        "getcpu" => libc::SYS_getcpu,
        "getrandom" => libc::SYS_getrandom,
        _ => return None,
    };
    Some(number as u32)
}

/// 12 bytes that reach any address. No argument is in `rax`.
fn jump(to: Addr) -> Result<Vec<u8>, IcedError> {
    let mut code = CodeAssembler::new(64)?;
    code.mov(rax, to.0)?;
    code.jmp(rax)?;
    code.assemble(0)
}

/// At most three arguments, which are in the same registers as those of a function.
fn call_instead(number: u32) -> Result<Vec<u8>, IcedError> {
    let mut code = CodeAssembler::new(64)?;
    let mut unknown = code.create_label();
    let asks = number == libc::SYS_getrandom as u32;
    if asks {
        // `opaque_len` of -1 asks for the size of a state, of which a kernel without such states knows nothing.
        code.cmp(r8, -1)?;
        code.je(unknown)?;
    }
    code.mov(eax, number)?;
    code.syscall()?;
    code.ret()?;
    if asks {
        code.set_label(&mut unknown)?;
        code.mov(rax, -i64::from(libc::ENOSYS))?;
        code.ret()?;
    }
    code.assemble(0)
}

fn fail() -> Result<Vec<u8>, IcedError> {
    let mut code = CodeAssembler::new(64)?;
    code.mov(eax, -libc::ENOSYS)?;
    code.ret()?;
    code.assemble(0)
}
