//! `snap inspect FILE stats`: what the dump did and cost.

use super::table::{lines, table};
use super::text::{bytes, nanos};
use super::{Report, names, place};
use crate::image::model::memory::ContentOwner;
use crate::image::{Error, Image};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The report.
#[derive(Debug, Serialize)]
pub struct Statistics {
    schema: &'static str,
    processes: u64,
    threads: u64,
    resident_bytes: u64,
    written_bytes: u64,
    zero_bytes: u64,
    clean_file_bytes: u64,
    pause_ns: u64,
    image_bytes: Option<u64>,
    /// Written bytes per byte of the image.
    ratio: Option<f64>,
    owners: Vec<Owner>,
}

#[derive(Debug, Serialize)]
struct Owner {
    /// `address-space`, `shared-memory` or `file`.
    kind: &'static str,
    id: u32,
    name: String,
    runs: u64,
    bytes: u64,
}

/// Makes it.
///
/// # Errors
/// When a block of the image is damaged, or the image is a stream.
pub fn report(image: &Image) -> Result<Statistics, Error> {
    let stats = image.stats().copied().ok_or(Error::Stream)?;
    let ratio = image.size().filter(|&size| size > 0).map(|size| stats.written as f64 / size as f64);
    Ok(Statistics {
        schema: "snap.inspect.stats/1",
        processes: stats.processes,
        threads: stats.threads,
        resident_bytes: stats.resident,
        written_bytes: stats.written,
        zero_bytes: stats.zero,
        clean_file_bytes: stats.clean_file,
        pause_ns: stats.pause,
        image_bytes: image.size(),
        ratio,
        owners: owners(image)?,
    })
}

fn owners(image: &Image) -> Result<Vec<Owner>, Error> {
    let mut totals: BTreeMap<ContentOwner, (u64, u64)> = BTreeMap::new();
    for (owner, run) in image.page_runs()? {
        let (runs, bytes) = totals.entry(owner).or_default();
        *runs += 1;
        *bytes += run.len();
    }
    Ok(totals.into_iter().map(|(owner, (runs, bytes))| describe(image, owner, runs, bytes)).collect())
}

fn describe(image: &Image, owner: ContentOwner, runs: u64, bytes: u64) -> Owner {
    let snapshot = image.snapshot();
    let (kind, id, name) = match owner {
        ContentOwner::Mm(mm) => {
            let users = snapshot.processes.iter().filter(|process| process.mm == mm);
            let pids: Vec<String> = users.map(|process| process.pid.to_string()).collect();
            ("address-space", mm.0, format!("process {}", pids.join(", ")))
        }
        ContentOwner::SharedMemory(shm) => ("shared-memory", shm.0, place::shared(snapshot, shm)),
        ContentOwner::File(file) => ("file", file.0, place::path(snapshot, file)),
        ContentOwner::BpfMap(id) => {
            let map = snapshot.bpf_maps.get(id.0 as usize);
            ("bpf-map", id.0, map.map_or_else(String::new, names::bpf::label))
        }
    };
    Owner { kind, id, name, runs, bytes }
}

impl Report for Statistics {
    fn text(&self, width: Option<u16>) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{:<12}{value}", format!("{name}:"));
        };
        line("tasks", self.processes.to_string());
        line("threads", self.threads.to_string());
        line("resident", bytes(self.resident_bytes));
        line("written", bytes(self.written_bytes));
        line("zero", format!("{} left out", bytes(self.zero_bytes)));
        line("clean file", format!("{} left out", bytes(self.clean_file_bytes)));
        line("pause", nanos(self.pause_ns));
        if let Some(size) = self.image_bytes {
            let ratio = self.ratio.map_or_else(String::new, |ratio| format!(" ({ratio:.2} written bytes per byte)"));
            line("image", format!("{}{ratio}", bytes(size)));
        }
        let mut table = table(&["CONTENT OF", ">RUNS", ">BYTES", "WHICH"], width);
        for owner in &self.owners {
            table.add_row([owner.kind.to_owned(), owner.runs.to_string(), bytes(owner.bytes), owner.name.clone()]);
        }
        if table.row_count() > 0 {
            out.push('\n');
            out.push_str(&lines(&mut table));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample::small_image;

    #[test]
    fn pages_are_counted_by_owner() {
        let image = Image::open(small_image()).expect("an image");
        let text = report(&image).expect("a report").text(None);
        let table = text.split("\n\n").nth(1).expect("a table");
        insta::assert_snapshot!(table, @r"
        CONTENT OF     RUNS    BYTES  WHICH
        address-space     2  8.0 KiB  process 100
        shared-memory     1  4.0 KiB  shared memory 0
        file              1  4.0 KiB  /tmp/gone
        bpf-map           1  4.0 KiB  bpf-map:[76] counters
        ");
    }
}
