//! What a program pays for having been dumped: rounds of the same work before a dump that leaves it running, right after it, later, and in a twin that
//! was never dumped.
//!
//! `cargo bench --bench cost` (after `cargo build --release -p fixtures`). Medians in milliseconds; page faults of a round in brackets. The twin works in turns with the
//! dumped one, so that both meet the same machine.

#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "made for the tests, of which a benchmark needs a part")]
mod support;

use support::{Room, Victim};

const ROUNDS: usize = 15;
const COLUMNS: [&str; 5] = ["before", "twin", "first after", "after", "twin"];

fn main() {
    support::namespace::close_on_exec();
    let heads = COLUMNS.iter().map(|name| format!("{name:>18}")).collect::<String>();
    println!("{:<16}{heads}   median of a round, ms [page faults]", "");
    for (name, arguments) in [("64 MiB", &["64"][..]), ("64 MiB, huge", &["64", "huge"])] {
        measure(name, arguments);
    }
}

fn measure(name: &str, arguments: &[&str]) {
    let room = Room::new("cost");
    let (mut one, mut twin) = (room.victim("toil", arguments), room.victim("toil", arguments));
    let (before, twin_before) = in_turns(&one, &twin);
    room.snap(["dump", &one.pid().to_string(), "-o", "x.snap"]).run().expect(0);
    let first = vec![round(&one)];
    let (after, twin_after) = in_turns(&one, &twin);
    let line = [before, twin_before, first, after, twin_after].map(median);
    println!("{name:<16}{}", line.concat());
    one.end();
    twin.end();
}

/// Nanoseconds and page faults of a round.
type Round = (u64, u64);

fn round(victim: &Victim) -> Round {
    let said = victim.ask("round");
    let mut words = said.split_whitespace().map(|word| word.parse().expect("a number"));
    (words.next().expect("nanoseconds"), words.next().expect("faults"))
}

fn in_turns(one: &Victim, twin: &Victim) -> (Vec<Round>, Vec<Round>) {
    (0..ROUNDS).map(|_| (round(one), round(twin))).unzip()
}

fn median(mut rounds: Vec<Round>) -> String {
    rounds.sort_unstable();
    let (time, faults) = rounds[rounds.len() / 2];
    format!("{:>18}", format!("{:.2} [{faults}]", time as f64 / 1e6))
}
