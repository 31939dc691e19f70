//! `snap inspect`: what the image is, from where and when.

use super::json::{Hex, Raw};
use super::names::tasks;
use super::text::{self, bytes, count, digits, nanos};
use super::{Report, place};
use crate::image::Image;
use crate::image::model::process::ProcessState;
use serde::Serialize;
use std::fmt::Write;

/// The report.
#[derive(Debug, Serialize)]
pub struct Summary {
    schema: &'static str,
    format: u16,
    tool: String,
    read_by: String,
    image_bytes: Option<u64>,
    dumped_at: String,
    realtime_ns: i64,
    monotonic_ns: i64,
    boottime_ns: i64,
    root: i32,
    comm: String,
    argv: Vec<Raw>,
    exe: Option<Raw>,
    cwd: Option<Raw>,
    stopped_by: Option<i32>,
    host: Host,
    processes: u64,
    threads: u64,
    mappings: u64,
    descriptors: u64,
    memory: Option<Memory>,
}

#[derive(Debug, Serialize)]
struct Host {
    node: String,
    release: String,
    boot_id: String,
    cpu: String,
    xsave_features: Hex,
    xsave_components: Vec<String>,
    xsave_bytes: u32,
    vdso_build_id: String,
}

#[derive(Debug, Serialize)]
struct Memory {
    resident_bytes: u64,
    written_bytes: u64,
    zero_bytes: u64,
    clean_file_bytes: u64,
    pause_ns: u64,
}

/// Makes it.
#[must_use]
pub fn report(image: &Image) -> Summary {
    let snapshot = image.snapshot();
    let inventory = &snapshot.inventory;
    let root = snapshot.processes.first();
    let exe = root.and_then(|root| snapshot.mms.get(root.mm.0 as usize)).map(|mm| mm.exe);
    let fs = root.and_then(|root| root.threads.first()).and_then(|main| snapshot.fs_contexts.get(main.fs.0 as usize));
    let file = |id| place::file(snapshot, id).map(|file| Raw(file.path.clone()));
    Summary {
        schema: "snap.inspect.summary/1",
        format: image.header().format,
        tool: inventory.tool.clone(),
        read_by: image.header().read_by.to_string(),
        image_bytes: image.size(),
        dumped_at: format!("{} UTC", text::instant(inventory.clocks.realtime)),
        realtime_ns: inventory.clocks.realtime,
        monotonic_ns: inventory.clocks.monotonic,
        boottime_ns: inventory.clocks.boottime,
        root: inventory.root.0,
        comm: inventory.comm.clone(),
        argv: root.map_or_else(Vec::new, |root| root.argv.iter().cloned().map(Raw).collect()),
        exe: exe.and_then(file),
        cwd: fs.and_then(|fs| file(fs.cwd)),
        stopped_by: root.and_then(|root| match root.state {
            ProcessState::Running | ProcessState::Continued => None,
            ProcessState::Stopped { signal, waited: _ } => Some(signal),
        }),
        host: host(image),
        processes: snapshot.processes.len() as u64,
        threads: snapshot.processes.iter().map(|process| process.threads.len() as u64).sum(),
        mappings: snapshot.mms.iter().map(|mm| mm.vmas.len() as u64).sum(),
        descriptors: snapshot.fd_tables.iter().map(|table| table.entries.len() as u64).sum(),
        memory: image.stats().map(|stats| Memory {
            resident_bytes: stats.resident,
            written_bytes: stats.written,
            zero_bytes: stats.zero,
            clean_file_bytes: stats.clean_file,
            pause_ns: stats.pause,
        }),
    }
}

fn host(image: &Image) -> Host {
    let host = &image.snapshot().inventory.host;
    Host {
        node: host.node.clone(),
        release: host.release.clone(),
        boot_id: host.boot_id.clone(),
        cpu: host.cpu.clone(),
        xsave_features: Hex(host.xsave.features),
        xsave_components: tasks::xsave(host.xsave.features),
        xsave_bytes: host.xsave.size,
        vdso_build_id: digits(&host.vdso_build_id),
    }
}

impl Report for Summary {
    fn text(&self, _: Option<u16>) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{:<12}{value}", format!("{name}:"));
        };
        line("process", format!("{} ({})", self.root, text::escape_controls(&self.comm)));
        line("command", self.argv.iter().map(Raw::printable).collect::<Vec<_>>().join(" "));
        line("program", self.exe.as_ref().map_or_else(|| "unknown".into(), Raw::printable));
        line("directory", self.cwd.as_ref().map_or_else(|| "unknown".into(), Raw::printable));
        if let Some(signal) = self.stopped_by {
            line("state", format!("stopped by {}", super::names::signals::name(signal)));
        }
        line("dumped", format!("{} on {}", self.dumped_at, text::escape_controls(&self.host.node)));
        line("kernel", text::escape_controls(&self.host.release));
        line("cpu", format!("{} ({})", text::escape_controls(&self.host.cpu), self.host.xsave_components.join(" ")));
        line(
            "contents",
            format!(
                "{}, {}, {}, {}",
                count(self.processes, "task"),
                count(self.threads, "thread"),
                count(self.mappings, "mapping"),
                count(self.descriptors, "descriptor")
            ),
        );
        if let Some(memory) = &self.memory {
            line(
                "memory",
                format!(
                    "{} resident, {} written, skipped {} zero and {} clean file",
                    bytes(memory.resident_bytes),
                    bytes(memory.written_bytes),
                    bytes(memory.zero_bytes),
                    bytes(memory.clean_file_bytes)
                ),
            );
            line("pause", nanos(memory.pause_ns));
        }
        let size = self.image_bytes.map_or_else(String::new, |size| format!("{}, ", bytes(size)));
        line("image", format!("{size}format {}, written by snap {}", self.format, text::escape_controls(&self.tool)));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample::small_image;

    #[test]
    fn it_says_what_from_where_and_when() {
        let image = Image::open(small_image()).expect("an image");
        let report = report(&image);
        let text = report.text(None);
        for part in [
            "100 (sample)",
            "/usr/bin/sample",
            "1970-01-01",
            "node",
            "1 task, 2 threads, 9 mappings, 3 descriptors",
            "7 ns",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["host"]["xsave_features"], "0x3");
        assert_eq!(json["memory"]["pause_ns"], 7);
    }
}
