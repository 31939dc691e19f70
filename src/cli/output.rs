//! Standard output: where results go, as text or as JSON. Somebody who stops reading (`| head`) is no error.

use super::exit_code::Code;
use super::failure::Failure;
use serde::Serialize;
use std::io::{self, Write};

/// How results are written.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// `-q`: no summaries.
    pub quiet: bool,
    /// `--json`.
    pub json: bool,
}

impl Output {
    /// Writes a result, with a newline at its end.
    pub fn text(self, text: &str) -> Result<(), Failure> {
        deliver(io::stdout().lock(), text)
    }

    /// Writes a result as JSON.
    pub fn document(self, document: &impl Serialize) -> Result<(), Failure> {
        self.text(&pretty(document)?)
    }

    /// Writes a summary to standard error, where standard output carries an image.
    pub fn aside(self, text: &str) -> Result<(), Failure> {
        deliver(io::stderr().lock(), text)
    }
}

/// A JSON document of several lines.
pub fn pretty(document: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(document).map_err(|error| {
        Failure::new(Code::Internal, format!("writing JSON: {error}"), "this is a fault of snap: please report it")
    })
}

/// The columns of the terminal on standard output; without one, and on a serial line, which has no size, lines may be as long as they like.
#[must_use]
pub fn columns() -> Option<u16> {
    comfy_table::Table::new().width().filter(|&columns| columns > 0)
}

fn deliver(mut stream: impl Write, text: &str) -> Result<(), Failure> {
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match write!(stream, "{text}{newline}").and_then(|()| stream.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Code::Internal,
            format!("writing the result: {error}"),
            "check where the output goes: is the disk full?",
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}
