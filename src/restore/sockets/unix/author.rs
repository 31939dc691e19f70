//! Who makes a UNIX socket: SO_PEERCRED tells the process and the user that has called connect(2), listen(2) or socketpair(2).

use crate::image::model::socket::unix::PeerCredentials;
use crate::sys::elsewhere::{self, Elsewhere, Failure};
use std::io;
use std::sync::atomic::AtomicI32;

/// Makes calls in the name of processes that are not there yet, or not any more.
#[derive(Debug)]
pub struct Authors {
    user: (u32, u32),
    groups: Vec<u32>,
}

impl Authors {
    /// What this process is.
    pub fn new() -> io::Result<Self> {
        let user = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let groups = nix::unistd::getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect();
        Ok(Self { user, groups })
    }

    /// Its supplementary groups.
    pub fn own_groups(&self) -> &[u32] {
        &self.groups
    }

    /// Has somebody make calls who is what `credentials` say, as far as this is possible.
    pub fn call(
        &self,
        credentials: Option<&PeerCredentials>,
        root: Option<&Elsewhere>,
        count: usize,
        calls: &dyn Fn(&[AtomicI32]) -> crate::sys::Result<()>,
    ) -> io::Result<Vec<i32>> {
        let mut place = root.cloned().unwrap_or_default();
        if let Some(PeerCredentials { pid, uid, gid, groups }) = credentials {
            place.pid = (*pid > 0).then_some(*pid);
            place.user = Some((*uid, *gid)).filter(|user| *user != self.user);
            // The way to a name may be closed to that user, as it is when a server of root's has made the name.
            place.keeps_capabilities = true;
            place.groups = Some(groups.clone()).filter(|groups| *groups != self.groups);
        }
        loop {
            let failure = match elsewhere::call(&place, count, calls) {
                Ok(values) => return Ok(values),
                Err(failure) => failure,
            };
            match failure {
                Failure::Birth(error) if place.pid.is_some() => {
                    let pid = place.pid.take().unwrap_or_default();
                    tracing::warn!("credentials of a socket's peer will not name pid {pid}: {error}");
                }
                Failure::Entry(_) if place.groups.is_some() => place.groups = None,
                Failure::Entry(error) if place.user.is_some() => {
                    let (uid, _) = place.user.take().unwrap_or_default();
                    tracing::warn!("credentials of a socket's peer will not name user {uid}: {error}");
                }
                failure => return Err(failure.into()),
            }
        }
    }
}
