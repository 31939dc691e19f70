//! The machine itself: QEMU, what it writes to its serial line, and what becomes of it.

use super::arguments::Arguments;
use super::kernel::Kernel;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What was seen on the serial line.
#[derive(Default)]
struct Seen {
    passed: Vec<String>,
    failed: Vec<String>,
    not_run: Vec<String>,
    steps: Vec<(String, String)>,
    done: bool,
}

/// Boots and waits for the end; an error if a step or a test failed, or not everything was run.
pub fn boot(kernel: &Kernel, initramfs: &Path, arguments: &Arguments) -> Result<(), String> {
    let start = Instant::now();
    let mut child = command(kernel, initramfs, arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", arguments.qemu.display()))?;
    let result = follow(&mut child, Duration::from_secs(arguments.timeout));
    let _ = child.kill();
    let _ = child.wait();
    let seen = result?;
    println!(
        "== {} on {}: {} passed, {} failed, {} not run, in {:.0} s",
        kernel.version,
        arguments.cpu,
        seen.passed.len(),
        seen.failed.len(),
        seen.not_run.len(),
        start.elapsed().as_secs_f64()
    );
    seen.not_run.iter().for_each(|line| println!("   {line}"));
    seen.failed.iter().for_each(|name| println!("   failed: {name}"));
    let bad: Vec<_> = seen
        .steps
        .iter()
        .filter(|(_, code)| code != "0")
        .map(|(title, code)| format!("{title}: exit code {code}"))
        .collect();
    match (seen.done, bad.is_empty()) {
        (false, _) => Err("the machine ended before it had run everything".into()),
        (true, false) => Err(bad.join("; ")),
        (true, true) => Ok(()),
    }
}

fn command(kernel: &Kernel, initramfs: &Path, arguments: &Arguments) -> Command {
    let mut command = Command::new(&arguments.qemu);
    command
        .args(["-accel", &arguments.accel, "-cpu", &arguments.cpu, "-smp", &arguments.smp, "-m", "3072"])
        .args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel"])
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &format!("console=ttyS0 panic=-1 loglevel=3 {}", arguments.append)]);
    command
}

/// Shows what the machine writes, until it ends or its time is over.
fn follow(child: &mut Child, limit: Duration) -> Result<Seen, String> {
    let stdout = child.stdout.take().ok_or("no serial line")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    let end = Instant::now() + limit;
    let mut seen = Seen::default();
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                seen.note(&line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(seen),
            Err(mpsc::RecvTimeoutError::Timeout) => return Err(format!("not finished after {} s", limit.as_secs())),
        }
    }
}

impl Seen {
    /// A test that was not run has said so, and libtest counts it as passed.
    fn note(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("vm: end ") {
            let (title, code) = rest.rsplit_once(": ").unwrap_or((rest, "?"));
            self.steps.push((title.to_owned(), code.to_owned()));
        } else if line.starts_with("vm: done") {
            self.done = true;
        } else if let Some((name, _)) = line.split_once(": not run: ") {
            self.passed.retain(|passed| passed != name);
            self.not_run.push(line.to_owned());
        } else if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            match result {
                "ok" if self.not_run.iter().any(|line| line.starts_with(&format!("{name}: "))) => {}
                "ok" => self.passed.push(name.to_owned()),
                "FAILED" => self.failed.push(name.to_owned()),
                _ => {}
            }
        }
    }
}
