//! What this kernel can do, and what of it this user may: each feature is tried out, none is concluded from a version.
//!
//! Probes that would change this process run in a child; the ones that need a target stop a child made for them.

mod memory;
mod privilege;
mod restoring;
mod tracing;

use crate::sys;
use nix::errno::Errno;
use serde::Serialize;

/// One feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// Its name, as the kernel's documentation has it.
    pub name: &'static str,
    /// What the probe found.
    pub state: State,
    /// Details: a value, or why not.
    pub detail: String,
    /// How much `snap` depends on it.
    pub need: Need,
    /// What depends on it.
    pub used_for: &'static str,
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It works for this user.
    Usable,
    /// The kernel has it, but this user may not.
    Denied,
    /// The kernel lacks it, or has none of it to give.
    Missing,
}

/// How much `snap` depends on a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Nothing works without it.
    Always,
    /// Some targets or options need it.
    Sometimes,
    /// Only a fact that explains others, or a gain in speed.
    Informative,
}

/// Tries everything out.
#[must_use]
pub fn probe() -> Vec<Feature> {
    let mut features = tracing::probe();
    features.extend(memory::probe());
    features.extend(restoring::probe());
    features.extend(privilege::probe());
    features
}

/// A feature from the kernel's answer; `detail` says what a value means.
fn feature(
    name: &'static str,
    need: Need,
    used_for: &'static str,
    answer: sys::Result<u64>,
    detail: impl FnOnce(u64) -> String,
) -> Feature {
    let (state, detail) = match answer {
        Ok(value) => (State::Usable, detail(value)),
        Err(errno @ (Errno::EPERM | Errno::EACCES)) => (State::Denied, describe(errno)),
        Err(errno) => (State::Missing, describe(errno)),
    };
    Feature { name, state, detail, need, used_for }
}

fn nothing(_: u64) -> String {
    String::new()
}

fn describe(errno: Errno) -> String {
    format!("{errno:?}: {}", errno.desc())
}

/// A fact that is read, not tried.
fn fact(name: &'static str, used_for: &'static str, value: Option<String>) -> Feature {
    match value {
        Some(detail) => Feature { name, state: State::Usable, detail, need: Need::Informative, used_for },
        None => Feature {
            name,
            state: State::Missing,
            detail: "this kernel does not say".into(),
            need: Need::Informative,
            used_for,
        },
    }
}

/// A file of /proc or /sys in one line.
fn line(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_always_needed_is_usable_here_and_names_differ() {
        let features = probe();
        let broken: Vec<&Feature> =
            features.iter().filter(|feature| feature.need == Need::Always && feature.state != State::Usable).collect();
        assert!(broken.is_empty(), "{broken:?}");
        let mut names: Vec<&str> = features.iter().map(|feature| feature.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), features.len());
    }

    #[test]
    fn permission_is_told_from_absence() {
        let state = |answer| feature("x", Need::Always, "", answer, nothing).state;
        assert_eq!(state(Ok(0)), State::Usable);
        assert_eq!(state(Err(Errno::EPERM)), State::Denied);
        assert_eq!(state(Err(Errno::ENOSYS)), State::Missing);
    }
}
