//! Keyrings (keyrings(7)): what a process holds is recorded; what cannot be had again is refused.

use super::ask::Asker;
use super::{CollectError, Findings};
use crate::image::model::id::Tid;

const KEYCTL_GET_KEYRING_ID: u64 = 0;
const KEYCTL_DESCRIBE: u64 = 6;
const KEY_SPEC_THREAD_KEYRING: i64 = -1;
const KEY_SPEC_PROCESS_KEYRING: i64 = -2;
const KEY_SPEC_SESSION_KEYRING: i64 = -3;
/// Longest description that is recorded.
const DESCRIPTION: usize = 256;

/// Describes the session keyring as keyctl(2) KEYCTL_DESCRIBE does, empty without one, and refuses keyrings that end with
/// their thread or process. None is created by asking.
///
/// # Errors
/// The question that could not be asked.
pub fn collect(asker: &mut Asker<'_, '_>, tid: Tid, findings: &mut Findings) -> Result<String, CollectError> {
    for (special, name) in [(KEY_SPEC_THREAD_KEYRING, "thread keyring"), (KEY_SPEC_PROCESS_KEYRING, "process keyring")]
    {
        if serial(asker, tid, special)?.is_some() {
            let reason = "its keys cannot be read and made again";
            findings.block(format!("tid {tid}"), name, reason, "keep the keys in the user keyring");
        }
    }
    let Some(session) = serial(asker, tid, KEY_SPEC_SESSION_KEYRING)? else { return Ok(String::new()) };
    let out = asker.scratch(0);
    let args = [KEYCTL_DESCRIBE, session, out.0, DESCRIPTION as u64, 0, 0];
    let Some(length) = asker.optional(tid, "KEYCTL_DESCRIBE", libc::SYS_keyctl, args)? else {
        return Ok(String::new());
    };
    let mut text = vec![0; (length as usize).min(DESCRIPTION)];
    asker.read(0, &mut text)?;
    let text = text.strip_suffix(&[0]).unwrap_or(&text);
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// The serial number of a keyring; `None` if there is none, or no keyrings in this kernel.
fn serial(asker: &mut Asker<'_, '_>, tid: Tid, special: i64) -> Result<Option<u64>, CollectError> {
    let args = [KEYCTL_GET_KEYRING_ID, special.cast_unsigned(), 0, 0, 0, 0];
    Ok(asker.optional(tid, "KEYCTL_GET_KEYRING_ID", libc::SYS_keyctl, args)?.map(|serial| serial & 0xffff_ffff))
}
