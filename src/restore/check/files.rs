//! Files, locks and terminals that are not what they were at the dump.

use super::Checker;
use crate::image::model::file::{File, OpenObject};
use crate::image::model::id::FileId;
use crate::image::model::memory::Backing;
use crate::image::model::process::Process;
use crate::resources::robust;
use crate::restore::FilesPolicy;
use crate::restore::host::{Found, Lost};
use crate::restore::locks::{self, Foreign};
use crate::restore::lookup::{has_terminal, name, path, task_file, task_path};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

impl Checker<'_> {
    pub(super) fn files(&mut self, process: &Process) {
        let mapped = self.mapped();
        let written = self.written();
        let replaced = self.replaced();
        let late = self.of_tasks();
        for (file, found) in self.snapshot.files.iter().zip(&self.facts.files) {
            if name(file).is_none() || replaced.contains(&file.id) || late.contains(&file.id) {
                continue;
            }
            let path = String::from_utf8_lossy(&file.path).into_owned();
            match found {
                Err(_) if self.facts.missing.contains(&file.id) => self.make_again(process, file),
                Err(Lost { reason, is_denied: true }) => {
                    self.block(process, path, reason.clone(), "run snap restore as a user who may open it, or as root");
                }
                Err(Lost { reason, is_denied: false }) if file.mode & libc::S_IFMT == libc::S_IFIFO => {
                    self.block(process, path.clone(), reason.clone(), format!("make it again: mkfifo {path}"));
                }
                Err(Lost { reason, is_denied: false }) if file.in_memory.is_some() => {
                    let parent = Path::new(&path).parent().unwrap_or(Path::new("/")).display();
                    let remedy =
                        format!("put it back; or its directory alone, in which it is made again: mkdir -p {parent}");
                    self.block(process, path.clone(), reason.clone(), remedy);
                }
                Err(Lost { reason, is_denied: false }) => {
                    self.block(process, path, reason.clone(), "put the file back");
                }
                Ok(found) if found.mode & libc::S_IFMT != file.mode & libc::S_IFMT => {
                    self.block(process, path, "it is of another type now", "put the file back");
                }
                Ok(found) => self.file(process, file, found, mapped.contains(&file.id), written.contains(&file.id)),
            }
        }
        for Foreign { file, lock, name } in locks::conflicts(self.snapshot, &self.facts.locks) {
            let path = String::from_utf8_lossy(&self.snapshot.files[file.0 as usize].path).into_owned();
            let owner = match lock.pid {
                pid if pid > 0 => format!("pid {pid} ({name})"),
                _ => "another process".into(),
            };
            let reason = format!("it has a lock of it that {owner} has taken meanwhile");
            self.block(process, path, reason, "let that one give it back, or end it");
        }
        self.terminals(process);
    }

    /// Shared memory whose name is gone.
    fn make_again(&mut self, process: &Process, file: &File) {
        let path = path(file).unwrap_or(Path::new("")).display().to_string();
        const CAP_CHOWN: u32 = 0;
        let own = &self.facts.credentials;
        let is_ours = file.uid == own.uid[3] && (file.gid == own.gid[3] || own.groups.contains(&file.gid));
        if !is_ours && own.cap_effective >> CAP_CHOWN & 1 == 0 {
            let reason = format!("it is gone, and belonged to uid {} and gid {}", file.uid, file.gid);
            return self.block(process, path, reason, "run snap restore as that user, or with CAP_CHOWN");
        }
        self.findings.made.push(file.id);
        let notice = format!("{path}, which is gone, is made again with what it held at the dump");
        if !self.findings.notices.contains(&notice) {
            self.findings.notices.push(notice);
        }
    }

    fn file(&mut self, process: &Process, file: &File, found: &Found, mapped: bool, written: bool) {
        if file.mode & libc::S_IFMT != libc::S_IFREG {
            return;
        }
        let path = Path::new(OsStr::from_bytes(&file.path));
        let change = change(file, found);
        let words = file.held.iter().zip(&found.held).filter(|(held, now)| held.word != **now);
        let marked = words.filter(|(held, now)| robust::is_marked(held, **now));
        self.findings.marked.extend(marked.map(|(held, _)| (path.to_path_buf(), *held)));
        let again = match file.in_memory {
            Some(_) => "remove it, and it is made again with what it held at the dump",
            None => "put it back",
        };
        if mapped && !self.choices.ignore_changed.iter().any(|ignored| ignored == path) {
            if let Some(change) = &change {
                let remedy = format!("{again}, or use --ignore-changed {}", path.display());
                self.block(process, path.display().to_string(), format!("mapped file: {change}"), remedy);
            }
        } else if written {
            let has_grown = found.size > file.size && file.in_memory == found.in_memory;
            let bad = match self.choices.files {
                FilesPolicy::Ignore => None,
                FilesPolicy::Check => change,
                FilesPolicy::Truncate if has_grown => {
                    self.findings.cut_back.push((path.to_path_buf(), file.size));
                    None
                }
                FilesPolicy::Truncate => change,
            };
            if let Some(change) = bad {
                let remedy = match file.in_memory {
                    Some(_) => format!("{again}, or use --files ignore"),
                    None => "use --files truncate to cut growth back, or --files ignore".into(),
                };
                self.block(process, path.display().to_string(), format!("open for writing: {change}"), remedy);
            }
        }
    }

    /// Files whose private or read-only mappings rely on their content.
    fn mapped(&self) -> BTreeSet<FileId> {
        let vmas = self.snapshot.mms.iter().flat_map(|mm| &mm.vmas);
        let mut files: BTreeSet<FileId> = vmas
            .filter_map(|vma| match &vma.backing {
                Backing::PrivateFile { file, offset: _ } => Some(*file),
                Backing::SharedFile { file, offset: _, may_write: false } => Some(*file),
                _ => None,
            })
            .collect();
        files.extend(self.snapshot.mms.iter().map(|mm| mm.exe));
        files
    }

    /// Files that the image's tasks can write.
    fn written(&self) -> BTreeSet<FileId> {
        let vmas = self.snapshot.mms.iter().flat_map(|mm| &mm.vmas);
        let shared = vmas.filter_map(|vma| match &vma.backing {
            Backing::SharedFile { file, offset: _, may_write: true } => Some(*file),
            _ => None,
        });
        let open = self.snapshot.descriptions.iter().filter_map(|description| match description.object {
            OpenObject::Regular(file) if description.flags & libc::O_ACCMODE as u32 != 0 => Some(file),
            _ => None,
        });
        shared.chain(open).collect()
    }

    /// Terminals in whose place another is opened: they went with whoever had made them.
    fn replaced(&self) -> BTreeSet<FileId> {
        let descriptions = &self.snapshot.descriptions;
        let outside = descriptions.iter().filter_map(|description| match description.object {
            OpenObject::OutsideTerminal(file) | OpenObject::HungUpTerminal(file) => Some(file),
            _ => None,
        });
        let by_path = |file: &FileId| {
            descriptions
                .iter()
                .any(|description| matches!(description.object, OpenObject::PathOnly(path) if path == *file))
        };
        // Slaves have a path of devpts, and come with their masters.
        let is_slave =
            |file: &&File| file.mode & libc::S_IFMT == libc::S_IFCHR && (136..=143).contains(&libc::major(file.rdev));
        let slaves = self.snapshot.files.iter().filter(is_slave).map(|file| file.id);
        outside.chain(slaves).filter(|file| !by_path(file)).collect()
    }

    /// Files of /proc that are there once the tasks of the image are.
    fn of_tasks(&self) -> BTreeSet<FileId> {
        let descriptions = self.snapshot.descriptions.iter();
        let files = descriptions.filter_map(|description| match &description.object {
            object @ (OpenObject::Pseudo(file) | OpenObject::PathOnly(file)) => {
                task_file(self.snapshot, object).map(|_| *file)
            }
            _ => None,
        });
        let directories = self.snapshot.fs_contexts.iter().map(|context| context.cwd);
        files.chain(directories.filter(|cwd| task_path(self.snapshot, *cwd).is_some())).collect()
    }

    fn terminals(&mut self, process: &Process) {
        if has_terminal(self.snapshot) && self.facts.terminal.is_none() {
            let reason = "it has a terminal open, and snap has none to give in its place";
            let remedy = "run snap restore on a terminal; or give something else in its place (dump --external PATH, restore \
                          --inherit FD:PATH)";
            self.block(process, "terminal", reason, remedy);
        }
    }
}

/// What differs between a file as it was and as it is.
fn change(file: &File, found: &Found) -> Option<String> {
    match (&file.build_id, &found.build_id) {
        (Some(was), Some(is)) if was != is => return Some("its build id has changed".into()),
        // A program of the same build, copied or installed anew.
        (Some(_), Some(_)) if file.size == found.size => return None,
        _ => {}
    }
    if file.size != found.size {
        return Some(format!("its size was {} and is {}", file.size, found.size));
    }
    match (file.in_memory, found.in_memory) {
        (None, _) => {}
        (Some(_), None) => return Some("it cannot be read, to see whether it has changed since the dump".into()),
        (before, now) if before != now => return Some("what it holds has changed since the dump".into()),
        _ => {}
    }
    let mut words = file.held.iter().zip(&found.held);
    if words.any(|(held, now)| held.word != *now && !robust::is_marked(held, *now)) {
        return Some("a lock in it, which the program holds, was taken by somebody else since the dump".into());
    }
    if file.in_memory.is_some() {
        return None;
    }
    (file.mtime != found.mtime).then(|| "it was modified since the dump".into())
}
