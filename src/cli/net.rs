//! `snap net`.

use super::args::{NetAction, NetArgs};
use super::exit::Exit;
use super::exit_code::Code;
use super::failure::Failure;
use super::inspect;
use super::output::Output;
use crate::inspect::text::count;
use crate::restore::network;
use std::io;

/// Puts a lock in, or takes locks away, and says how many connections or locks that were.
pub fn run(args: &NetArgs, output: Output) -> Result<Exit, Failure> {
    let text = match &args.action {
        NetAction::Lock { image } => {
            let image = inspect::open(image)?;
            let held = network::lock(image.snapshot()).map_err(|error| refused("holding packets back", &error))?;
            format!(
                "packets of {} are held back until snap restore, or snap net unlock",
                count(held as u64, "connection")
            )
        }
        NetAction::Unlock { image: Some(image), all: _ } => {
            let image = inspect::open(image)?;
            let removed = network::unlock(image.snapshot()).map_err(|error| refused("letting packets pass", &error))?;
            format!("{} taken away", count(u64::from(removed), "lock"))
        }
        NetAction::Unlock { image: None, all: _ } => {
            let removed = network::unlock_all().map_err(|error| refused("letting packets pass", &error))?;
            format!("{} taken away", count(removed as u64, "lock"))
        }
    };
    if !output.quiet {
        output.text(&text)?;
    }
    Ok(Exit::Code(Code::Ok))
}

fn refused(what: &str, error: &io::Error) -> Failure {
    let (code, remedy) = match error.raw_os_error() {
        Some(libc::EPERM) => (Code::Permission, "run as root, or with CAP_NET_ADMIN in this network namespace"),
        Some(libc::EEXIST) => (Code::Usage, "they are held back already; snap net unlock lets them pass"),
        _ => (Code::Internal, "see whether this kernel has nf_tables: snap check"),
    };
    Failure::new(code, format!("{what} (nf_tables): {error}"), remedy)
}
