//! Credentials of a thread.

use serde::{Deserialize, Serialize};

/// Ids, groups, capabilities and security attributes of one thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Real, effective, saved and file system user id.
    pub uid: [u32; 4],
    /// Real, effective, saved and file system group id.
    pub gid: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Inheritable capabilities, bit N for capability N.
    pub cap_inheritable: u64,
    /// Permitted capabilities.
    pub cap_permitted: u64,
    /// Effective capabilities.
    pub cap_effective: u64,
    /// Bounding set.
    pub cap_bounding: u64,
    /// Ambient set.
    pub cap_ambient: u64,
    /// PR_GET_SECUREBITS, keep_caps included.
    pub securebits: u32,
    /// `/proc/PID/attr/current`, empty without an LSM.
    pub lsm_label: Vec<u8>,
    /// Description of the session keyring (KEYCTL_DESCRIBE) of a main thread, empty without one and for other threads.
    pub session_keyring: String,
}
