//! `snap inspect FILE files`: every file that is mapped, open or run.

use super::json::Raw;
use super::names::files;
use super::table::{lines, table};
use super::text::{bytes, digits, instant};
use super::{Report, text};
use crate::image::model::Snapshot;
use crate::image::model::file::{File, Link, OpenObject};
use crate::image::model::id::FileId;
use crate::image::model::memory::Backing;
use crate::image::model::tun::Tun;
use serde::Serialize;

/// The report.
#[derive(Debug, Serialize)]
pub struct Files {
    schema: &'static str,
    files: Vec<One>,
}

#[derive(Debug, Serialize)]
struct One {
    id: u32,
    path: Raw,
    /// `named`, `other-name` or `unlinked`.
    link: &'static str,
    other_name: Option<Raw>,
    /// Whether it has a name and its content is in the image all the same.
    shared_memory: bool,
    held_locks: usize,
    mode: String,
    uid: u32,
    gid: u32,
    bytes: u64,
    modified: String,
    mtime_ns: i64,
    device: String,
    inode: u64,
    rdev: Option<String>,
    build_id: Option<String>,
    mappings: u64,
    descriptions: u64,
    uses: Vec<&'static str>,
}

/// Makes it.
#[must_use]
pub fn report(snapshot: &Snapshot) -> Files {
    let uses = Uses::count(snapshot);
    let files = snapshot.files.iter().enumerate().map(|(index, file)| one(file, &uses, index)).collect();
    Files { schema: "snap.inspect.files/1", files }
}

/// How often each file is used, by index.
struct Uses {
    mappings: Vec<u64>,
    descriptions: Vec<u64>,
    roles: Vec<Vec<&'static str>>,
}

impl Uses {
    fn count(snapshot: &Snapshot) -> Self {
        let len = snapshot.files.len();
        let mut uses = Self { mappings: vec![0; len], descriptions: vec![0; len], roles: vec![Vec::new(); len] };
        for mm in &snapshot.mms {
            uses.role(mm.exe, "program");
            for vma in &mm.vmas {
                if let Backing::PrivateFile { file, offset: _ } | Backing::SharedFile { file, offset: _, may_write: _ } =
                    vma.backing
                    && let Some(count) = uses.mappings.get_mut(file.0 as usize)
                {
                    *count += 1;
                }
            }
        }
        for fs in &snapshot.fs_contexts {
            uses.role(fs.cwd, "working directory");
            uses.role(fs.root, "root");
        }
        for description in &snapshot.descriptions {
            if let Some(count) =
                file_of(snapshot, &description.object).and_then(|file| uses.descriptions.get_mut(file.0 as usize))
            {
                *count += 1;
            }
        }
        uses
    }

    fn role(&mut self, file: FileId, role: &'static str) {
        if let Some(roles) = self.roles.get_mut(file.0 as usize)
            && !roles.contains(&role)
        {
            roles.push(role);
        }
    }
}

/// The file behind an open description, if it is one.
#[must_use]
pub fn file_of(snapshot: &Snapshot, object: &OpenObject) -> Option<FileId> {
    match *object {
        OpenObject::Regular(file)
        | OpenObject::Directory(file)
        | OpenObject::PathOnly(file)
        | OpenObject::MemoryDevice(file)
        | OpenObject::Pseudo(file)
        | OpenObject::OutsideTerminal(file)
        | OpenObject::HungUpTerminal(file)
        | OpenObject::ControllingTerminal(file)
        | OpenObject::Tun(Tun { file, interface: _ }) => Some(file),
        OpenObject::Pipe { pipe, write: _, quiet: _ } => snapshot.pipes.get(pipe.0 as usize)?.fifo,
        OpenObject::Memfd(_)
        | OpenObject::Eventfd { counter: _, semaphore: _ }
        | OpenObject::Epoll(_)
        | OpenObject::Timerfd(_)
        | OpenObject::Pidfd(_)
        | OpenObject::Inotify(_)
        | OpenObject::Fanotify(_)
        | OpenObject::Namespace(_)
        | OpenObject::External(_)
        | OpenObject::Signalfd(_)
        | OpenObject::TerminalMaster(_)
        | OpenObject::TerminalSlave(_)
        | OpenObject::OwnTerminal(_)
        | OpenObject::Queue(_)
        | OpenObject::BpfMap(_)
        | OpenObject::BpfTypes(_)
        | OpenObject::Socket(_) => None,
    }
}

fn one(file: &File, uses: &Uses, index: usize) -> One {
    let (link, other_name) = match &file.link {
        Link::Named => ("named", None),
        Link::OtherName(name) => ("other-name", Some(Raw(name.clone()))),
        Link::Unlinked => ("unlinked", None),
    };
    One {
        id: file.id.0,
        path: Raw(file.path.clone()),
        link,
        other_name,
        shared_memory: file.in_memory.is_some(),
        held_locks: file.held.len(),
        mode: files::mode(file.mode),
        uid: file.uid,
        gid: file.gid,
        bytes: file.size,
        modified: format!("{} UTC", instant(file.mtime)),
        mtime_ns: file.mtime,
        device: files::device(file.dev),
        inode: file.ino,
        rdev: (file.rdev != 0).then(|| files::device(file.rdev)),
        build_id: file.build_id.as_deref().map(digits),
        mappings: uses.mappings[index],
        descriptions: uses.descriptions[index],
        uses: uses.roles[index].clone(),
    }
}

impl Report for Files {
    fn text(&self, width: Option<u16>) -> String {
        let mut table = table(&[">ID", "MODE", ">SIZE", "MODIFIED (UTC)", "BUILD ID", "USED AS", "PATH"], width);
        for file in &self.files {
            let size = file.rdev.as_ref().map_or_else(|| bytes(file.bytes), |rdev| format!("dev {rdev}"));
            table.add_row([
                file.id.to_string(),
                file.mode.clone(),
                size,
                file.modified.chars().take(19).collect(),
                file.build_id.as_deref().map_or_else(|| "-".to_owned(), |id| id.chars().take(12).collect()),
                file.used_as(),
                file.shown_path(),
            ]);
        }
        lines(&mut table)
    }
}

impl One {
    fn used_as(&self) -> String {
        let mut words: Vec<String> = self.uses.iter().map(|&role| role.to_owned()).collect();
        if self.mappings > 0 {
            words.push(text::count(self.mappings, "mapping"));
        }
        if self.descriptions > 0 {
            words.push(format!("{} open", self.descriptions));
        }
        words.join(", ")
    }

    fn shown_path(&self) -> String {
        let path = self.path.printable();
        match (self.link, &self.other_name) {
            (_, Some(other)) => format!("{path} (unlinked; also named {})", other.printable()),
            ("unlinked", None) => format!("{path} (unlinked; its content is in the image)"),
            (_, None) if self.shared_memory => format!("{path} (shared memory; its content is in the image)"),
            (_, None) => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample::snapshot;

    #[test]
    fn each_file_says_what_uses_it() {
        let report = report(&snapshot());
        let text = report.text(None);
        assert!(text.contains("program, working directory, root, 1 mapping  /usr/bin/sample\n"), "{text}");
        assert!(text.contains("2 open"), "{text}");
        assert!(text.contains("/tmp/gone (unlinked; its content is in the image)"), "{text}");
        assert!(text.contains("/dev/shm/named (shared memory; its content is in the image)"), "{text}");
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["files"][0]["build_id"], "07".repeat(20));
        assert_eq!((&json["files"][2]["shared_memory"], &json["files"][2]["held_locks"]), (&true.into(), &1.into()));
        assert_eq!(json["files"][0]["mode"], "-rwxr-xr-x");
    }
}
