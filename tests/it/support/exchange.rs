//! Connections to victim `echo` that never rest: every byte that comes back is looked at.

use super::wait;
use fixtures::inet::stream;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Bytes go there and come back.
    Echo,
    /// Bytes come without an end, and are read slower than they come.
    Stream,
}

/// A connection with a thread that uses it.
pub struct Exchange {
    wanted: Use,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Exchange {
    /// Connects and begins.
    pub fn start(to: SocketAddr, wanted: Use) -> Self {
        let stream = TcpStream::connect(to).expect("the victim listens");
        stream.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(wait::PATIENCE)).expect("a timeout");
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || match wanted {
            Use::Echo => echo(&stream, &stopped, &count),
            Use::Stream => read(&stream, &stopped, &count),
        });
        Self { wanted, stop, rounds, thread }
    }

    /// Waits until it has gone on.
    #[track_caller]
    pub fn goes_on(&self, when: &str) {
        // A round may have been over in all but the count.
        let wanted = self.rounds.load(Ordering::Acquire) + 2;
        wait::until(&format!("{when}: {:?} to go on", self.wanted), || {
            (self.rounds.load(Ordering::Acquire) >= wanted || self.thread.is_finished()).then_some(())
        });
        assert!(!self.thread.is_finished(), "{when}: {:?} has failed: {:?}", self.wanted, self.rounds);
    }

    /// Ends it; every byte was right.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("a thread").unwrap_or_else(|error| panic!("{:?}: {error}", self.wanted));
    }
}

/// One side writes while the other reads, so that bytes are on their way in both directions.
fn echo(connection: &TcpStream, stop: &AtomicBool, rounds: &AtomicU64) -> io::Result<()> {
    const SEED: u64 = 5;
    (&*connection).write_all(b"e")?;
    let mut at = 0;
    while !stop.load(Ordering::Acquire) {
        let count = 1 + (at * 7919) % 20_000;
        (&*connection).write_all(&stream(SEED, at, count))?;
        expect(connection, SEED, at, count)?;
        at += count;
        rounds.fetch_add(1, Ordering::AcqRel);
    }
    Ok(())
}

fn read(connection: &TcpStream, stop: &AtomicBool, rounds: &AtomicU64) -> io::Result<()> {
    (&*connection).write_all(b"s")?;
    let mut at = 0;
    while !stop.load(Ordering::Acquire) {
        expect(connection, 9, at, 3000)?;
        at += 3000;
        rounds.fetch_add(1, Ordering::AcqRel);
        // Slower than it comes: both queues are full.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(())
}

fn expect(mut connection: &TcpStream, seed: u64, at: usize, count: usize) -> io::Result<()> {
    let mut bytes = vec![0; count];
    connection.read_exact(&mut bytes)?;
    if bytes == stream(seed, at, count) {
        Ok(())
    } else {
        Err(io::Error::new(ErrorKind::InvalidData, format!("other bytes after {at}")))
    }
}
