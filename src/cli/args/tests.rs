//! What the command line takes and refuses.

use super::*;
use clap::CommandFactory;

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
