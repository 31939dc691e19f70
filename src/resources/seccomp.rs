//! Seccomp filters: read with PTRACE_SECCOMP_GET_FILTER, stored once where threads share them.

use super::CollectError;
use crate::image::model::id::{SeccompId, Tid};
use crate::image::model::thread::{Seccomp, SeccompFilter};
use crate::sys::ptrace_info::{seccomp_filter, seccomp_flags};
use std::collections::HashMap;

/// The filters of one dump, each once.
#[derive(Debug, Default)]
pub struct SeccompTable {
    filters: Vec<SeccompFilter>,
    known: HashMap<(u32, Vec<u64>), SeccompId>,
}

impl SeccompTable {
    /// Reads the filters of a stopped thread whose `status` shows this mode.
    ///
    /// # Errors
    /// EACCES without CAP_SYS_ADMIN.
    pub fn collect(&mut self, tid: Tid, mode: u8, no_new_privs: bool) -> Result<Seccomp, CollectError> {
        let mut filters = Vec::new();
        if mode == 2 {
            while let Some(program) =
                seccomp_filter(tid, filters.len()).map_err(CollectError::at(tid, "PTRACE_SECCOMP_GET_FILTER"))?
            {
                let flags = seccomp_flags(tid, filters.len())
                    .map_err(CollectError::at(tid, "PTRACE_SECCOMP_GET_METADATA"))? as u32;
                let words = program
                    .iter()
                    .map(|f| u64::from(f.code) | u64::from(f.jt) << 16 | u64::from(f.jf) << 24 | u64::from(f.k) << 32)
                    .collect();
                filters.push(self.intern(flags, words));
            }
        }
        Ok(Seccomp { mode, filters, no_new_privs })
    }

    /// The filters in the order of their ids.
    #[must_use]
    pub fn into_filters(self) -> Vec<SeccompFilter> {
        self.filters
    }

    fn intern(&mut self, flags: u32, program: Vec<u64>) -> SeccompId {
        let next = SeccompId(self.filters.len() as u32);
        let id = *self.known.entry((flags, program.clone())).or_insert(next);
        if id == next {
            self.filters.push(SeccompFilter { id, flags, program });
        }
        id
    }
}
