//! Sockets of the UNIX domain (unix(7)).

use serde::{Deserialize, Serialize};

/// A socket of AF_UNIX.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unix {
    /// `sun_path` as bind(2) was given it: empty for none, with a leading zero for an abstract name.
    pub name: Vec<u8>,
}
