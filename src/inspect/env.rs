//! `snap inspect FILE env`: arguments, environment and auxiliary vector, read from the pages of the image.

use super::json::{Hex, Raw};
use super::names::memory;
use super::table::{lines, table};
use super::{MEMORY_LIMIT, Report};
use crate::image::model::address::{Addr, PAGE_SIZE};
use crate::image::model::memory::{ContentOwner, Mm};
use crate::image::{Error, Image};
use serde::Serialize;
use std::fmt::Write;

/// The report.
#[derive(Debug, Serialize)]
pub struct Env {
    schema: &'static str,
    processes: Vec<One>,
}

#[derive(Debug, Serialize)]
struct One {
    pid: i32,
    /// As the memory of the process has it; programs may have written over it (setproctitle).
    argv: Vec<Raw>,
    environment: Vec<Raw>,
    auxv: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    value: Hex,
}

/// Makes it.
///
/// # Errors
/// When a block that holds the strings is damaged, or the image is a stream.
pub fn report(image: &Image) -> Result<Env, Error> {
    let snapshot = image.snapshot();
    let mut processes = Vec::with_capacity(snapshot.processes.len());
    for process in &snapshot.processes {
        let Some(mm) = snapshot.mms.get(process.mm.0 as usize) else { continue };
        processes.push(One {
            pid: process.pid.0,
            argv: strings(image, mm, mm.layout.arg_start, mm.layout.arg_end)?,
            environment: strings(image, mm, mm.layout.env_start, mm.layout.env_end)?,
            auxv: auxv(mm),
        });
    }
    Ok(Env { schema: "snap.inspect.env/1", processes })
}

/// The strings between two addresses.
fn strings(image: &Image, mm: &Mm, start: Addr, end: Addr) -> Result<Vec<Raw>, Error> {
    let bytes = memory_at(image, mm, start, end.0.saturating_sub(start.0).min(MEMORY_LIMIT))?;
    let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    Ok(text.split(|&byte| byte == 0).map(Raw::from).collect())
}

/// Private memory: pages that the image does not hold are zero.
fn memory_at(image: &Image, mm: &Mm, start: Addr, len: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    let mut done = 0;
    while done < bytes.len() {
        let addr = start.add(done as u64);
        let read = image.read_at(ContentOwner::Mm(mm.id), addr, &mut bytes[done..])?;
        // To the next page: this one is absent, or read up to its end.
        done += read.max((PAGE_SIZE - addr.0 % PAGE_SIZE) as usize);
    }
    Ok(bytes)
}

fn auxv(mm: &Mm) -> Vec<Entry> {
    mm.auxv
        .chunks_exact(2)
        .take_while(|pair| pair[0] != 0)
        .map(|pair| Entry { name: memory::auxv(pair[0]), value: Hex(pair[1]) })
        .collect()
}

impl Report for Env {
    fn text(&self, width: Option<u16>) -> String {
        let mut out = String::new();
        for process in &self.processes {
            let _ = writeln!(out, "process {}\narguments", process.pid);
            for (index, argument) in process.argv.iter().enumerate() {
                let shown = if argument.0.is_empty() { "\"\"".to_owned() } else { argument.printable() };
                let _ = writeln!(out, "  {index}  {shown}");
            }
            out.push_str("environment\n");
            for variable in &process.environment {
                let _ = writeln!(out, "  {}", variable.printable());
            }
            out.push_str("auxiliary vector\n");
            let mut table = table(&["NAME", "VALUE"], width);
            for entry in &process.auxv {
                table.add_row([entry.name.clone(), entry.value.to_string()]);
            }
            out.push_str(&lines(&mut table));
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample::{ANON, MM, Memory, image, snapshot};
    use crate::image::{WriteOptions, ZeroPolicy};

    /// An image whose arguments begin in one page and whose environment ends in the next.
    fn with_strings(strings: &[u8], argv_len: u64) -> Image {
        let start = ANON + PAGE_SIZE - 8;
        let mut snapshot = snapshot();
        let layout = &mut snapshot.mms[0].layout;
        (layout.arg_start, layout.arg_end) = (Addr(start), Addr(start + argv_len));
        (layout.env_start, layout.env_end) = (Addr(start + argv_len), Addr(start + strings.len() as u64));
        let mut bytes = vec![0; 2 * PAGE_SIZE as usize];
        bytes[PAGE_SIZE as usize - 8..][..strings.len()].copy_from_slice(strings);
        let mut memory = Memory::default();
        for (page, addr) in bytes.chunks_exact(PAGE_SIZE as usize).zip([ANON, ANON + PAGE_SIZE]) {
            memory.0.insert((MM, Addr(addr)), page.to_vec());
        }
        let bytes = image(&snapshot, &memory, ZeroPolicy::Keep, WriteOptions { workers: 1, ..WriteOptions::default() });
        Image::open(bytes).expect("an image")
    }

    #[test]
    fn strings_are_read_across_pages() {
        let report = report(&with_strings(b"prog\0-v\0\0A=1\0B=\xff\x1b\0", 9)).expect("a report");
        insta::assert_snapshot!(report.text(None), @r#"
        process 100
        arguments
          0  prog
          1  -v
          2  ""
        environment
          A=1
          B=\xff\u{1b}
        auxiliary vector
        NAME       VALUE
        AT_PAGESZ  0x1000
        "#);
    }

    #[test]
    fn bounds_that_make_no_sense_give_nothing_or_little() {
        let image = with_strings(b"x\0", 2);
        let mm = &image.snapshot().mms[0];
        assert!(strings(&image, mm, Addr(u64::MAX), Addr(0)).expect("nothing").is_empty());
        let far = strings(&image, mm, Addr(u64::MAX - 3), Addr(u64::MAX)).expect("zeros");
        assert!(far.len() <= 3);
        assert!(strings(&image, mm, Addr(0), Addr(u64::MAX)).is_ok());
    }
}
