//! `cargo xtask vm`: `snap` and its tests on another kernel or another CPU, in a virtual machine that has nothing but them.

mod archive;
mod arguments;
mod contents;
mod kernel;
mod machine;

use arguments::Arguments;
use std::path::PathBuf;
use std::time::Instant;

pub use arguments::USAGE;

/// Boots the kernel, runs what is asked for, tells of each test; an error if one failed or the machine did not come to its end.
pub fn run(words: &[String]) -> Result<(), String> {
    let arguments = Arguments::parse(words)?;
    let start = Instant::now();
    crate::packages::provide_for_vm()?;
    let place = place()?;
    let kernel = kernel::find(&arguments, &place)?;
    eprintln!("== kernel {} ({})", kernel.version, kernel.image.display());
    let built = contents::build()?;
    let initramfs = contents::pack(&built, &kernel, &arguments, &place)?;
    if arguments.pack_only {
        println!("{}", initramfs.display());
        return Ok(());
    }
    eprintln!("== ready to boot after {:.0} s", start.elapsed().as_secs_f64());
    machine::boot(&kernel, &initramfs, &arguments)
}

/// Where kernels are unpacked and the archive for the machine is made.
fn place() -> Result<PathBuf, String> {
    let place = crate::steps::root().join("target/vm");
    std::fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    Ok(place)
}
