//! Version 1 of every kind: postcard of the lists of a [`Snapshot`], one section for each.

use crate::image::error::{Error, WriteError};
use crate::image::model::{
    Snapshot, bpf, file, inventory, ipc, memory, pipe, process, signal, socket, terminal, thread,
};
use crate::image::section::Kind;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The kinds that make up a snapshot, in the order in which they stand.
pub const METADATA: [Kind; 16] = [
    Kind::Inventory,
    Kind::Processes,
    Kind::Mms,
    Kind::SharedMemory,
    Kind::Files,
    Kind::Descriptions,
    Kind::FdTables,
    Kind::FsContexts,
    Kind::Pipes,
    Kind::SeccompFilters,
    Kind::Zombies,
    Kind::Terminals,
    Kind::Sockets,
    Kind::SignalHandlers,
    Kind::Ipc,
    Kind::BpfMaps,
];

/// The payloads of all sections of metadata, in order.
pub fn encode_snapshot(snapshot: &Snapshot) -> Result<[(Kind, Vec<u8>); METADATA.len()], WriteError> {
    let Snapshot {
        inventory,
        processes,
        zombies,
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
    Ok([
        section(Kind::Inventory, inventory)?,
        section(Kind::Processes, processes)?,
        section(Kind::Mms, mms)?,
        section(Kind::SharedMemory, shared_memory)?,
        section(Kind::Files, files)?,
        section(Kind::Descriptions, descriptions)?,
        section(Kind::FdTables, fd_tables)?,
        section(Kind::FsContexts, fs_contexts)?,
        section(Kind::Pipes, pipes)?,
        section(Kind::SeccompFilters, seccomp_filters)?,
        section(Kind::Zombies, zombies)?,
        section(Kind::Terminals, terminals)?,
        section(Kind::Sockets, &(socket_options, sockets))?,
        section(Kind::SignalHandlers, signal_handlers)?,
        section(Kind::Ipc, ipc)?,
        section(Kind::BpfMaps, &(bpf_types, bpf_maps))?,
    ])
}

fn section<T: Serialize>(kind: Kind, value: &T) -> Result<(Kind, Vec<u8>), WriteError> {
    Ok((kind, encode(kind, value)?))
}

/// The payload of one section.
pub fn encode<T: Serialize>(kind: Kind, value: &T) -> Result<Vec<u8>, WriteError> {
    postcard::to_stdvec(value).map_err(|e| WriteError::Encode { kind, reason: e.to_string() })
}

/// The value of one section, which has to use up the payload.
///
/// postcard hands serde no length greater than the bytes that are left, and serde reserves at most 1 MiB ahead of what
/// it has read, so a hostile count costs nothing.
pub fn decode<T: DeserializeOwned>(kind: Kind, payload: &[u8]) -> Result<T, Error> {
    let failed = |reason: String| Error::Decode { kind, reason };
    let (value, rest) = postcard::take_from_bytes(payload).map_err(|e| failed(e.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(failed(format!("{} bytes are left over", rest.len()))) }
}

/// A snapshot of which not all sections have been read yet.
#[derive(Debug, Default)]
pub struct Parts {
    inventory: Option<inventory::Inventory>,
    processes: Vec<process::Process>,
    zombies: Vec<process::Zombie>,
    mms: Vec<memory::Mm>,
    shared_memory: Vec<memory::SharedMemory>,
    files: Vec<file::File>,
    descriptions: Vec<file::Description>,
    fd_tables: Vec<file::FdTable>,
    fs_contexts: Vec<process::FsContext>,
    pipes: Vec<pipe::Pipe>,
    terminals: Vec<terminal::Terminal>,
    socket_options: Vec<Vec<socket::SocketOption>>,
    sockets: Vec<socket::Socket>,
    signal_handlers: Vec<signal::SignalHandlers>,
    ipc: ipc::Ipc,
    bpf_types: Vec<bpf::BpfTypes>,
    bpf_maps: Vec<bpf::BpfMap>,
    seccomp_filters: Vec<thread::SeccompFilter>,
}

impl Parts {
    /// Decodes the section of a kind. The caller has checked that its version is 1.
    pub fn take(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        match kind {
            Kind::Inventory => self.inventory = Some(decode(kind, payload)?),
            Kind::Processes => self.processes = decode(kind, payload)?,
            Kind::Mms => self.mms = decode(kind, payload)?,
            Kind::SharedMemory => self.shared_memory = decode(kind, payload)?,
            Kind::Files => self.files = decode(kind, payload)?,
            Kind::Descriptions => self.descriptions = decode(kind, payload)?,
            Kind::FdTables => self.fd_tables = decode(kind, payload)?,
            Kind::FsContexts => self.fs_contexts = decode(kind, payload)?,
            Kind::Pipes => self.pipes = decode(kind, payload)?,
            Kind::SeccompFilters => self.seccomp_filters = decode(kind, payload)?,
            Kind::Zombies => self.zombies = decode(kind, payload)?,
            Kind::Terminals => self.terminals = decode(kind, payload)?,
            Kind::Sockets => (self.socket_options, self.sockets) = decode(kind, payload)?,
            Kind::SignalHandlers => self.signal_handlers = decode(kind, payload)?,
            Kind::Ipc => self.ipc = decode(kind, payload)?,
            Kind::BpfMaps => (self.bpf_types, self.bpf_maps) = decode(kind, payload)?,
            Kind::PageBlock | Kind::Stats | Kind::Index | Kind::Trailer => {}
        }
        Ok(())
    }

    /// The whole; `offset` is where the metadata ended.
    pub fn snapshot(self, offset: u64) -> Result<Snapshot, Error> {
        let inventory = self.inventory.ok_or(Error::Missing { kind: Kind::Inventory, offset })?;
        Ok(Snapshot {
            inventory,
            processes: self.processes,
            zombies: self.zombies,
            mms: self.mms,
            shared_memory: self.shared_memory,
            files: self.files,
            descriptions: self.descriptions,
            fd_tables: self.fd_tables,
            fs_contexts: self.fs_contexts,
            pipes: self.pipes,
            terminals: self.terminals,
            socket_options: self.socket_options,
            sockets: self.sockets,
            signal_handlers: self.signal_handlers,
            ipc: self.ipc,
            bpf_types: self.bpf_types,
            bpf_maps: self.bpf_maps,
            seccomp_filters: self.seccomp_filters,
        })
    }
}
