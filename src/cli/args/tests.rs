//! What the command line takes and refuses.

use super::*;
use clap::CommandFactory;
use std::collections::BTreeSet;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

fn dump(line: &str) -> DumpArgs {
    match parse(line).expect("it parses").command {
        Command::Dump(args) => args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn long_help_explains_and_gives_examples() {
    let mut command = Cli::command();
    for subcommand in command.get_subcommands_mut().filter(|subcommand| !subcommand.is_hide_set()) {
        let name = subcommand.get_name().to_owned();
        let help = subcommand.render_long_help().to_string();
        let about = subcommand.get_long_about().map(ToString::to_string).unwrap_or_default();
        assert!(about.len() > 100, "{name}: {about}");
        assert!(name == "demo" || help.contains(&format!("  snap {name} ")), "{name}: {help}");
    }
}

#[test]
fn a_dump_needs_a_pid_alone() {
    let args = dump("snap dump 12");
    assert_eq!((args.pid, args.output, args.kill, args.compress), (12, None, false, Compression::None));
}

#[test]
fn every_option_of_a_dump() {
    let args = dump("snap dump 12 -o - --kill --timeout 0.5 --compress zstd:-5 --json");
    assert_eq!(args.output, Some(PathBuf::from("-")));
    assert!(args.kill && args.json);
    assert_eq!(args.timeout, Some(Duration::from_millis(500)));
    assert_eq!(args.compress, Compression::Zstd(-5));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "snap dump",
        "snap dump 0",
        "snap dump -3",
        "snap dump x",
        "snap dump 1 --kill --leave-running",
        "snap dump 1 --kill --leave-stopped",
        "snap dump 1 --timeout 0",
        "snap dump 1 --timeout nan",
        "snap dump 1 --timeout -1",
        "snap dump 1 --external=",
        "snap dump 1 --compress lz4",
        "snap dump 1 --compress zstd:23",
        "snap dump 1 --compress zstd:",
        "snap restore",
        "snap restore a b",
        "snap restore a --files maybe",
        "snap -q -v dump 1",
        "snap",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

/// Each option of a verb stands in its section of docs/options.md, and nothing else does; so do the exit codes.
#[test]
fn the_options_are_those_of_the_documentation() {
    let text = include_str!("../../../docs/options.md");
    let documented = |section: &str| -> BTreeSet<String> {
        let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        let code = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        code.filter_map(|code| Some(code.strip_prefix("--")?.split(' ').next()?.to_owned())).collect()
    };
    let defined = |command: &clap::Command| -> BTreeSet<String> {
        command.get_arguments().filter_map(clap::Arg::get_long).map(str::to_owned).collect()
    };
    let mut sections = text.split("\n## ");
    let of_all = documented(sections.next().expect("the options of every verb"));
    let own = ["help", "version"].map(str::to_owned);
    assert_eq!(of_all, defined(&Cli::command()).into_iter().chain(own).collect());
    for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = format!("`snap {}", verb.get_name());
        let section = text.split("\n## ").find(|section| section.starts_with(&name)).unwrap_or_default();
        let all: BTreeSet<String> = std::iter::once(verb).chain(verb.get_subcommands()).flat_map(defined).collect();
        assert_eq!(documented(section), all, "{name}");
    }
    let plain = text.replace('`', "");
    for code in Code::ALL {
        let row = format!("| {} | {} |", code.number(), code.meaning());
        assert!(plain.contains(&row), "docs/options.md lacks {row}");
    }
}

#[test]
fn global_options_stand_anywhere() {
    assert!(parse("snap -q dump 1").expect("before").quiet);
    assert_eq!(parse("snap dump 1 -vv").expect("after").verbose, 2);
}

#[test]
fn json_may_precede_the_report() {
    let Command::Inspect(args) = parse("snap inspect a --json maps").expect("it parses").command else {
        panic!("not inspect");
    };
    assert!(args.json);
    assert_eq!(args.report, Report::Maps);
}
