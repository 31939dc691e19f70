//! Every parser on the same bytes: what the fuzz target calls, and a mutation test over the captured files.

use super::sysvipc;
use super::{
    auxv, build_id, cgroup, fd_link, fdinfo, host, limits, locks, maps, marks, mountinfo, multicast, netlink_table,
    numa_maps, sched, smaps, stat, status, strings, syscall, tcp_table, time_namespace, timers, values,
};

/// Calls every parser; none may panic, whatever the bytes.
#[doc(hidden)]
pub fn fuzz_all(data: &[u8]) {
    let _ = auxv::parse(data).map(|auxv| auxv.entries().count());
    let _ = build_id::of_bytes(data);
    let _ = cgroup::parse(data);
    let _ = fd_link::parse(data);
    let _ = fdinfo::parse(data).map(|info| {
        (info.value("pos").map(<[u8]>::len), info.epoll_targets(), marks::inotify(&info), marks::fanotify(&info))
    });
    let _ = host::parse_cpu_model(data);
    let _ = host::parse_cpu_list(data);
    let _ = limits::parse(data);
    let _ = locks::parse(data);
    for mapping in maps::parse(data).unwrap_or_default() {
        let _ = (mapping.anon_name(), mapping.map_files_name(), mapping.name.stripped());
    }
    let _ = mountinfo::parse(data);
    let _ = (multicast::parse_v4(data), multicast::parse_v6(data));
    let _ = netlink_table::parse(data);
    let _ = numa_maps::parse(data);
    let _ = sched::parse(data);
    let _ = smaps::parse(data);
    let _ = stat::parse(data);
    let _ = status::parse(data);
    let _ = (strings::parse_comm(data), strings::parse_strings(data));
    let _ = syscall::parse(data);
    let _ = tcp_table::parse(data);
    let _ = (sysvipc::parse_segments(data), sysvipc::parse_semaphores(data), sysvipc::parse_queues(data));
    let _ = time_namespace::parse(data);
    let _ = timers::parse(data);
    let _ = (values::parse_autogroup(data), values::parse_children(data));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use std::path::Path;

    /// Every captured file, the longest cut to its beginning.
    fn captured(dir: &Path, into: &mut Vec<Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                captured(&path, into);
            } else {
                let mut bytes = std::fs::read(path).unwrap();
                bytes.truncate(8192);
                into.push(bytes);
            }
        }
    }

    fn seeds() -> Vec<Vec<u8>> {
        let mut seeds = Vec::new();
        captured(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/proc")), &mut seeds);
        let mut elf = std::fs::read("/bin/sh").unwrap();
        elf.truncate(8192);
        seeds.push(elf);
        seeds
    }

    #[derive(Clone, Debug)]
    enum Mutation {
        Set(Index, u8),
        Remove(Index, usize),
        Repeat(Index, usize),
        Insert(Index, Vec<u8>),
        Cut(Index),
    }

    fn mutation() -> impl Strategy<Value = Mutation> {
        let telling = b" \t\n\0:-/=|,.()[]\\0x9fFz\x7f\xff".to_vec();
        let numbers = ["18446744073709551616", "ffffffffffffffffff", "-9223372036854775808", "\\0123", "", " - ", "-1"];
        prop_oneof![
            (any::<Index>(), select(telling)).prop_map(|(at, byte)| Mutation::Set(at, byte)),
            (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
            (any::<Index>(), 1..40_usize).prop_map(|(at, len)| Mutation::Remove(at, len)),
            (any::<Index>(), 1..200_usize).prop_map(|(at, len)| Mutation::Repeat(at, len)),
            (any::<Index>(), select(numbers.to_vec())).prop_map(|(at, text)| Mutation::Insert(at, text.into())),
            any::<Index>().prop_map(Mutation::Cut),
        ]
    }

    fn apply(bytes: &mut Vec<u8>, mutation: Mutation) {
        let span = |at: Index, len: usize, bytes: &[u8]| {
            let start = at.index(bytes.len() + 1);
            start..bytes.len().min(start + len)
        };
        match mutation {
            Mutation::Set(at, byte) => {
                if let Some(place) = span(at, 1, bytes).next() {
                    bytes[place] = byte;
                }
            }
            Mutation::Remove(at, len) => drop(bytes.drain(span(at, len, bytes))),
            Mutation::Repeat(at, len) => bytes.extend_from_within(span(at, len, bytes)),
            Mutation::Insert(at, text) => drop(bytes.splice(span(at, 0, bytes), text)),
            Mutation::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
        }
    }

    #[test]
    fn captured_files_as_they_are() {
        let seeds = seeds();
        assert!(seeds.len() > 60);
        seeds.iter().for_each(|seed| fuzz_all(seed));
    }

    proptest! {
        #[test]
        fn captured_files_with_mutations(
            seed in select(seeds()),
            mutations in proptest::collection::vec(mutation(), 1..12),
        ) {
            let mut data = seed;
            for mutation in mutations {
                apply(&mut data, mutation);
            }
            fuzz_all(&data);
        }

        #[test]
        fn lines_of_telling_bytes(data in "([0-9a-f]{0,3}[-: \\t/\\\\=.,]?[a-zA-Z]{0,2}\\n?){0,60}") {
            fuzz_all(data.as_bytes());
        }

        #[test]
        fn arbitrary_bytes(data in proptest::collection::vec(any::<u8>(), 0..2048)) {
            fuzz_all(&data);
        }
    }
}
