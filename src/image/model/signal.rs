//! Signals: dispositions, queues.

use super::address::Addr;
use super::id::HandlersId;
use serde::{Deserialize, Serialize};

/// The disposition of one signal, as rt_sigaction(2) keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalAction {
    /// 0 SIG_DFL, 1 SIG_IGN, else the handler.
    pub handler: Addr,
    /// SA_*.
    pub flags: u64,
    /// `sa_restorer`.
    pub restorer: Addr,
    /// Signals blocked while the handler runs.
    pub mask: u64,
}

/// CLONE_SIGHAND: one table of dispositions, which the threads of a process share, and sometimes several processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalHandlers {
    /// Its place in [`super::Snapshot::signal_handlers`].
    pub id: HandlersId,
    /// Dispositions of signals 1 to 64.
    pub actions: Vec<SignalAction>,
}

/// A signal that waits in a queue, with the whole of its `siginfo_t` as PTRACE_PEEKSIGINFO gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedSignal {
    /// Raw `siginfo_t`, 128 bytes.
    #[serde(with = "super::bytes")]
    pub info: Vec<u8>,
}
