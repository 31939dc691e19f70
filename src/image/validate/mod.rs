//! Structural validation: what has passed it may be indexed by the rest of the program without a second look.
//!
//! It knows the model's own rules (ids in range, lists sorted, lengths as the kernel's types have them), not what a host can do.

mod bpf;
mod event;
mod file;
mod ipc;
mod memory;
mod process;
mod socket;
#[cfg(test)]
mod tests;
mod thread;
mod unix_socket;
mod watch;

use super::error::Error;
use super::model::Snapshot;
use super::model::id::FileId;
use super::model::inventory::XsaveLayout;

/// Checks a whole snapshot.
pub fn snapshot(snapshot: &Snapshot) -> Result<(), Error> {
    let Snapshot {
        inventory,
        processes: _,
        zombies: _,
        mms,
        shared_memory,
        files,
        descriptions,
        fd_tables,
        fs_contexts,
        pipes,
        terminals,
        socket_options,
        sockets,
        ipc,
        bpf_types,
        bpf_maps,
        seccomp_filters,
        signal_handlers,
    } = snapshot;
    xsave_layout(&inventory.host.xsave)?;
    numbered("mm", mms, |mm| mm.id.0)?;
    numbered("shared memory", shared_memory, |shm| shm.id.0)?;
    numbered("file", files, |file| file.id.0)?;
    numbered("description", descriptions, |description| description.id.0)?;
    numbered("fd table", fd_tables, |table| table.id.0)?;
    numbered("fs context", fs_contexts, |fs| fs.id.0)?;
    numbered("signal handlers", signal_handlers, |handlers| handlers.id.0)?;
    numbered("pipe", pipes, |pipe| pipe.id.0)?;
    numbered("terminal", terminals, |terminal| terminal.id.0)?;
    numbered("socket", sockets, |socket| socket.id.0)?;
    numbered("BTF", bpf_types, |types| types.id.0)?;
    numbered("BPF map", bpf_maps, |map| map.id.0)?;
    numbered("seccomp filter", seccomp_filters, |filter| filter.id.0)?;
    mms.iter().try_for_each(|mm| memory::mm(mm, snapshot))?;
    shared_memory.iter().try_for_each(memory::shared_memory)?;
    files.iter().try_for_each(file::file)?;
    descriptions.iter().try_for_each(|description| file::description(description, snapshot))?;
    event::epolls(snapshot)?;
    fd_tables.iter().try_for_each(|table| file::fd_table(table, snapshot))?;
    fs_contexts.iter().try_for_each(|fs| file::fs_context(fs, snapshot))?;
    signal_handlers.iter().try_for_each(process::signal_handlers)?;
    socket_options.iter().try_for_each(|options| socket::options(options))?;
    sockets.iter().try_for_each(|socket| socket::socket(socket, snapshot))?;
    pipes.iter().try_for_each(|pipe| file::pipe(pipe, snapshot))?;
    ipc::ipc(ipc)?;
    bpf_types.iter().try_for_each(bpf::types)?;
    bpf_maps.iter().try_for_each(|map| bpf::map(map, snapshot))?;
    ipc::segments(shared_memory)?;
    seccomp_filters.iter().try_for_each(thread::seccomp_filter)?;
    process::processes(snapshot)
}

/// An error about one object unless `holds`.
fn ensure(holds: bool, object: impl FnOnce() -> String, reason: &str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Model { object: object(), reason: reason.into() }) }
}

/// Whether every object of a list has its place as its id.
fn numbered<T>(name: &str, list: &[T], id: impl Fn(&T) -> u32) -> Result<(), Error> {
    for (place, object) in list.iter().enumerate() {
        let id = id(object);
        ensure(id as usize == place, || format!("{name} {place}"), &format!("has the id {id}"))?;
    }
    Ok(())
}

/// Whether a file is in the list.
fn file_exists(snapshot: &Snapshot, file: FileId, object: impl FnOnce() -> String) -> Result<(), Error> {
    ensure((file.0 as usize) < snapshot.files.len(), object, "refers to a file that is not in the image")
}

/// Bytes of the XSAVE area before the first component that is not x87 or SSE: the legacy area and the header.
const XSAVE_MIN: u32 = 576;

/// More than any CPU has.
const XSAVE_MAX: u32 = 64 << 10;

fn xsave_layout(layout: &XsaveLayout) -> Result<(), Error> {
    let object = || "the XSAVE layout".to_owned();
    ensure((XSAVE_MIN..=XSAVE_MAX).contains(&layout.size), object, "has an impossible size")?;
    let mut seen = 0b11u64;
    for component in &layout.components {
        let end = u64::from(component.offset) + u64::from(component.size);
        let fits = component.bit < 63 && component.offset >= XSAVE_MIN && end <= u64::from(layout.size);
        ensure(fits, object, "has a component outside of the area")?;
        ensure(seen & 1 << component.bit == 0, object, "has a component twice")?;
        seen |= 1 << component.bit;
    }
    ensure(layout.features & !seen == 0, object, "lacks the place of a component")
}
