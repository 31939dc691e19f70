//! Files of /proc and of cgroups that several processes have inherited.

use super::survives;
use crate::support::isolated;

#[test]
fn files_of_proc_that_were_inherited_and_of_a_process_that_has_ended() {
    isolated(|room| survives(room, room.victim("procfs", &[]), &[]));
}
