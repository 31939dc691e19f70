//! The command line of `cargo xtask vm`.

use std::path::PathBuf;

/// How it is used.
pub const USAGE: &str = "\
usage: cargo xtask vm [OPTION]... [TEST]...

Runs `snap check`, `snap demo` and the integration tests whose names contain one of the words TEST (by default those that need no program beside
the victims) on another kernel, in QEMU.

  --kernel PATH   a vmlinuz; a Debian package of a kernel or of its modules (may be repeated); or a directory with unpacked packages.
                  By default that of the package linux-image-cloud-amd64 of this distribution, fetched with apt-get download
  --modules DIR   the directory with the modules of a vmlinuz (/lib/modules/VERSION)
  --cpu MODEL     the processor, as `qemu-system-x86_64 -cpu help` lists them; max by default
  --smp TOPOLOGY  processors, as QEMU takes them: 2 by default; 2,threads=2 for two threads of one core
  --accel KIND    kvm or tcg; by default tcg, which runs everywhere and knows the CPU features that it emulates
  --qemu PATH     another QEMU
  --skip WORD     leave out tests whose names contain WORD (may be repeated)
  --as-user       run the tests as an ordinary user
  --append TEXT   more for the kernel's command line
  --pack-only     only make the archive, target/vm/initramfs.cpio, for another emulator
  --timeout SECS  a bound on the whole, 3,600 by default
";

/// What the user wants.
#[derive(Debug)]
pub struct Arguments {
    pub kernel: Vec<PathBuf>,
    pub modules: Option<PathBuf>,
    pub cpu: String,
    pub smp: String,
    pub accel: String,
    pub qemu: PathBuf,
    pub skip: Vec<String>,
    pub as_user: bool,
    pub append: String,
    pub pack_only: bool,
    pub timeout: u64,
    pub tests: Vec<String>,
}

impl Arguments {
    /// Reads them.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut arguments = Self {
            kernel: Vec::new(),
            modules: None,
            cpu: "max".into(),
            smp: "2".into(),
            accel: "tcg".into(),
            qemu: "qemu-system-x86_64".into(),
            skip: Vec::new(),
            as_user: false,
            append: String::new(),
            pack_only: false,
            timeout: 3600,
            tests: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().cloned().ok_or_else(|| format!("{word} takes a value\n{USAGE}"));
            match word.as_str() {
                "--kernel" => arguments.kernel.push(value()?.into()),
                "--modules" => arguments.modules = Some(value()?.into()),
                "--cpu" => arguments.cpu = value()?,
                "--smp" => arguments.smp = value()?,
                "--accel" => arguments.accel = value()?,
                "--qemu" => arguments.qemu = value()?.into(),
                "--skip" => arguments.skip.push(value()?),
                "--as-user" => arguments.as_user = true,
                "--pack-only" => arguments.pack_only = true,
                "--append" => arguments.append = value()?,
                "--timeout" => arguments.timeout = value()?.parse().map_err(|error| format!("--timeout: {error}"))?,
                option if option.starts_with('-') => return Err(format!("no option {option}\n{USAGE}")),
                test => arguments.tests.push(test.to_owned()),
            }
        }
        Ok(arguments)
    }
}
