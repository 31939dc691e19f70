//! The program of the demonstration. It counts; it knows nothing of dumps.

use crate::cli::args::DemoCounterArgs;
use crate::cli::exit::Exit;
use crate::cli::exit_code::Code;
use crate::cli::failure::Failure;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// Time between two numbers.
const PERIOD: Duration = Duration::from_millis(50);

/// Memory that it fills, so that there is something to bring back.
const BALLAST: usize = 8 << 20;

/// Bytes of a page of it.
const PAGE: usize = 4096;

/// Counts until it is killed: one thread counts, another writes what it is told.
pub fn count(args: &DemoCounterArgs) -> Result<Exit, Failure> {
    run(args).map_err(|error| Failure::new(Code::Internal, format!("{}: {error}", args.file.display()), ""))?;
    Ok(Exit::Code(Code::Ok))
}

fn run(args: &DemoCounterArgs) -> io::Result<()> {
    crate::dump::inherited::close()?;
    let mut file = File::create(&args.file)?;
    let (sender, receiver) = mpsc::sync_channel::<u64>(0);
    let checked = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&checked);
    thread::Builder::new().name("counter".into()).spawn(move || {
        let ballast: Vec<[u8; PAGE]> = (0..BALLAST / PAGE).map(page).collect();
        for number in 1.. {
            // A page that came back wrong must not go unnoticed.
            if ballast.iter().enumerate().any(|(index, found)| *found != page(index)) || sender.send(number).is_err() {
                return;
            }
            seen.store(number, Ordering::Release);
            thread::sleep(PERIOD);
        }
    })?;
    while let Ok(number) = receiver.recv() {
        writeln!(file, "{number}")?;
    }
    Err(io::Error::other(format!("the counting thread ended after {}", checked.load(Ordering::Acquire))))
}

const fn page(index: usize) -> [u8; PAGE] {
    [(index % 251 + 1) as u8; PAGE]
}
