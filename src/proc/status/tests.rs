//! Status files of real tasks.

use super::*;

#[test]
fn of_a_program_with_an_odd_name() {
    let status = parse(include_bytes!("../../../fixtures/proc/fds/status")).unwrap();
    let expected = Status {
        name: b"a b) (\\\n:c".to_vec(),
        umask: Some(0o22),
        state: b'S',
        tgid: Pid(19853),
        pid: Tid(19853),
        ppid: Pid(1),
        tracer: Tid(0),
        uid: [0; 4],
        gid: [0; 4],
        fd_slots: 256,
        groups: vec![],
        ns_tgid: vec![19853],
        ns_pid: vec![19853],
        ns_pgid: vec![19847],
        ns_sid: vec![7094],
        kernel_thread: Some(false),
        memory: Some(Memory {
            peak: 155_916 << 10,
            size: 90396 << 10,
            locked: 0,
            pinned: 0,
            resident_peak: 12536 << 10,
            resident: 12536 << 10,
            resident_anonymous: 5696 << 10,
            resident_file: 6840 << 10,
            resident_shared: 0,
            page_tables: 72 << 10,
            swap: 0,
            hugetlb: 0,
        }),
        core_dumping: Some(false),
        thp_enabled: Some(true),
        untag_mask: Some(u64::MAX),
        thread_features: vec![],
        thread_features_locked: vec![],
        threads: 2,
        queued_signals: [5, 96365],
        signals: SignalSets {
            pending: 0,
            shared_pending: 1 << 11,
            blocked: 1 << 63 | 1 << 11,
            ignored: 0x0100_1007,
            caught: 0x1_0000_0200,
        },
        capabilities: Capabilities {
            inheritable: 0,
            permitted: 0x1ff_feff_ffff,
            effective: 0x1ff_feff_ffff,
            bounding: 0x1ff_feff_ffff,
            ambient: 0,
        },
        no_new_privs: false,
        seccomp: Some(0),
        seccomp_filters: Some(0),
        speculation_store_bypass: Some("thread vulnerable".into()),
        speculation_indirect_branch: Some("conditional enabled".into()),
        cpus_allowed: vec![3],
        mems_allowed: [vec![1], vec![0; 15]].concat(),
        voluntary_switches: Some(12),
    };
    assert_eq!(status, expected);
}

#[test]
fn of_a_zombie_and_of_a_thread_of_the_kernel() {
    let zombie = parse(include_bytes!("../../../fixtures/proc/zombie/status")).unwrap();
    assert_eq!((zombie.state, zombie.memory, zombie.fd_slots, zombie.umask), (b'Z', None, 0, None));
    let kernel = parse(include_bytes!("../../../fixtures/proc/kthread/status")).unwrap();
    assert_eq!((kernel.kernel_thread, kernel.memory), (Some(true), None));
}

#[test]
fn of_a_thread_of_java_with_groups_and_a_filter() {
    let status = parse(include_bytes!("../../../fixtures/proc/java/status")).unwrap();
    assert_eq!(status.name, b"java");
    assert_eq!((status.uid, status.groups.as_slice()), ([65534; 4], [1, 20, 1000].as_slice()));
    assert_eq!((status.no_new_privs, status.seccomp, status.seccomp_filters), (true, Some(2), Some(1)));
    assert_eq!(status.thp_enabled, Some(false));
    assert_eq!(status.cpus_allowed, [2]);
}

#[test]
fn shadow_stack_features() {
    let text = String::from_utf8(include_bytes!("../../../fixtures/proc/fds/status").to_vec()).unwrap();
    let text = text + "x86_Thread_features:\tshstk wrss \nx86_Thread_features_locked:\t\n";
    let status = parse(text.as_bytes()).unwrap();
    assert_eq!(status.thread_features, ["shstk", "wrss"]);
    assert!(status.thread_features_locked.is_empty());
}

#[test]
fn errors_name_the_line_or_the_key() {
    let text = String::from_utf8(include_bytes!("../../../fixtures/proc/fds/status").to_vec()).unwrap();
    let error = parse(text.replace("PPid:\t1", "PPid:\tx").as_bytes()).unwrap_err();
    assert_eq!((error.line, error.expected, error.found.as_str()), (7, "PPid", "x"));
    let error = parse(text.replace("SigBlk", "SigBlq").as_bytes()).unwrap_err();
    assert_eq!((error.line, error.expected), (0, "SigBlk"));
    assert_eq!(parse(b"").unwrap_err().expected, "Name");
}
