//! The calls that a session makes for itself, and whether a thread may make one.

use crate::image::model::address::{Addr, PageRange};
use crate::tracer::batch;
use crate::tracer::error::Error;
use crate::tracer::seccomp::{Call, Policy};
use crate::tracer::stub::Stub;
use crate::tracer::thread::StoppedThread;

pub(super) fn permit(thread: &StoppedThread, policy: &Policy, call: &Call) -> Result<(), Error> {
    match policy.refusal(call) {
        None => Ok(()),
        Some(why) => {
            let reason = format!("system call {} would meet {why}", call.number);
            let remedy = "start it with a filter that allows the call";
            Err(Error::Refused { tid: thread.tid, reason, remedy })
        }
    }
}

/// The calls that a host makes: mmap, madvise, and those of its way out.
pub(super) fn host_calls(scratch: PageRange, stub: Stub) -> [Call; 4] {
    let (start, len) = (scratch.start.0, scratch.len());
    let map = batch::mapping(scratch);
    let advise = [start, len, libc::MADV_DONTFORK as u64, 0, 0, 0];
    let [unmap, mask] = leaving_calls((scratch.start, len), stub);
    [
        Call { number: libc::SYS_mmap as u64, args: map, ip: Stub::after(stub.map_entry()) },
        Call { number: libc::SYS_madvise as u64, args: advise, ip: Stub::after(stub.call_entry()) },
        unmap,
        mask,
    ]
}

/// The calls that a stub makes on its way out.
pub(super) fn leaving_calls((start, len): (Addr, u64), stub: Stub) -> [Call; 2] {
    let unmap = [start.0, len, 0, 0, 0, 0];
    let mask = [libc::SIG_SETMASK as u64, stub.mask().0, 0, 8, 0, 0];
    [
        Call { number: libc::SYS_munmap as u64, args: unmap, ip: stub.after_unmapping() },
        Call { number: libc::SYS_rt_sigprocmask as u64, args: mask, ip: stub.after_masking() },
    ]
}
