//! Credentials of a thread, from its `status` and what only it can say.

use crate::image::model::credentials::Credentials;
use crate::proc::status::Status;

/// Puts together what `status`, prctl(2) and the LSM say.
#[must_use]
pub fn collect(status: &Status, securebits: u32, lsm_label: Vec<u8>, session_keyring: String) -> Credentials {
    Credentials {
        uid: status.uid,
        gid: status.gid,
        groups: status.groups.clone(),
        cap_inheritable: status.capabilities.inheritable,
        cap_permitted: status.capabilities.permitted,
        cap_effective: status.capabilities.effective,
        cap_bounding: status.capabilities.bounding,
        cap_ambient: status.capabilities.ambient,
        securebits,
        lsm_label,
        session_keyring,
    }
}
