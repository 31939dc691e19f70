//! Watches of inotify(7) and marks of fanotify(7).

use super::{ensure, file_exists};
use crate::image::error::Error;
use crate::image::model::Snapshot;
use crate::image::model::watch::{Fanotify, Watch};
use std::collections::HashSet;

pub fn inotify(watches: &[Watch], snapshot: &Snapshot, object: impl Fn() -> String) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for watch in watches {
        file_exists(snapshot, watch.file, &object)?;
        let possible = (1..=Watch::HIGHEST).contains(&watch.wd) && seen.insert(watch.wd);
        ensure(possible, &object, "has an impossible watch, or one twice")?;
    }
    Ok(())
}

pub fn fanotify(group: &Fanotify, snapshot: &Snapshot, object: impl Fn() -> String) -> Result<(), Error> {
    group.marks.iter().try_for_each(|mark| file_exists(snapshot, mark.file, &object))
}
