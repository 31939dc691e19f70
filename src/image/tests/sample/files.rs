//! What the sample has open: a description of each kind, and the files and the terminal behind them.

use crate::image::model::address::PAGE_SIZE;
use crate::image::model::event::{BusyPoll, Epoll, Pidfd, Timerfd};
use crate::image::model::file::{Description, File, Link, OpenObject};
use crate::image::model::id::*;
use crate::image::model::terminal::{Terminal, TerminalModes};
use crate::image::model::tun::{Tun, TunInterface};
use crate::image::model::watch::{Fanotify, Mark, MarkScope, Watch};

pub fn file(id: u32, path: &[u8], link: Link) -> File {
    File {
        in_memory: None,
        held: Vec::new(),
        id: FileId(id),
        path: path.to_vec(),
        link,
        dev: 1,
        ino: 2 + u64::from(id),
        mode: 0o100_755,
        uid: 0,
        gid: 0,
        size: 64 * PAGE_SIZE - 100,
        mtime: 3,
        rdev: 0,
        build_id: Some(vec![7; 20]),
    }
}

pub(super) fn descriptions() -> Vec<Description> {
    let objects = [
        OpenObject::Regular(FileId(1)),
        OpenObject::Pipe { pipe: PipeId(0), write: false, quiet: false },
        OpenObject::Pipe { pipe: PipeId(0), write: true, quiet: false },
        OpenObject::Epoll(Epoll {
            items: Vec::new(),
            busy_poll: Some(BusyPoll { usecs: 50, budget: 8, prefer: true }),
        }),
        OpenObject::Timerfd(Timerfd { clock: 1, settime: 1, value: 7, interval: 8, ticks: 9 }),
        OpenObject::Pidfd(Pidfd::Gone(Some(256))),
        OpenObject::Inotify(vec![Watch { wd: 3, file: FileId(1), mask: 2 }]),
        OpenObject::Fanotify(Fanotify {
            flags: 0,
            event_flags: 0x8000,
            marks: vec![Mark { scope: MarkScope::Mount, file: FileId(0), flags: 0, mask: 2, ignored: 0 }],
        }),
        OpenObject::Tun(Tun {
            file: FileId(1),
            interface: Some(TunInterface { name: "tap0".into(), flags: 2, header: 12, send_buffer: 1 << 20 }),
        }),
        OpenObject::BpfMap(BpfMapId(1)),
    ];
    let describe = |(i, object)| Description {
        id: DescriptionId(i),
        object,
        flags: 0,
        position: 0,
        owner: None,
        locks: Vec::new(),
    };
    (0..).zip(objects).map(describe).collect()
}

pub fn terminal(id: u32) -> Terminal {
    Terminal {
        id: TerminalId(id),
        index: 3,
        inside: true,
        modes: TerminalModes { flags: [1, 2, 3, 4], line: 0, characters: [5; 19], speeds: [38400; 2] },
        window: [24, 80, 0, 0],
        widowed: false,
        packet: false,
        locked: false,
        exclusive: false,
        mode: 0o620,
        uid: 0,
        gid: 5,
    }
}
