//! Failures as a person reads them: what went wrong, where, why, and what to do about it.

use super::exit_code::Code;
use super::output::{self, Output};
use crate::blocker::Blocker;
use serde::Serialize;
use std::fmt::Write as _;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// Ends `snap`.
    pub code: Code,
    /// What, where and why.
    pub message: String,
    /// What to do.
    pub remedy: String,
    /// All reasons, where there are several.
    pub blockers: Vec<Blocker>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    error: Error<'a>,
    blockers: &'a [Blocker],
}

#[derive(Serialize)]
struct Error<'a> {
    code: u8,
    kind: &'static str,
    message: &'a str,
    remedy: &'a str,
}

impl Failure {
    /// A failure with one reason.
    pub fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: remedy.into(), blockers: Vec::new() }
    }

    /// Tells the user: text on standard error and, with `--json`, a document on standard output.
    pub fn tell(&self, output: Output) {
        // Who cannot be told cannot be told that either.
        let _ = output.aside(&self.text());
        if output.json
            && let Ok(document) = output::pretty(&self.document())
        {
            let _ = output.text(&document);
        }
    }

    fn text(&self) -> String {
        let mut text = format!("snap: {}\n", self.message);
        text.push_str(&list(&self.blockers));
        if !self.remedy.is_empty() {
            let _ = writeln!(text, "  {}", self.remedy);
        }
        text
    }

    fn document(&self) -> Document<'_> {
        Document {
            schema: "snap.error/1",
            error: Error {
                code: self.code.number(),
                kind: self.code.name(),
                message: &self.message,
                remedy: &self.remedy,
            },
            blockers: &self.blockers,
        }
    }
}

/// Every blocker, those of one task together.
#[must_use]
pub fn list(blockers: &[Blocker]) -> String {
    let mut text = String::new();
    let mut task = None;
    for blocker in blockers {
        if task != Some(&blocker.task) {
            let _ = writeln!(text, "  {}", blocker.task);
            task = Some(&blocker.task);
        }
        let _ = writeln!(text, "    {}", blocker.object);
        let _ = writeln!(text, "      why:    {}", blocker.reason);
        if !blocker.remedy.is_empty() {
            let _ = writeln!(text, "      remedy: {}", blocker.remedy);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocker(task: &str, object: &str) -> Blocker {
        Blocker { task: task.into(), object: object.into(), reason: "because".into(), remedy: "close it".into() }
    }

    #[test]
    fn blockers_of_one_task_stand_together() {
        let text = list(&[blocker("pid 1 (a)", "fd 3"), blocker("pid 1 (a)", "fd 4"), blocker("tid 2", "fd 5")]);
        insta::assert_snapshot!(text, @r"
        pid 1 (a)
          fd 3
            why:    because
            remedy: close it
          fd 4
            why:    because
            remedy: close it
        tid 2
          fd 5
            why:    because
            remedy: close it
        ");
    }

    #[test]
    fn the_document_says_everything() {
        let mut failure = Failure::new(Code::Unsupported, "no", "do");
        failure.blockers.push(blocker("pid 1", "fd 3"));
        let document = serde_json::to_value(failure.document()).expect("it serialises");
        assert_eq!(document["error"]["code"], 3);
        assert_eq!(document["error"]["kind"], "unsupported");
        assert_eq!(document["blockers"][0]["object"], "fd 3");
    }
}
