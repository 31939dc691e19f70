//! Address spaces: what becomes of the vdso.

use super::Checker;
use crate::image::model::process::Process;
use crate::restore::genealogy::Being;
use crate::restore::vdso::{self, Vdso};

impl Checker<'_> {
    /// In the order of births: where one finds the vdso depends on where its maker has put it.
    pub(super) fn address_spaces(&mut self) {
        self.findings.vdsos = vec![Vdso::default(); self.snapshot.processes.len()];
        let births = self.findings.genealogy.births.clone();
        for birth in births {
            if let Being::Process(index) = birth.being {
                self.address_space(index, &self.snapshot.processes[index]);
            }
        }
    }

    fn address_space(&mut self, index: usize, process: &Process) {
        let mm = &self.snapshot.mms[process.mm.0 as usize];
        let now = self.findings.vdso_at_birth(index, self.facts).to_vec();
        match vdso::decide(&self.snapshot.inventory.host, process, mm, &now, self.facts) {
            Err(blockers) => {
                self.findings.blockers.extend(blockers);
                self.findings.vdsos[index] = Vdso::default();
            }
            Ok(vdso) => {
                let new = vdso.notices.iter().filter(|notice| !self.findings.notices.contains(notice));
                let new: Vec<String> = new.cloned().collect();
                self.findings.notices.extend(new);
                self.findings.vdsos[index] = vdso;
            }
        }
    }
}
