//! Where all beings meet on the way to their process groups, and the ends of those that end there.

use super::super::genealogy::{Being, Birth, Group};
use super::super::script::{Label, List};
use super::super::zombie;
use super::Builder;

impl Builder<'_> {
    /// Process groups, which must exist before they are joined and be joined before their stand-ins end; then the ends of children.
    pub(super) fn meet_all(&mut self, list: &mut List, at: usize) {
        let all = self.genealogy().meeting() as u32;
        let birth = self.genealogy().births[at];
        let [born, made, joined, left] = self.meetings;
        let set = |list: &mut List, group: i32| {
            let label = Label::Number("joining process group", i64::from(group));
            list.call(label, libc::SYS_setpgid, &[0, group as u64]);
        };
        if all > 1 {
            list.meet("waiting until all are born", born, all);
        }
        if matches!(birth.group, Group::Own | Group::Left(_)) && !birth.leads_session {
            list.call("making a process group", libc::SYS_setpgid, &[0, 0]);
        }
        if all == 1 {
            self.bring_to_foreground(list, birth);
            return;
        }
        list.meet("waiting for process groups", made, all);
        if let Group::Of(group) = birth.group {
            set(list, group.0);
        }
        list.meet("waiting until process groups are joined", joined, all);
        if let Group::Left(group) = birth.group {
            set(list, group.0);
        }
        list.meet("waiting until process groups were left", left, all);
        self.bring_to_foreground(list, birth);
        for &child in &self.ends[at] {
            let birth = self.genealogy().births[child];
            zombie::await_end(list, &mut self.script, &birth);
        }
    }

    fn bring_to_foreground(&mut self, list: &mut List, birth: Birth) {
        if let Some((terminal, Some(foreground))) = self.terminal(birth) {
            let group = self.script.place(&foreground.0.to_le_bytes());
            let args = [terminal as u64, crate::sys::terminal::TIOCSPGRP, group.0];
            // Of a group that is gone the terminal keeps but the number.
            list.try_call("foreground group of the terminal", libc::SYS_ioctl, &args);
        }
    }

    pub(super) fn end(&mut self, list: &mut List, being: Being) {
        let zombies = &self.world.snapshot.zombies;
        let own = self.world.facts.credentials.uid[0];
        match being {
            Being::Zombie(index) => zombie::end(list, &mut self.script, &zombies[index], own),
            Being::StandIn | Being::Midwife | Being::Process(_) => list.call("ending", libc::SYS_exit_group, &[0]),
        }
    }
}
