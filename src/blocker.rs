//! Blockers: the reasons why something cannot be dumped or restored, collected and reported all at once.

use serde::Serialize;
use std::fmt;

/// One reason, in the four parts that a user needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// Who holds the object: `pid 12 (nginx)`, `tid 13`.
    pub task: String,
    /// What it is: `fd 5: socket:[1234]`, `mapping 7f00-7f01 /dev/kvm`.
    pub object: String,
    /// Why it cannot be saved or had again.
    pub reason: String,
    /// What would lift it.
    pub remedy: String,
}

impl Blocker {
    /// Makes one of its parts, in the order of the fields.
    #[must_use]
    pub fn new(
        task: impl Into<String>,
        object: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { task: task.into(), object: object.into(), reason: reason.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {} ({})", self.task, self.object, self.reason, self.remedy)
    }
}
