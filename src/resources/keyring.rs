//! Keyrings (keyrings(7)): what a process holds is recorded; what cannot be had again is refused.

use super::ask::Asker;
use super::{CollectError, Findings};
use crate::image::model::id::Tid;
use crate::tracer::Question;
use std::collections::HashMap;

const KEYCTL_GET_KEYRING_ID: u64 = 0;
const KEYCTL_DESCRIBE: u64 = 6;
const KEY_SPEC_THREAD_KEYRING: i64 = -1;
const KEY_SPEC_PROCESS_KEYRING: i64 = -2;
const KEY_SPEC_SESSION_KEYRING: i64 = -3;
/// Longest description that is recorded.
const DESCRIPTION: usize = 256;

/// The serial numbers of the keyrings that a process holds, without which it has none, or the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Keyrings {
    thread: Option<u64>,
    process: Option<u64>,
    session: Option<u64>,
}

impl Keyrings {
    /// What tells of those of a thread, of its process and of its session. None is created by asking.
    pub const QUESTIONS: [Question; 3] =
        [serial(KEY_SPEC_THREAD_KEYRING), serial(KEY_SPEC_PROCESS_KEYRING), serial(KEY_SPEC_SESSION_KEYRING)];

    /// From the answers to these.
    #[must_use]
    pub fn of(answers: [Option<u64>; 3]) -> Self {
        let [thread, process, session] = answers.map(|serial| serial.map(|serial| serial & 0xffff_ffff));
        Self { thread, process, session }
    }
}

/// What is known of keyrings that several processes have.
#[derive(Debug, Default)]
pub struct Descriptions(HashMap<u64, String>);

impl Descriptions {
    /// Describes the session keyring as keyctl(2) KEYCTL_DESCRIBE does, empty without one, and refuses keyrings that end with
    /// their thread or process.
    ///
    /// # Errors
    /// The question that could not be asked.
    pub fn collect(
        &mut self,
        asker: &mut Asker<'_, '_>,
        tid: Tid,
        keyrings: Keyrings,
        findings: &mut Findings,
    ) -> Result<String, CollectError> {
        for (serial, name) in [(keyrings.thread, "thread keyring"), (keyrings.process, "process keyring")] {
            if serial.is_some() {
                let reason = "its keys cannot be read and made again";
                findings.block(format!("tid {tid}"), name, reason, "keep the keys in the user keyring");
            }
        }
        let Some(session) = keyrings.session else { return Ok(String::new()) };
        if let Some(known) = self.0.get(&session) {
            return Ok(known.clone());
        }
        let text = describe(asker, tid, session)?;
        if let Some(text) = &text {
            self.0.insert(session, text.clone());
        }
        Ok(text.unwrap_or_default())
    }
}

/// What KEYCTL_DESCRIBE says; `None` to a process that may not look.
fn describe(asker: &mut Asker<'_, '_>, tid: Tid, keyring: u64) -> Result<Option<String>, CollectError> {
    let out = asker.scratch(0);
    let args = [KEYCTL_DESCRIBE, keyring, out.0, DESCRIPTION as u64, 0, 0];
    let Some(length) = asker.optional(tid, "KEYCTL_DESCRIBE", libc::SYS_keyctl, args)? else { return Ok(None) };
    let mut text = vec![0; (length as usize).min(DESCRIPTION)];
    asker.read(0, &mut text)?;
    let text = text.strip_suffix(&[0]).unwrap_or(&text);
    Ok(Some(String::from_utf8_lossy(text).into_owned()))
}

/// Which serial number a keyring has.
const fn serial(special: i64) -> Question {
    Question { number: libc::SYS_keyctl, args: [KEYCTL_GET_KEYRING_ID, special.cast_unsigned(), 0], returns: true }
}
