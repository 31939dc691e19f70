//! A client that keeps its connection: whatever happens to the server, it must see nothing but a delay.

use crate::support::wait;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest delay.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a server that listens on this port, once it does.
pub fn connect(port: u16) -> TcpStream {
    let stream = wait::until(&format!("a server on port {port}"), || TcpStream::connect(("127.0.0.1", port)).ok());
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Asks for one thing over and over on one connection.
pub struct Client {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

/// Sends a question and reads the answer.
pub type Ask = fn(&mut BufReader<TcpStream>, u64) -> io::Result<()>;

impl Client {
    /// Connects and begins to ask.
    pub fn start(port: u16, ask: Ask) -> Self {
        let mut stream = BufReader::new(connect(port));
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&answers));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                ask(&mut stream, count.load(Ordering::Acquire))?;
                count.fetch_add(1, Ordering::AcqRel);
            }
            Ok(())
        });
        Self { stop, answers, thread }
    }

    /// Waits until it has had so many more answers.
    pub fn await_more(&self, more: u64) {
        let wanted = self.answers.load(Ordering::Acquire) + more;
        wait::until("answers", || {
            (self.answers.load(Ordering::Acquire) >= wanted || self.thread.is_finished()).then_some(())
        });
        assert!(!self.thread.is_finished(), "the connection has failed");
    }

    /// Lets it end: every answer was right.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the client").expect("every answer");
    }
}

/// GET / with keep-alive: the body is `hello` in some form.
pub fn http(stream: &mut BufReader<TcpStream>, _: u64) -> io::Result<()> {
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    let (mut line, mut length) = (String::new(), None);
    stream.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(format!("the answer is `{line}`")));
    }
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line)?;
        let lower = line.to_ascii_lowercase();
        length = lower.strip_prefix("content-length:").and_then(|value| value.trim().parse().ok()).or(length);
    }
    let mut body = vec![0; length.ok_or_else(|| io::Error::other("an answer without a length"))?];
    stream.read_exact(&mut body)?;
    if body.windows(5).any(|window| window == b"hello") { Ok(()) } else { Err(io::Error::other("another body")) }
}

/// Sets a key and has it again, as memcached speaks.
pub fn memcached(stream: &mut BufReader<TcpStream>, round: u64) -> io::Result<()> {
    let value = format!("value-{round}");
    let key = stream.get_ref().local_addr()?.port();
    let question = format!("set {key} 0 0 {}\r\n{value}\r\nget {key}\r\n", value.len());
    stream.get_mut().write_all(question.as_bytes())?;
    let expected = format!("STORED\r\nVALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len());
    expect(stream, &expected)
}

/// Counts, as redis speaks.
pub fn redis(stream: &mut BufReader<TcpStream>, round: u64) -> io::Result<()> {
    let value = format!("value-{round}");
    let key = format!("key-{}", stream.get_ref().local_addr()?.port());
    let set = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len());
    let get = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
    stream.get_mut().write_all(format!("{set}{get}").as_bytes())?;
    expect(stream, &format!("+OK\r\n${}\r\n{value}\r\n", value.len()))
}

fn expect(stream: &mut BufReader<TcpStream>, expected: &str) -> io::Result<()> {
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer)?;
    if answer == expected.as_bytes() {
        Ok(())
    } else {
        Err(io::Error::other(format!("`{}`, not `{expected}`", String::from_utf8_lossy(&answer))))
    }
}
