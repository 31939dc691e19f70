//! Progress on standard error: a bar where it is a terminal, nothing elsewhere; each phase goes to the log.

use super::output::Output;
use crate::progress::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// What takes less shows no bar.
const PATIENCE: Duration = Duration::from_millis(400);

/// Shows how far a dump or a restore is.
pub struct Bar {
    bar: Option<ProgressBar>,
    start: Instant,
}

impl Bar {
    /// A bar that has not been drawn yet.
    pub fn new(output: Output) -> Self {
        let shown = !output.quiet && io::stderr().is_terminal();
        Self { bar: shown.then(hidden_bar), start: Instant::now() }
    }

    /// Takes the bar from the terminal.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn drawn(&self) -> Option<&ProgressBar> {
        let bar = self.bar.as_ref()?;
        if bar.is_hidden() && self.start.elapsed() >= PATIENCE {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        Some(bar)
    }
}

impl Progress for Bar {
    fn phase(&self, name: &str) {
        tracing::info!(after_us = self.start.elapsed().as_micros() as u64, "{name}");
        if let Some(bar) = self.drawn() {
            bar.set_message(name.to_owned());
        }
    }

    fn pages(&self, done: u64, total: u64) {
        if let Some(bar) = self.drawn() {
            bar.set_length(total);
            bar.set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}

fn hidden_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
    // The template is fixed: were it wrong, the default would do.
    if let Ok(style) =
        ProgressStyle::with_template("{msg:14} [{bar:24}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
