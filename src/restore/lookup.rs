//! What an image says of its own objects: which name a file is opened by, what is on its way, what a task has in its place.

use super::Choices;
use crate::image::model::Snapshot;
use crate::image::model::file::{Link, OpenObject};
use crate::image::model::id::{DescriptionId, FileId, TerminalId};
use crate::image::model::process::Process;
use crate::image::model::socket::State;
use crate::image::model::socket::unix::Message;
pub use crate::resources::file::{name, path};

/// The path below `/proc` of a file there that belongs to a task of the image.
#[must_use]
pub fn task_file<'a>(snapshot: &'a Snapshot, object: &OpenObject) -> Option<&'a [u8]> {
    let (OpenObject::Pseudo(file) | OpenObject::PathOnly(file)) = object else { return None };
    task_path(snapshot, *file)
}

/// The same of a file or directory, whatever it is to whom.
#[must_use]
pub fn task_path(snapshot: &Snapshot, file: FileId) -> Option<&[u8]> {
    let file = &snapshot.files[file.0 as usize];
    let path = file.path.strip_prefix(b"/proc/").filter(|_| file.link == Link::Named)?;
    let id: i32 = std::str::from_utf8(path.split(|byte| *byte == b'/').next()?).ok()?.parse().ok()?;
    let threads = snapshot.processes.iter().flat_map(|process| &process.threads).map(|thread| thread.tid.0);
    let mut ids = threads.chain(snapshot.processes.iter().map(|process| process.pid.0));
    ids.any(|known| known == id).then_some(path)
}

/// The descriptor of `snap` that stands in for something outside.
#[must_use]
pub fn inherited(choices: &Choices<'_>, id: &str) -> Option<i32> {
    choices.inherit.iter().find(|(_, name)| name == id).map(|(fd, _)| *fd)
}

/// The terminal that a session leader of the image has for its session, if that is in the image too.
#[must_use]
pub fn own_terminal(snapshot: &Snapshot, process: &Process) -> Option<TerminalId> {
    let id = process.controlling.filter(|_| process.sid == process.pid)?.terminal?;
    snapshot.terminals[id.0 as usize].inside.then_some(id)
}

/// What waits in each UNIX socket.
pub fn queues(snapshot: &Snapshot) -> impl Iterator<Item = &[Message]> {
    snapshot.sockets.iter().filter_map(|socket| match &socket.state {
        State::Unix(state) => Some(&state.queue[..]),
        State::Tcp(_) | State::Datagram(_) | State::Netlink(_) | State::Packet(_) => None,
    })
}

/// Descriptions that are on their way through sockets (SCM_RIGHTS).
pub fn on_their_way(snapshot: &Snapshot) -> impl Iterator<Item = DescriptionId> {
    queues(snapshot).flatten().flat_map(|message| message.files.iter().copied())
}

/// Whether a session leader joins the session of `snap` instead of having one of its own: without that it would have no
/// controlling terminal, and `snap` stays to give it one.
#[must_use]
pub fn stays_in_session(snapshot: &Snapshot, choices: &Choices<'_>) -> bool {
    !choices.orphan && has_terminal(snapshot)
}

/// Whether it has a terminal outside, in whose place the restore gives its own.
#[must_use]
pub fn has_terminal(snapshot: &Snapshot) -> bool {
    snapshot.descriptions.iter().any(|description| {
        matches!(description.object, OpenObject::OutsideTerminal(_) | OpenObject::ControllingTerminal(_))
    })
}

/// Whether a signal waits for a whole process.
pub fn is_pending(process: &Process, signal: i32) -> bool {
    process.pending.iter().any(|queued| queued.info.first_chunk() == Some(&signal.to_le_bytes()))
}
