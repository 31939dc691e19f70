//! What the image is and where it was made: enough to refuse a host on which it cannot run.

use super::id::Pid;
use serde::{Deserialize, Serialize};

/// The first section of every image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Version of the `snap` that wrote the image.
    pub tool: String,
    /// The process that was named to `snap dump`.
    pub root: Pid,
    /// Command name of that process.
    pub comm: String,
    /// Where the dump was made.
    pub host: Host,
    /// The clocks while the tree was frozen.
    pub clocks: Clocks,
}

/// The machine and the kernel of the dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// `uname -n`.
    pub node: String,
    /// `uname -r`.
    pub release: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `model name` of `/proc/cpuinfo`.
    pub cpu: String,
    /// Layout of the XSAVE area in every [`super::thread::Cpu`] of the image.
    pub xsave: XsaveLayout,
    /// GNU build id of the vdso, empty where it has none.
    pub vdso_build_id: Vec<u8>,
    /// The vdso itself, an ELF file as it is mapped, for a restore under another kernel; empty where it has none.
    pub vdso: Vec<u8>,
}

/// Standard-format XSAVE layout of a CPU (CPUID leaf 0Dh).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XsaveLayout {
    /// State components that the kernel enabled (XCR0).
    pub features: u64,
    /// Bytes of the area for all of them.
    pub size: u32,
    /// Every component but x87 and SSE, whose place is fixed.
    pub components: Vec<XsaveComponent>,
}

/// One state component in the standard format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XsaveComponent {
    /// Bit number in XSTATE_BV.
    pub bit: u8,
    /// Offset in bytes from the start of the area.
    pub offset: u32,
    /// Length in bytes.
    pub size: u32,
}

/// Names of the state components of XSAVE, by their bits.
pub const XSAVE_COMPONENTS: &[(u64, &str)] = &[
    (1 << 0, "x87"),
    (1 << 1, "SSE"),
    (1 << 2, "AVX"),
    (1 << 3, "BNDREGS"),
    (1 << 4, "BNDCSR"),
    (0b111 << 5, "AVX-512"),
    (1 << 5, "opmask"),
    (1 << 6, "ZMM_Hi256"),
    (1 << 7, "Hi16_ZMM"),
    (1 << 9, "PKRU"),
    (1 << 11, "CET_U"),
    (1 << 17, "AMX-cfg"),
    (1 << 18, "AMX-tiles"),
    (1 << 19, "APX"),
];

/// XTILE_DATA: the eight tiles of AMX, the only component that a process asks for before it uses it (`xstate_prctl_req` in
/// arch/x86/kernel/fpu/xstate.c).
pub const XTILE_DATA: u64 = 1 << 18;

/// Clocks sampled together, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// CLOCK_REALTIME.
    pub realtime: i64,
    /// CLOCK_MONOTONIC.
    pub monotonic: i64,
    /// CLOCK_BOOTTIME.
    pub boottime: i64,
}

/// What the dump did and cost; the last section of postcard before the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Thread groups.
    pub processes: u64,
    /// Threads, main threads included.
    pub threads: u64,
    /// Resident bytes of all address spaces.
    pub resident: u64,
    /// Bytes of pages that are stored in the image, before compression.
    pub written: u64,
    /// Bytes left out because they were zero.
    pub zero: u64,
    /// Bytes left out because they equal the file that is mapped there.
    pub clean_file: u64,
    /// Nanoseconds during which the target stood still.
    pub pause: u64,
}
