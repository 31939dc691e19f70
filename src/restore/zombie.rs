//! Children that end before anything runs: those that were not reaped, and stand-ins for dead leaders. Pure.

use super::genealogy::{Being, Birth};
use super::script::{Label, List, Script};
use crate::image::model::process::Zombie;

const PR_SET_NAME: u64 = 15;
const P_PID: u64 = 1;
/// A child may tell its parent of its end by another signal than SIGCHLD.
const WALL: u64 = 0x4000_0000;
const SIG_DFL: u64 = 0;

/// Ends as the image says.
pub fn end(list: &mut List, script: &mut Script, zombie: &Zombie, own_uid: u32) {
    let name = script.place_string(&zombie.comm);
    list.call("setting the name", libc::SYS_prctl, &[PR_SET_NAME, name.0]);
    if zombie.uid != own_uid {
        list.call("setting user ids", libc::SYS_setresuid, &[u64::from(zombie.uid); 3]);
    }
    match zombie.status & 0x7f {
        0 => list.call("ending", libc::SYS_exit_group, &[(zombie.status >> 8 & 0xff) as u64]),
        signal => die(list, script, zombie.pid.0, signal),
    }
}

/// Ends by a signal. No core is dumped for it a second time.
fn die(list: &mut List, script: &mut Script, pid: i32, signal: i32) {
    let none = script.place_words(&[0, 0]);
    list.call("forbidding a core dump", libc::SYS_prlimit64, &[0, u64::from(libc::RLIMIT_CORE), none.0, 0]);
    if signal != libc::SIGKILL {
        let action = script.place_words(&[SIG_DFL, 0, 0, 0]);
        list.call("resetting the signal", libc::SYS_rt_sigaction, &[signal as u64, action.0, 0, 8]);
        let mask = script.place_words(&[1 << (signal - 1)]);
        let args = [libc::SIG_UNBLOCK as u64, mask.0, 0, 8];
        list.call("letting the signal in", libc::SYS_rt_sigprocmask, &args);
    }
    list.call(Label::Number("dying by signal", i64::from(signal)), libc::SYS_kill, &[pid as u64, signal as u64]);
}

/// What its parent does: waits for the end, reaps a stand-in, and takes the signal that told of it.
pub fn await_end(list: &mut List, script: &mut Script, birth: &Birth) {
    let pid = birth.pid.0 as u64;
    if birth.being == Being::StandIn {
        let label = Label::Number("reaping the stand-in", i64::from(birth.pid.0));
        list.call_equals(label, libc::SYS_wait4, &[pid, 0, WALL, 0], pid);
    } else {
        let info = script.place(&[0; 128]);
        let options = (libc::WEXITED | libc::WNOWAIT) as u64 | WALL;
        let label = Label::Number("waiting for the end of child", i64::from(birth.pid.0));
        list.call(label, libc::SYS_waitid, &[P_PID, pid, info.0, options, 0]);
    }
    if birth.exit_signal != 0 {
        let mask = script.place_words(&[1 << (birth.exit_signal - 1)]);
        let now = script.place_words(&[0, 0]);
        list.try_call("taking the signal of its end", libc::SYS_rt_sigtimedwait, &[mask.0, 0, now.0, 8]);
    }
}
