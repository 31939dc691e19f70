//! `snap check`: what this kernel lacks, or what stands in the way of dumping a process.

use super::args::CheckArgs;
use super::exit::Exit;
use super::exit_code::Code;
use super::failure::{Failure, list};
use super::output::{self, Output};
use crate::blocker::Blocker;
use crate::dump::features::{self, Feature, Need, State};
use crate::dump::{self, Preflight};
use crate::image::model::id::Pid;
use crate::inspect::table::{lines, table};
use crate::inspect::text::{count, escape_controls};
use serde::Serialize;

/// Checks the host, or a process on it.
pub fn run(args: &CheckArgs, output: Output) -> Result<Exit, Failure> {
    match args.pid {
        None => host(output),
        Some(pid) => process(pid, output),
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    features: &'a [Feature],
}

fn host(output: Output) -> Result<Exit, Failure> {
    let features = features::probe();
    if output.json {
        output.document(&Document { schema: "snap.check.host/1", features: &features })?;
    } else {
        output.text(&text(&features))?;
    }
    Ok(Exit::Code(verdict(&features)))
}

/// Only what nothing works without decides.
fn verdict(features: &[Feature]) -> Code {
    let lacks = |state| features.iter().any(|feature| feature.need == Need::Always && feature.state == state);
    if lacks(State::Missing) {
        Code::Unsupported
    } else if lacks(State::Denied) {
        Code::Permission
    } else {
        Code::Ok
    }
}

#[derive(Serialize)]
struct ProcessDocument<'a> {
    schema: &'static str,
    pid: i32,
    blockers: &'a [Blocker],
    seen_only_when_frozen: &'a [&'static str],
}

fn process(pid: i32, output: Output) -> Result<Exit, Failure> {
    let preflight = dump::preflight(Pid(pid)).map_err(|error| super::dump::explain_check(pid, error))?;
    let Preflight { blockers, seen_only_when_frozen } = preflight;
    if output.json {
        output.document(&ProcessDocument {
            schema: "snap.check.process/1",
            pid,
            blockers: &blockers,
            seen_only_when_frozen,
        })?;
    } else {
        output.text(&process_text(pid, &blockers, seen_only_when_frozen))?;
    }
    Ok(Exit::Code(if blockers.is_empty() { Code::Ok } else { Code::Unsupported }))
}

fn process_text(pid: i32, blockers: &[Blocker], later: &[&str]) -> String {
    let mut text = match blockers.len() {
        0 => format!("Nothing that can be seen from outside stands in the way of dumping pid {pid}.\n"),
        number => format!("Pid {pid} cannot be dumped: {}.\n{}", count(number as u64, "reason"), list(blockers)),
    };
    if !later.is_empty() {
        text.push_str("\nOnly once it is frozen can be seen (a dump refuses then, and it runs on unchanged):\n");
    }
    for what in later {
        text.push_str(&format!("  - {what}\n"));
    }
    text
}

fn text(features: &[Feature]) -> String {
    let mut table = table(&["", "FEATURE", "USED FOR"], output::columns());
    for feature in features {
        let mut what = feature.used_for.to_owned();
        if !feature.detail.is_empty() {
            what = format!("{what} ({})", escape_controls(&feature.detail));
        }
        table.add_row([mark(feature).to_owned(), feature.name.to_owned(), what]);
    }
    let mut text = lines(&mut table);
    text.push('\n');
    text.push_str(match verdict(features) {
        Code::Unsupported => "This kernel lacks something that every dump and restore needs (MISSING).",
        Code::Permission => "This user may not do something that every dump and restore needs (DENIED).",
        _ => {
            "Everything that every dump and restore needs is here. What is missing or denied matters only to \
              programs that use it; a dump of one says so before it touches it."
        }
    });
    text
}

const fn mark(feature: &Feature) -> &'static str {
    match (feature.state, feature.need) {
        (State::Usable, _) => "ok",
        (State::Denied, Need::Always) => "DENIED",
        (State::Denied, Need::Sometimes | Need::Informative) => "denied",
        (State::Missing, Need::Always) => "MISSING",
        (State::Missing, Need::Sometimes | Need::Informative) => "missing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(state: State, need: Need) -> Feature {
        Feature { name: "x", state, detail: String::new(), need, used_for: "y" }
    }

    #[test]
    fn only_what_is_always_needed_decides() {
        let minor = feature(State::Missing, Need::Sometimes);
        assert_eq!(verdict(std::slice::from_ref(&minor)), Code::Ok);
        assert_eq!(verdict(&[minor.clone(), feature(State::Denied, Need::Always)]), Code::Permission);
        assert_eq!(
            verdict(&[feature(State::Denied, Need::Always), feature(State::Missing, Need::Always)]),
            Code::Unsupported
        );
    }
}
