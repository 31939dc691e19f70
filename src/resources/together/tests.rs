//! Objects that several processes have, in every way.

use super::*;
use crate::image::model::address::{PAGE_SIZE, PageRange};
use crate::image::model::file::{Description, FdEntry, FdTable};
use crate::image::model::id::{DescriptionId, MmId, Pid, SocketId};
use crate::image::tests::sample;

/// Four processes: the first has sockets 0 and 1, the second has another table for its second thread, the third is without descriptors, the fourth has the
/// memory of the third.
fn snapshot() -> Snapshot {
    let mut snapshot = sample::bare(100);
    let any = sample::snapshot().descriptions.swap_remove(0);
    let description = |(id, flags): (u32, i32)| Description {
        id: DescriptionId(id),
        object: OpenObject::Socket(SocketId([0, 1, 0, 2][id as usize])),
        flags: (flags | libc::O_NONBLOCK) as u32,
        ..any.clone()
    };
    let modes = [(0, libc::O_RDWR), (1, libc::O_RDWR), (2, libc::O_RDONLY), (3, libc::O_RDWR)];
    snapshot.descriptions = modes.into_iter().map(description).collect();
    let table = |(id, of): (u32, &&[(i32, u32)])| {
        let entry =
            |(fd, of): &(i32, u32)| FdEntry { fd: Fd(*fd), description: DescriptionId(*of), close_on_exec: false };
        FdTable { id: FdTableId(id), entries: of.iter().map(entry).collect(), locks: Vec::new() }
    };
    let tables: [&[(i32, u32)]; 3] = [&[(3, 0), (4, 1), (9, 2)], &[(5, 3)], &[]];
    snapshot.fd_tables = (0..).zip(&tables).map(table).collect();
    let process = |(pid, mm, tables): (i32, u32, &[u32])| {
        let mut process = Process { pid: Pid(pid), mm: MmId(mm), ..snapshot.processes[0].clone() };
        let thread = |table: &u32| {
            let mut thread = sample::thread(pid);
            thread.fd_table = FdTableId(*table);
            thread
        };
        process.threads = tables.iter().map(thread).collect();
        process
    };
    let all: [(i32, u32, &[u32]); 4] = [(100, 0, &[0]), (101, 1, &[2, 0, 1]), (102, 2, &[2]), (103, 2, &[2])];
    snapshot.processes = all.map(process).to_vec();
    let mut mms = vec![snapshot.mms[0].clone(); 3];
    (0..).zip(&mut mms).for_each(|(id, mm)| mm.id = MmId(id));
    let range = PageRange::new(0x10_0000, 0x10_0000 + PAGE_SIZE);
    mms[2].vmas = vec![sample::vma(range, Backing::PacketRing { ino: 51 })];
    snapshot.mms = mms;
    snapshot
}

fn pids(processes: &[&Process]) -> Vec<i32> {
    processes.iter().map(|process| process.pid.0).collect()
}

#[test]
fn who_has_an_object_has_it_by_a_descriptor_of_any_thread_or_maps_it() {
    let snapshot = snapshot();
    let wanted = |object: &OpenObject| {
        let OpenObject::Socket(id) = object else { return None };
        (id.0 != 2).then_some(id.0)
    };
    let holders = Holders::new(&snapshot, wanted);
    assert_eq!(pids(&holders.of(0)), [100, 101]);
    assert_eq!(pids(&holders.of(1)), [100, 101]);
    assert_eq!(pids(&holders.of(2)), [0; 0], "nobody has asked for it");
    let of = |place: usize, key| holders.main_descriptors(&snapshot.processes[place], key);
    assert_eq!(of(0, 0), [(Fd(3), libc::O_RDWR as u32), (Fd(9), libc::O_RDONLY as u32)]);
    assert_eq!(of(0, 1), [(Fd(4), libc::O_RDWR as u32)]);
    assert_eq!(of(1, 0), [], "the main thread has a table of its own");
    let mapped = |backing: &Backing| matches!(backing, Backing::PacketRing { ino: 51 }).then_some(1);
    let holders = holders.or_mapped(mapped);
    assert_eq!((pids(&holders.of(0)), pids(&holders.of(1))), (vec![100, 101], vec![100, 101, 102, 103]));
    assert!(share_memory(&holders.of(1)) && !share_memory(&holders.of(0)));
}
