//! Who makes each process group, and who joins it.

use super::records::{Record, Records};
use super::{Being, Group};
use crate::image::model::id::Pid;

impl Records<'_> {
    /// Finds who makes each group.
    pub(super) fn groups(&mut self) {
        let outer_group = self.snapshot.processes[0].pgid;
        for index in 0..self.all.len() {
            let Record { being, pid, pgid, sid, .. } = self.all[index];
            let is_outer = self.outer == Some(sid) && pgid == outer_group && !self.by_pid.contains_key(&pgid);
            if being == Being::Midwife {
                // It does not live for that long.
            } else if pgid == pid {
                self.all[index].group = Group::Own;
            } else if (pgid == sid && self.outer != Some(sid)) || is_outer {
                // That of its session's leader, or that of `snap`.
            } else {
                self.join(index, pgid, sid);
            }
        }
    }

    fn join(&mut self, index: usize, pgid: Pid, sid: Pid) {
        match self.by_pid.get(&pgid).copied() {
            Some(leader) if self.all[leader].sid == sid => {
                let Record { pid, pgid: now, group, .. } = &mut self.all[leader];
                if pid != now {
                    *group = Group::Left(*now);
                }
            }
            Some(_) => {
                let reason = format!("the process with the id of its group {pgid} is in another session");
                return self.block(index, format!("process group {pgid}"), reason);
            }
            None => {
                // Somebody who is in that session, to be its parent.
                let in_session = |other: &usize| self.all[*other].sid == sid;
                let alive = |other: &usize| matches!(self.all[*other].being, Being::Process(_));
                let leader = self.by_pid.get(&sid).copied().filter(alive);
                let parent = self.all[index].parent.filter(in_session).filter(alive);
                let itself = Some(index).filter(alive);
                let Some(parent) = leader.or(parent).or(itself) else {
                    let reason = format!("nobody is left to make its group {pgid} again");
                    return self.block(index, format!("process group {pgid}"), reason);
                };
                self.stand_in(pgid, sid, parent, libc::SIGCHLD);
            }
        }
        let Record { pid, group, .. } = &mut self.all[index];
        *group = match group {
            Group::Left(_) => Group::Left(pgid),
            Group::Born | Group::Own | Group::Of(_) => {
                debug_assert_ne!(*pid, pgid);
                Group::Of(pgid)
            }
        };
    }
}
