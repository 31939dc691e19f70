//! Pipes inside one process.

use crate::support::isolated;

#[test]
fn exam_15_pipes_with_unread_bytes() {
    isolated(|room| room.survives(room.victim("pipe", &[])));
}
