//! What a thread's seccomp filters would say of the calls that we are about to make in its name.
//!
//! A filter that kills would kill the target for what we did: every call is judged here first, by an interpreter of classic BPF
//! (Documentation/networking/filter.rst, kernel/seccomp.c `seccomp_check_filter`).

use super::error::Error;
use super::thread::StoppedThread;
use crate::image::model::address::Addr;
use crate::sys::ptrace_info::SockFilter;
use nix::errno::Errno;

/// A system call to be made, as a filter sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// Where it returns to.
    pub ip: Addr,
}

/// What a thread may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Everything.
    Free,
    /// Only read, write, exit and rt_sigreturn.
    Strict,
    /// What none of these programs forbids.
    Filters(Vec<Vec<SockFilter>>),
    /// Filters that we are not allowed to read.
    Hidden(Errno),
}

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const ACTION: u32 = 0xffff_0000;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

impl Policy {
    /// The policy of a stopped thread.
    ///
    /// # Errors
    /// [`Error::Vanished`], [`Error::Kernel`].
    pub fn of(thread: &StoppedThread) -> Result<Self, Error> {
        match thread.status()?.seccomp {
            None | Some(0) => Ok(Self::Free),
            Some(1) => Ok(Self::Strict),
            Some(_) => match thread.seccomp_filters() {
                Ok(filters) => Ok(Self::Filters(filters.into_iter().map(|(program, _)| program).collect())),
                Err(Error::Kernel { source, .. }) => Ok(Self::Hidden(source)),
                Err(error) => Err(error),
            },
        }
    }

    /// Says why a call is forbidden, `None` when it may be made.
    #[must_use]
    pub fn refusal(&self, call: &Call) -> Option<String> {
        match self {
            Self::Free => None,
            Self::Strict => Some("seccomp strict mode".to_owned()),
            Self::Hidden(errno) => Some(format!("seccomp filters that cannot be read ({})", errno.desc())),
            Self::Filters(filters) => {
                let data = data(call);
                let verdicts = filters.iter().map(|program| run(program, &data));
                // The most restrictive wins: actions compare as signed numbers.
                let worst = verdicts.min_by_key(|value| (value & ACTION) as i32).unwrap_or(RET_ALLOW);
                (!matches!(worst & ACTION, RET_ALLOW | RET_LOG))
                    .then(|| format!("a seccomp filter that answers {worst:#x}"))
            }
        }
    }
}

/// `struct seccomp_data`: nr, arch, instruction_pointer, args.
fn data(call: &Call) -> [u8; 64] {
    let mut data = [0; 64];
    data[..4].copy_from_slice(&(call.number as u32).to_le_bytes());
    data[4..8].copy_from_slice(&AUDIT_ARCH_X86_64.to_le_bytes());
    data[8..16].copy_from_slice(&call.ip.0.to_le_bytes());
    for (into, arg) in data[16..].chunks_exact_mut(8).zip(call.args) {
        into.copy_from_slice(&arg.to_le_bytes());
    }
    data
}

/// State of the machine of classic BPF.
#[derive(Default)]
struct Machine {
    a: u32,
    x: u32,
    memory: [u32; 16],
}

/// Runs a program over a `seccomp_data`. What the kernel would never have accepted counts as SECCOMP_RET_KILL_THREAD, 0.
#[must_use]
fn run(program: &[SockFilter], data: &[u8; 64]) -> u32 {
    let mut machine = Machine::default();
    let mut at = 0;
    while let Some(instruction) = program.get(at) {
        at += 1;
        match machine.step(*instruction, data) {
            Some(Next::Skip(count)) => at += count as usize,
            Some(Next::Return(value)) => return value,
            None => return 0,
        }
    }
    0
}

enum Next {
    Skip(u32),
    Return(u32),
}

impl Machine {
    /// One instruction; `None` for one that does not exist or divides by zero.
    fn step(&mut self, SockFilter { code, jt, jf, k }: SockFilter, data: &[u8; 64]) -> Option<Next> {
        const CLASS: u16 = 0x07;
        match code & CLASS {
            0x00 => self.a = self.load(code, k, data)?,
            0x01 => self.x = self.load(code, k, data)?,
            0x02 => *self.memory.get_mut(k as usize)? = self.a,
            0x03 => *self.memory.get_mut(k as usize)? = self.x,
            0x04 => self.a = self.alu(code, self.operand(code, k))?,
            0x05 => return self.jump(code, jt, jf, k),
            0x06 => return Some(Next::Return(if code & 0x18 == 0x10 { self.a } else { k })),
            _ => match code & 0xf8 {
                0x00 => self.x = self.a,
                0x80 => self.a = self.x,
                _ => return None,
            },
        }
        Some(Next::Skip(0))
    }

    fn operand(&self, code: u16, k: u32) -> u32 {
        if code & 0x08 == 0 { k } else { self.x }
    }

    fn load(&self, code: u16, k: u32, data: &[u8; 64]) -> Option<u32> {
        match code & 0xe0 {
            0x00 => Some(k),
            0x20 => {
                let at = k as usize;
                let word = data.get(at..at.checked_add(4)?)?;
                Some(u32::from_le_bytes(word.try_into().ok()?))
            }
            0x60 => self.memory.get(k as usize).copied(),
            0x80 => Some(data.len() as u32),
            _ => None,
        }
    }

    fn alu(&self, code: u16, operand: u32) -> Option<u32> {
        match code & 0xf0 {
            0x00 => Some(self.a.wrapping_add(operand)),
            0x10 => Some(self.a.wrapping_sub(operand)),
            0x20 => Some(self.a.wrapping_mul(operand)),
            0x30 => self.a.checked_div(operand),
            0x40 => Some(self.a | operand),
            0x50 => Some(self.a & operand),
            0x60 => Some(self.a.wrapping_shl(operand)),
            0x70 => Some(self.a.wrapping_shr(operand)),
            0x80 => Some(self.a.wrapping_neg()),
            0xa0 => Some(self.a ^ operand),
            _ => None,
        }
    }

    fn jump(&self, code: u16, jt: u8, jf: u8, k: u32) -> Option<Next> {
        let operand = self.operand(code, k);
        let holds = match code & 0xf0 {
            0x00 => return Some(Next::Skip(k)),
            0x10 => self.a == operand,
            0x20 => self.a > operand,
            0x30 => self.a >= operand,
            0x40 => self.a & operand != 0,
            _ => return None,
        };
        Some(Next::Skip(u32::from(if holds { jt } else { jf })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
        SockFilter { code, jt, jf, k }
    }

    fn call(number: u64, first: u64) -> Call {
        Call { number, args: [first, 0, 0, 0, 0, 0], ip: Addr(0x1002) }
    }

    /// Allows number 39, kills else.
    fn only_getpid() -> Vec<SockFilter> {
        vec![op(0x20, 0, 0, 0), op(0x15, 0, 1, 39), op(0x06, 0, 0, RET_ALLOW), op(0x06, 0, 0, 0)]
    }

    #[test]
    fn a_filter_by_number() {
        let policy = Policy::Filters(vec![only_getpid()]);
        assert_eq!(policy.refusal(&call(39, 0)), None);
        assert!(policy.refusal(&call(9, 0)).is_some());
    }

    #[test]
    fn the_most_restrictive_filter_wins() {
        let allow = vec![op(0x06, 0, 0, RET_ALLOW)];
        let log = vec![op(0x06, 0, 0, RET_LOG)];
        let errno = vec![op(0x06, 0, 0, 0x0005_0001)];
        let kill_process = vec![op(0x06, 0, 0, 0x8000_0000)];
        assert_eq!(Policy::Filters(vec![allow.clone(), log]).refusal(&call(1, 0)), None);
        assert!(
            Policy::Filters(vec![errno.clone(), allow]).refusal(&call(1, 0)).is_some_and(|r| r.contains("0x50001"))
        );
        assert!(
            Policy::Filters(vec![errno, kill_process]).refusal(&call(1, 0)).is_some_and(|r| r.contains("0x80000000"))
        );
    }

    #[test]
    fn a_filter_by_argument_arithmetic_and_memory() {
        // a = args[0]; m[3] = a; x = 2; a = a * x + 1; a ^= 0; x = m[3]; a -= x; return a == args[0] + 1
        let program = vec![
            op(0x20, 0, 0, 16),
            op(0x02, 0, 0, 3),
            op(0x01, 0, 0, 2),
            op(0x2c, 0, 0, 0),
            op(0x04, 0, 0, 1),
            op(0xa4, 0, 0, 0),
            op(0x61, 0, 0, 3),
            op(0x1c, 0, 0, 0),
            op(0x16, 0, 0, 0),
        ];
        assert_eq!(run(&program, &data(&call(0, 41))), 42);
    }

    #[test]
    fn jumps_and_lengths() {
        let jump_over = vec![op(0x05, 0, 0, 1), op(0x06, 0, 0, 1), op(0x80, 0, 0, 0), op(0x16, 0, 0, 0)];
        assert_eq!(run(&jump_over, &data(&call(0, 0))), 64);
        let set = vec![op(0x20, 0, 0, 16), op(0x45, 0, 1, 4), op(0x06, 0, 0, 7), op(0x06, 0, 0, 8)];
        assert_eq!((run(&set, &data(&call(0, 6))), run(&set, &data(&call(0, 2)))), (7, 8));
    }

    #[test]
    fn what_no_kernel_accepts_kills() {
        let cases = [
            vec![],
            vec![op(0x20, 0, 0, 62)],
            vec![op(0x02, 0, 0, 16)],
            vec![op(0x34, 0, 0, 0)],
            vec![op(0x05, 0, 0, u32::MAX)],
            vec![op(0xf4, 0, 0, 0)],
        ];
        for program in cases {
            assert_eq!(run(&program, &data(&call(0, 0))), 0, "{program:?}");
        }
    }
}
