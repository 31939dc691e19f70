//! The first section: what is dumped, where and when.

use crate::image::model::id::{Pid, Tid};
use crate::image::model::inventory::{Clocks, Host, Inventory, XsaveComponent, XsaveLayout};
use crate::image::model::process::Process;
use crate::proc::host;
use crate::resources::CollectError;
use crate::sys::cpuid;

/// Describes the host and the moment.
///
/// # Errors
/// A file of /proc that cannot be read.
pub fn collect(root: Pid, process: Option<&Process>) -> Result<Inventory, CollectError> {
    let comm = process.map(|process| String::from_utf8_lossy(&process.threads[0].comm).into_owned());
    let facts = host::read()?;
    let clocks = host::Clocks::now().map_err(CollectError::at(Tid(root.0), "clock_gettime"))?;
    Ok(Inventory {
        tool: env!("CARGO_PKG_VERSION").into(),
        root,
        comm: comm.unwrap_or_default(),
        host: Host {
            node: facts.node,
            release: facts.release,
            boot_id: facts.boot_id,
            cpu: facts.cpu,
            xsave: xsave_layout(),
            vdso_build_id: facts.vdso_build_id,
            vdso: facts.vdso,
        },
        clocks: Clocks { realtime: clocks.realtime, monotonic: clocks.monotonic, boottime: clocks.boottime },
    })
}

fn xsave_layout() -> XsaveLayout {
    let layout = cpuid::XsaveLayout::of_this_cpu().unwrap_or_default();
    let component = |c: cpuid::XsaveComponent| XsaveComponent { bit: c.bit, offset: c.offset, size: c.size };
    XsaveLayout {
        features: layout.features,
        size: layout.size,
        components: layout.components.into_iter().map(component).collect(),
    }
}
