//! What should be known about an image that is made all the same.

use crate::image::model::file::OpenObject;
use crate::image::model::id::Pid;
use crate::image::model::process::Process;
use crate::image::model::thread::Resume;
use crate::resources::core_scheduling::Cookies;
use crate::resources::descriptor::Descriptors;

/// Says of which locks somebody outside has the description too: flock(1) keeps one for the command that it runs.
pub fn shared_locks(descriptors: &Descriptors, inside: &[Pid]) -> Vec<String> {
    let tables = || descriptors.tables.iter().flat_map(|table| &table.entries);
    let locks = descriptors.descriptions.iter().flat_map(|description| {
        description
            .locks
            .iter()
            .filter_map(|lock| Some((description.id, lock.holder.filter(|pid| !inside.contains(pid))?)))
    });
    let said = locks.filter_map(|(id, holder)| {
        let fd = tables().find(|entry| entry.description == id)?.fd;
        let name = std::fs::read_to_string(format!("/proc/{holder}/comm")).ok()?;
        Some(format!(
            "fd {fd}: its lock was taken by pid {holder} ({}), which is outside; a restore takes it again, and is refused while that one has it",
            name.trim_end(),
        ))
    });
    said.collect()
}

/// Says who outside may share a core with threads of the tree, and will not after a restore.
pub fn shared_cookie(cookies: &Cookies, inside: &[Pid]) -> Option<String> {
    let outsider = cookies.outsider(inside)?;
    Some(format!(
        "core scheduling: {outsider} has the cookie of a thread too, and is outside; a restored tree has cookies of its own"
    ))
}

/// Says which names of `--external` nothing has.
pub fn unknown_externals(descriptors: &Descriptors) -> Vec<String> {
    let has = |link: &str| {
        let mut objects = descriptors.descriptions.iter().map(|description| &description.object);
        objects.any(|object| matches!(object, OpenObject::External(external) if external == link))
    };
    let mut unknown: Vec<&String> = descriptors.externals.iter().filter(|link| !has(link)).collect();
    unknown.sort();
    unknown.into_iter().map(|link| format!("--external {link}: no descriptor of the tree is open on it")).collect()
}

/// Says which threads wait for longer than they would have.
pub fn unknown_timeouts(processes: &[Process]) -> Vec<String> {
    let those = |is_meant: fn(&Resume) -> bool| {
        let threads = processes.iter().flat_map(|process| &process.threads);
        let meant = threads.filter(move |thread| thread.blocked.as_ref().is_some_and(|call| is_meant(&call.resume)));
        named(meant.map(|thread| thread.tid.to_string()).collect())
    };
    let unknown = those(|resume| matches!(resume, Resume::Remaining { nanos: _, exact: false })).map(|tids| {
        format!(
            "{tids}: how much is left of the timeout of its call is not known; after a restore it waits for all of it"
        )
    });
    let anew = those(|resume| matches!(resume, Resume::Anew)).map(|tids| {
        format!("{tids}: the timeout of its call begins anew, here and after a restore: the kernel does not let a call go on that was stopped")
    });
    unknown.into_iter().chain(anew).collect()
}

/// The first of some threads, and how many more there are; `None` without any.
fn named(tids: Vec<String>) -> Option<String> {
    const NAMED: usize = 5;
    let (first, others) = tids.split_at(tids.len().min(NAMED));
    let others = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    (!first.is_empty()).then(|| format!("tid {}{others}", first.join(", ")))
}
