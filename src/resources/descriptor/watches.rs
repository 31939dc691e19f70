//! Watches of inotify and marks of fanotify, whose files are searched for once all others are known.

use super::{Descriptors, Findings, OpenFd};
use crate::image::model::file::OpenObject;
use crate::image::model::id::{DescriptionId, Tid};
use crate::image::model::watch::{Fanotify, Mark, MarkScope, Watch};
use crate::proc::marks::{self, FanotifyGroup, InotifyWatch, On};
use crate::resources::file::FileTable;
use crate::resources::watch::Finder;
use crate::sys::descriptor::unread;
use std::ffi::OsString;
use std::os::fd::AsFd;

/// Which may decide about accesses.
const FAN_CLASSES: u32 = libc::FAN_CLASS_CONTENT | libc::FAN_CLASS_PRE_CONTENT;

/// An instance, by a descriptor of it.
#[derive(Debug)]
pub(super) struct Instance {
    id: DescriptionId,
    tid: Tid,
    /// What it is called when it is refused.
    shown: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Inotify(Vec<InotifyWatch>),
    Fanotify(FanotifyGroup),
}

impl Descriptors {
    /// An inotify instance, whose watches are found later.
    pub(super) fn inotify(&mut self, tid: Tid, fd: &OpenFd<'_>, findings: &mut Findings) -> Result<OpenObject, String> {
        let watches = marks::inotify(&fd.info).ok_or("its watches cannot be read")?;
        if let Some(high) = watches.iter().find(|watch| watch.wd > Watch::HIGHEST) {
            return Err(format!("the number of its watch {} is too high to be had again", high.wd));
        }
        self.refuse_events(tid, fd, findings)?;
        self.watches.push(self.instance(tid, fd, What::Inotify(watches)));
        Ok(OpenObject::Inotify(Vec::new()))
    }

    /// A fanotify group, whose marks are found later.
    pub(super) fn fanotify(
        &mut self,
        tid: Tid,
        fd: &OpenFd<'_>,
        findings: &mut Findings,
    ) -> Result<OpenObject, String> {
        let group = marks::fanotify(&fd.info).ok_or("its marks cannot be read")?;
        if group.flags & FAN_CLASSES != 0 {
            return Err(
                "it decides about accesses (FAN_CLASS_CONTENT), and who waits for its answer is not told".into()
            );
        }
        self.refuse_events(tid, fd, findings)?;
        let object = Fanotify { flags: group.flags, event_flags: group.event_flags, marks: Vec::new() };
        self.watches.push(self.instance(tid, fd, What::Fanotify(group)));
        Ok(OpenObject::Fanotify(object))
    }

    fn instance(&self, tid: Tid, fd: &OpenFd<'_>, what: What) -> Instance {
        let id = DescriptionId(self.descriptions.len() as u32);
        Instance { id, tid, shown: fd.shown(), what }
    }

    /// Events that wait: nothing but reading shows them, and nothing puts them back.
    fn refuse_events(&self, tid: Tid, fd: &OpenFd<'_>, findings: &mut Findings) -> Result<(), String> {
        let count = unread(fd.file.as_fd()).map_err(|error| format!("FIONREAD: {error}"))?;
        let (task, object) = (format!("pid {tid}"), fd.shown());
        match (count, self.drop_events) {
            (0, _) => {}
            (_, true) => findings.warnings.push(format!("{task}: {object}: {count} bytes of events are given up")),
            (_, false) => findings.pass(
                task,
                object,
                format!("{count} bytes of events wait to be read, and could not be put back"),
                "try again when they have been read, or give them up: --drop-events",
            ),
        }
        Ok(())
    }

    /// Finds the file behind every watch and mark.
    pub fn find_marked(
        &mut self,
        files: &mut FileTable,
        arguments: impl Iterator<Item = OsString>,
        findings: &mut Findings,
    ) {
        let instances = std::mem::take(&mut self.watches);
        if instances.is_empty() {
            return;
        }
        let mut finder = Finder::new(arguments);
        for instance in instances {
            let task = format!("pid {}", instance.tid);
            let mut refuse = |what: String, reason: String| {
                let object = format!("{}, {what}", instance.shown);
                findings.block(task.clone(), object, reason, "take the watch away, or close it before the dump");
            };
            match (&instance.what, &mut self.descriptions[instance.id.0 as usize].object) {
                (What::Inotify(found), OpenObject::Inotify(watches)) => {
                    for InotifyWatch { wd, inode, mask } in found {
                        match finder.inode(inode, files, &task) {
                            Ok(file) => watches.push(Watch { wd: *wd, file, mask: *mask }),
                            Err(reason) => refuse(format!("watch {wd}"), reason),
                        }
                    }
                }
                (What::Fanotify(found), OpenObject::Fanotify(group)) => {
                    for mark in &found.marks {
                        let (scope, file) = match &mark.on {
                            On::Inode(inode) => (MarkScope::Inode, finder.inode(inode, files, &task)),
                            On::Mount(id) => (MarkScope::Mount, finder.mount(*id, files, &task)),
                            On::FileSystem(dev) => (MarkScope::FileSystem, finder.file_system(*dev, files, &task)),
                        };
                        match file {
                            Ok(file) => group.marks.push(Mark {
                                scope,
                                file,
                                flags: mark.flags,
                                mask: mark.mask,
                                ignored: mark.ignored,
                            }),
                            Err(reason) => refuse(format!("mark {:x}", mark.mask), reason),
                        }
                    }
                }
                (What::Inotify(_) | What::Fanotify(_), _) => {}
            }
        }
    }
}
