//! CLOCK_MONOTONIC and CLOCK_BOOTTIME after a reboot or on another host: a time namespace lets them go on.

use super::Error;
use crate::image::model::inventory::{Clocks, Inventory};
use crate::proc::host;
use crate::sys::namespace;
use std::io;

const NANOS: i64 = 1_000_000_000;

/// Makes the children of this process see clocks that go on from where the image's stood, if this is another boot.
/// Says whether it did.
///
/// # Errors
/// [`Error::Permission`] without CAP_SYS_ADMIN or CAP_SYS_TIME.
pub fn go_on(inventory: &Inventory) -> Result<bool, Error> {
    let step = |step: &'static str| move |source| Error::Step { step: step.to_owned(), source };
    let host = host::read().map_err(io::Error::other).map_err(step("looking at this host"))?;
    if inventory.host.boot_id == host.boot_id {
        return Ok(false);
    }
    let now = host::Clocks::now().map_err(step("reading the clocks"))?;
    let text = offsets(&inventory.clocks, &now);
    let set = || {
        namespace::unshare(CLONE_NEWTIME)?;
        std::fs::write("/proc/self/timens_offsets", text)
    };
    match set() {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => Err(Error::Permission {
            action: "letting CLOCK_MONOTONIC go on from another boot".into(),
            hint: "a time namespace takes CAP_SYS_ADMIN and CAP_SYS_TIME".into(),
        }),
        Err(error) => Err(step("making a time namespace")(error)),
    }
}

/// linux/sched.h.
const CLONE_NEWTIME: libc::c_int = 0x80;

/// Lines of `timens_offsets`: seconds and nanoseconds, of which the latter are never negative.
fn offsets(then: &Clocks, now: &host::Clocks) -> String {
    let line =
        |clock: &str, offset: i64| format!("{clock} {} {}\n", offset.div_euclid(NANOS), offset.rem_euclid(NANOS));
    line("monotonic", then.monotonic - now.monotonic) + &line("boottime", then.boottime - now.boottime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stood_lower_gets_a_negative_offset() {
        let then = Clocks { realtime: 0, monotonic: 1, boottime: 7 * NANOS };
        let now = host::Clocks { realtime: 0, monotonic: NANOS, boottime: 4 * NANOS };
        assert_eq!(offsets(&then, &now), "monotonic -1 1\nboottime 3 0\n");
    }
}
