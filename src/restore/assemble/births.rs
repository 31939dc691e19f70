//! How a being begins, and how it makes others.

use super::super::genealogy::{Being, Birth, Moment};
use super::super::plan::BORN;
use super::super::script::{Label, List};
use super::{Builder, MAKING};
use crate::image::model::address::Addr;

const PR_SET_PDEATHSIG: u64 = 1;
const IOPRIO_WHO_PROCESS: u64 = 1;

/// Words of an adoption.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Set when the one who adopts is ready, when the child no longer needs its midwife, and when she is dead.
    ready: Addr,
    born: Addr,
    done: Addr,
    /// Her id, as she knows it, as the child finds it, and as her maker knows it.
    midwife: Addr,
    found: Addr,
    mother: Addr,
}

impl Turn {
    pub fn new(word: &mut impl FnMut() -> Addr) -> Self {
        Self { ready: word(), born: word(), done: word(), midwife: word(), found: word(), mother: word() }
    }
}

/// Dies with its parent.
fn tie(list: &mut List) {
    list.call("tying itself to its parent", libc::SYS_prctl, &[PR_SET_PDEATHSIG, libc::SIGKILL as u64]);
}

impl Builder<'_> {
    /// What is done in the memory in which it was born, which is that of its maker.
    pub(super) fn begin(&mut self, list: &mut List, at: usize) {
        let birth = self.genealogy().births[at];
        if birth.being == Being::Midwife {
            return self.midwife(list, at, birth);
        }
        // Until it is traced; then PTRACE_O_EXITKILL watches over it.
        tie(list);
        match (birth.adoption, birth.parent) {
            (Some(turn), _) => {
                let Turn { midwife, found, .. } = self.adoptions[turn];
                list.call_stored("asking for its parent", libc::SYS_getppid, &[], found);
                list.same("looking for its midwife", [midwife, found]);
            }
            (None, Some(parent)) => self.look_for(list, parent),
            (None, None) if self.orphan => {
                // Its parent may be dead already, and then nothing ties it.
                let [known, found] = self.parents;
                list.call_stored("asking for its parent", libc::SYS_getppid, &[], found);
                list.same("looking for its parent", [known, found]);
            }
            (None, None) => list.call_equals("looking for snap", libc::SYS_getppid, &[], self.world.facts.pid as u64),
        }
        let is_traced = matches!(birth.being, Being::Process(_));
        if is_traced {
            let [go, _] = self.words[at];
            self.tell(list, "telling that it is born", BORN, at);
            list.wait("waiting to be traced", go, 1);
        }
        if is_traced || birth.adoption.is_some() {
            list.call("untying itself", libc::SYS_prctl, &[PR_SET_PDEATHSIG, 0]);
        }
        if let (Some(turn), Some(parent)) = (birth.adoption, birth.parent) {
            let Turn { midwife, born, .. } = self.adoptions[turn];
            list.arrive("letting its midwife go", born);
            let pid = self.genealogy().births[parent].pid;
            list.adopted("waiting to be adopted", pid.0, midwife);
            if !is_traced {
                tie(list);
                self.look_for(list, parent);
            }
        }
        if at == 0 {
            self.begin_root(list);
        }
        self.make(list, at, Moment::BeforeSession);
        if birth.leads_session {
            list.call("setsid", libc::SYS_setsid, &[]);
        }
        if let Some((terminal, _)) = self.terminal(birth) {
            let args = [terminal as u64, crate::sys::terminal::TIOCSCTTY, 0];
            list.call("taking the terminal for its session", libc::SYS_ioctl, &args);
        }
        self.make(list, at, Moment::Early);
    }

    fn look_for(&self, list: &mut List, parent: usize) {
        let parent = self.genealogy().births[parent].pid.0 as u64;
        list.call_equals("looking for its parent", libc::SYS_getppid, &[], parent);
    }

    /// Who makes one other, waits until that is traced, and dies.
    fn midwife(&mut self, list: &mut List, at: usize, birth: Birth) {
        tie(list);
        if let Some(maker) = birth.maker {
            self.look_for(list, maker);
        }
        let child = self.genealogy().made[at][0];
        let birth = self.genealogy().births[child];
        let Some(turn) = birth.adoption else { return };
        let Turn { midwife, born, .. } = self.adoptions[turn];
        list.call_stored("noting its pid", libc::SYS_getpid, &[], midwife);
        self.make_one(list, child, birth);
        list.wait("waiting until the process is traced", born, 1);
        list.call("ending", libc::SYS_exit_group, &[0]);
    }

    /// Takes its turns in adoptions: as the one who adopts, or as the one who makes the midwife.
    pub(super) fn adopt(&mut self, list: &mut List, at: usize) {
        const PR_SET_CHILD_SUBREAPER: u64 = 36;
        const WALL: u64 = 0x4000_0000;
        for (turn, adoption) in self.genealogy().adoptions.iter().enumerate() {
            let Turn { ready, done, mother, .. } = self.adoptions[turn];
            if adoption.parent == at {
                if let Some(before) = turn.checked_sub(1) {
                    list.wait("waiting for its turn to adopt", self.adoptions[before].done, 1);
                }
                list.call("becoming a subreaper", libc::SYS_prctl, &[PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0]);
                list.arrive("being ready to adopt", ready);
                list.wait("waiting for the child to adopt", done, 1);
                list.call("being a subreaper no more", libc::SYS_prctl, &[PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0]);
            } else if adoption.maker == at {
                list.wait("waiting for who adopts", ready, 1);
                self.make_midwife(list, adoption.midwife, mother);
                list.call_indirect("waiting for the end of the midwife", libc::SYS_wait4, &[mother.0, 0, WALL, 0], 1);
                list.arrive("telling that the midwife is dead", done);
            }
        }
    }

    /// A midwife takes any id, which is stored.
    fn make_midwife(&mut self, list: &mut List, at: usize, store: Addr) {
        let birth = self.genealogy().births[at];
        self.have_what_it_shares(list, birth);
        let task = self.tasks[at];
        let (stack, size) = self.script.stack(task);
        let words = [birth.shares.flags(), 0, 0, 0, 0, stack.0, size, 0, 0, 0];
        let args = self.script.place_words(&words);
        list.spawn_any("making a midwife", args, words.len() as u64 * 8, self.script.task(task), store);
    }

    /// CLONE_IO shares what is there: setting a priority makes it.
    fn have_what_it_shares(&self, list: &mut List, birth: Birth) {
        if birth.shares.io_context {
            list.call("having an I/O context", libc::SYS_ioprio_set, &[IOPRIO_WHO_PROCESS, 0, 0]);
        }
    }

    /// Makes those whom it makes at this moment.
    pub(super) fn make(&mut self, list: &mut List, at: usize, moment: Moment) {
        for &child in &self.genealogy().made[at] {
            let birth = self.genealogy().births[child];
            if birth.moment == moment {
                self.make_one(list, child, birth);
            }
        }
    }

    fn make_one(&mut self, list: &mut List, child: usize, birth: Birth) {
        let task = self.tasks[child];
        let tid = self.script.place(&birth.pid.0.to_le_bytes());
        let (stack, size) = self.script.stack(task);
        // CLONE_PARENT takes the signal of the maker.
        let (sibling, signal) =
            if birth.is_sibling() { (libc::CLONE_PARENT, 0) } else { (0, birth.exit_signal as u64) };
        self.have_what_it_shares(list, birth);
        let flags = sibling as u64 | birth.shares.flags();
        let words = [flags, 0, 0, 0, signal, stack.0, size, 0, tid.0, 1];
        let args = self.script.place_words(&words);
        let label = Label::Number(MAKING, i64::from(birth.pid.0));
        list.spawn(label, args, words.len() as u64 * 8, self.script.task(task), birth.pid.0);
    }

    /// A parent for an orphan: it dies once the skeleton is traced, so that nothing happens when `snap` ends.
    pub(super) fn parent(&mut self) -> List {
        let mut list = List::default();
        tie(&mut list);
        list.call_equals("looking for snap", libc::SYS_getppid, &[], self.world.facts.pid as u64);
        list.call_stored("noting its pid", libc::SYS_getpid, &[], self.parents[0]);
        let birth = self.genealogy().births[0];
        self.make_one(&mut list, 0, Birth { exit_signal: libc::SIGCHLD, ..birth });
        list.wait("waiting until the process is traced", self.untied, 1);
        list.call("ending", libc::SYS_exit_group, &[0]);
        list
    }
}
