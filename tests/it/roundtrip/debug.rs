//! Hardware debug registers.

use crate::support::isolated;

#[test]
fn a_watched_variable_still_traps() {
    isolated(|room| room.survives(room.victim("debug", &[])));
}
