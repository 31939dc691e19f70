//! Small trees, and who makes whom in them.

use super::*;
use crate::image::model::id::{FdTableId, FsId, HandlersId, MmId, Tid};
use crate::image::model::process::Process;
use crate::image::tests::sample;
use crate::restore::readdress::Consequences;

/// A tree of (pid, ppid, pgid, sid); the root first.
fn tree(ids: &[[i32; 4]]) -> Snapshot {
    let mut snapshot = sample::bare(ids[0][0]);
    let process = |(index, [pid, ppid, pgid, sid]): (usize, &[i32; 4])| {
        let mut process: Process = sample::bare(*pid).processes.remove(0);
        let thread = &mut process.threads[0];
        let own = index as u32;
        (process.mm, thread.fd_table, thread.fs) = (MmId(own), FdTableId(own), FsId(own));
        process.handlers = HandlersId(own);
        (process.ppid, process.pgid, process.sid) = (Pid(*ppid), Pid(*pgid), Pid(*sid));
        process
    };
    snapshot.processes = ids.iter().enumerate().map(process).collect();
    snapshot.mms = vec![snapshot.mms[0].clone(); ids.len()];
    snapshot
}

/// Pid, pid of its maker, when, whether it leads a session, its group.
type Told = (i32, Option<i32>, Moment, bool, Group);

fn made(snapshot: &Snapshot) -> Result<Genealogy, Vec<Blocker>> {
    genealogy(snapshot, &Choices { orphan: true, ..Choices::plain(&Consequences::default()) })
}

fn found(ids: &[[i32; 4]]) -> Result<Vec<Told>, Vec<Blocker>> {
    let genealogy = made(&tree(ids))?;
    let pid = |at: usize| genealogy.births[at].pid.0;
    let tell = |birth: &Birth| (birth.pid.0, birth.maker.map(pid), birth.moment, birth.leads_session, birth.group);
    Ok(genealogy.births.iter().map(tell).collect())
}

#[test]
fn a_shell_with_two_jobs() {
    let births = found(&[[10, 1, 10, 10], [11, 10, 11, 10], [12, 10, 12, 10], [13, 10, 12, 10]]).unwrap();
    let early = |pid, group| (pid, Some(10), Moment::Early, false, group);
    let expected = [
        (10, None, Moment::Early, true, Group::Own),
        early(11, Group::Own),
        early(12, Group::Own),
        early(13, Group::Of(Pid(12))),
    ];
    assert_eq!(births, expected);
}

#[test]
fn a_daemon_whose_session_leader_is_dead_is_made_by_a_stand_in() {
    let births = found(&[[10, 1, 10, 10], [22, 10, 21, 21]]).unwrap();
    let expected = [
        (10, None, Moment::Early, true, Group::Own),
        (21, Some(10), Moment::Early, true, Group::Own),
        (22, Some(21), Moment::Early, false, Group::Born),
    ];
    assert_eq!(births, expected);
}

#[test]
fn a_child_of_before_setsid_is_made_before_it() {
    let births = found(&[[10, 1, 10, 10], [11, 10, 11, 11], [12, 11, 10, 10]]).unwrap();
    assert_eq!(births[2], (12, Some(11), Moment::BeforeSession, false, Group::Born));
}

#[test]
fn a_group_whose_leader_is_dead_gets_a_stand_in() {
    let births = found(&[[10, 1, 10, 10], [12, 10, 11, 10], [13, 10, 11, 10]]).unwrap();
    assert_eq!(births[3], (11, Some(10), Moment::Early, false, Group::Own));
    assert_eq!(births[1].4, Group::Of(Pid(11)));
    assert_eq!(births.len(), 4);
}

#[test]
fn a_leader_that_has_left_its_group_makes_it_first() {
    let births = found(&[[10, 1, 10, 10], [11, 10, 12, 10], [12, 10, 12, 10], [13, 10, 11, 10]]).unwrap();
    assert_eq!(births[1].4, Group::Left(Pid(12)));
    assert_eq!(births[3].4, Group::Of(Pid(11)));
}

#[test]
fn the_group_of_the_outside_is_that_of_snap() {
    let births = found(&[[10, 1, 5, 4], [11, 10, 5, 4], [12, 10, 12, 4]]).unwrap();
    let groups: Vec<Group> = births.iter().map(|birth| birth.4).collect();
    assert_eq!(groups, [Group::Born, Group::Born, Group::Own]);
    assert!(births.iter().all(|birth| !birth.3));
}

/// For each adoption: the child, who makes the midwife, who adopts.
fn adoptions(genealogy: &Genealogy) -> Vec<[i32; 3]> {
    let pid = |at: usize| genealogy.births[at].pid.0;
    genealogy.adoptions.iter().map(|one| [pid(one.child), pid(one.maker), pid(one.parent)]).collect()
}

#[test]
fn a_member_of_a_session_that_is_led_by_a_nephew_is_adopted() {
    let made = made(&tree(&[[10, 1, 10, 10], [11, 10, 11, 10], [12, 11, 12, 12], [13, 10, 12, 12]])).unwrap();
    assert_eq!(adoptions(&made), [[13, 12, 10]]);
    assert_eq!(made.meeting(), 4);
    assert_eq!(made.waves(), 2, "it is born in memory that is whole");
}

#[test]
fn a_dead_leader_whose_children_have_several_parents_is_stood_in_for_below_all_of_them() {
    let ids = [[10, 1, 10, 10], [11, 10, 10, 10], [14, 10, 12, 12], [13, 11, 12, 12]];
    let made = made(&tree(&ids)).unwrap();
    let stand_in = made.births.iter().find(|birth| birth.being == Being::StandIn).unwrap();
    assert_eq!((stand_in.pid, stand_in.parent), (Pid(12), Some(1)));
    assert_eq!(adoptions(&made), [[14, 12, 10]]);
}

#[test]
fn parents_without_a_common_line_are_refused() {
    let ids = [[10, 1, 10, 10], [11, 10, 10, 10], [12, 10, 10, 10], [21, 11, 30, 30], [22, 12, 30, 30]];
    let blockers = found(&ids).unwrap_err();
    assert_eq!(blockers.len(), 1, "{blockers:?}");
    assert_eq!(blockers[0].object, "session 30");
}

#[test]
fn who_left_a_session_after_its_children_was_born_in_it() {
    let births = found(&[[10, 1, 5, 5], [11, 10, 11, 11], [12, 11, 12, 12], [13, 12, 5, 5]]).unwrap();
    let moments: Vec<(i32, Moment)> = births.iter().map(|birth| (birth.0, birth.2)).collect();
    let (early, before) = (Moment::Early, Moment::BeforeSession);
    assert_eq!(moments, [(10, early), (11, early), (12, before), (13, before)]);
}

#[test]
fn brothers_share_what_their_parent_does_not_have() {
    let mut snapshot = tree(&[[10, 1, 10, 10], [11, 10, 10, 10], [12, 10, 10, 10]]);
    let brother = snapshot.processes[1].clone();
    snapshot.processes[2].mm = brother.mm;
    snapshot.processes[2].handlers = brother.handlers;
    let made = made(&snapshot).unwrap();
    let birth = made.births[2];
    assert_eq!((birth.maker, birth.parent, birth.moment), (Some(1), Some(0), Moment::Filled));
    assert_eq!(birth.shares, Shares { memory: true, handlers: true, ..Shares::default() });
}

#[test]
fn sharing_that_clone_cannot_make_is_refused_by_name() {
    let mut snapshot = tree(&[[10, 1, 10, 10], [11, 10, 10, 10], [12, 10, 10, 10], [13, 11, 10, 10]]);
    snapshot.processes[3].threads[0].fd_table = snapshot.processes[2].threads[0].fd_table;
    let blockers = made(&snapshot).unwrap_err();
    assert_eq!(blockers.len(), 1, "{blockers:?}");
    assert_eq!((blockers[0].task.as_str(), blockers[0].object.as_str()), ("pid 13", "table of descriptors"));
}

/// A process with so many other threads, each with a table and a directory of these numbers.
fn threaded(others: &[[u32; 2]]) -> Process {
    let mut process = tree(&[[10, 1, 10, 10]]).processes.remove(0);
    for (at, [table, fs]) in others.iter().enumerate() {
        let mut thread = process.threads[0].clone();
        (thread.tid, thread.fd_table, thread.fs) = (Tid(20 + at as i32), FdTableId(*table), FsId(*fs));
        process.threads.push(thread);
    }
    process
}

/// For each thread its maker, whose table it uses, and whether it shares descriptors and directories with the maker.
fn threads_made(process: &Process) -> Vec<(usize, usize, bool, bool)> {
    let births = threads(process).unwrap();
    births.iter().map(|birth| (birth.maker, birth.table_of, birth.shares.files, birth.shares.directories)).collect()
}

#[test]
fn threads_are_made_by_one_that_has_what_they_share() {
    let process = threaded(&[[0, 0], [1, 0], [1, 0], [0, 1], [1, 2]]);
    let expected =
        [(0, 0, true, true), (0, 2, false, true), (2, 2, true, true), (0, 0, true, false), (2, 2, true, false)];
    assert_eq!(threads_made(&process), expected);
}

#[test]
fn the_threads_of_an_ended_leader_are_all_made_by_it() {
    let mut process = threaded(&[[0, 0]]);
    let credentials = process.threads[0].credentials.clone();
    process.threads[0].tid = Tid(19);
    process.ended_leader = Some(crate::image::model::process::EndedLeader { comm: Vec::new(), status: 0, credentials });
    assert_eq!(threads_made(&process), [(0, 0, true, true); 2]);
}
