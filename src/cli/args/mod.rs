//! The one definition of the command line: help, man pages and shell completions all come from it.

mod values;

#[cfg(test)]
mod tests;

pub use values::Compression;
use values::{compression, inherited, mapped, pid, seconds};

use super::exit_code::Code;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `snap` as it is called.
#[derive(Debug, Parser)]
#[command(
    name = "snap",
    version,
    about = "Freeze a running program, keep it in a file, run it on later",
    long_about = "Freezes a running program from outside, writes all of it into one image file, and brings it back later: \
                  the same pids, memory, threads, open files, timers and signals, at the same instruction. \
                  The program does not have to know, to be prepared, or to be started in any special way.",
    after_help = TOP_EXAMPLES,
    after_long_help = top_after_help(),
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// Log what is done to standard error; twice for each step
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

const TOP_EXAMPLES: &str = "\
Examples:
  snap demo                          see it work, in a few seconds
  snap dump 4711                     image of process 4711 in snap-4711.snap; it runs on
  snap dump 4711 -o job.snap --kill  the same, and end it once the image is safe
  snap restore job.snap              run it on, here and now
  snap inspect job.snap threads      look into the image
  snap check 4711                    can it be dumped? why not?";

const DUMP: &str = "Freezes the process, writes everything the kernel knows about it into one image file, and lets it run on.\n\n\
    A dump that succeeds can be restored: what could not be is refused before the process has been changed, \
    with all reasons at once. The file appears under its name only when it is whole. Whatever goes wrong, also \
    Ctrl-C, a timeout or a full disk, the process runs on as if nothing had happened.";

const RESTORE: &str = "Brings a process back from its image and lets it run on.\n\n\
    Without --detach snap stays in the foreground as its parent, hands signals (Ctrl-C, Ctrl-Z, window size) on to it, \
    and ends with its exit code or signal. If the process had a terminal, it gets the one snap runs on. \
    If anything fails nothing is left behind: no process, no file.";

const INSPECT: &str = "Shows what is in an image. Nothing is restored and no privilege is needed: an image is a core dump that knows \
    everything, registers, memory maps, open files, pending signals, timers, environment.";

const CHECK: &str = "Without a PID: every kernel feature that snap needs or can use, tried out now, and what depends on it.\n\n\
    With a PID: every reason why that process could not be dumped, as far as it can be seen without touching it, \
    and what will only be seen once it is frozen. Ends with 3 if there is any reason.";

const NET: &str = "A tree that was dumped with --kill leaves its TCP connections to nobody. Until snap restore gives them back, their packets are \
    dropped by a table of nf_tables, so that the other sides wait instead of being told that nobody is there. A tree that will not be restored \
    leaves that table behind: unlock takes it away. Before another host takes over the addresses, lock puts it in there.";

const DEMO: &str = "Starts a small program that counts, writes it into an image while it runs, kills it, restores it, and shows \
    that it counts on from where it was. Everything happens in a temporary directory that is removed at the end. \
    Needs no privilege where the kernel allows.";

fn top_after_help() -> String {
    format!("{TOP_EXAMPLES}\n\n{}", Code::table())
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a running process into an image
    #[command(long_about = DUMP)]
    Dump(DumpArgs),
    /// Bring a process back from its image
    #[command(long_about = RESTORE)]
    Restore(RestoreArgs),
    /// Look into an image
    #[command(long_about = INSPECT)]
    Inspect(InspectArgs),
    /// Say what this kernel can do, or what stands in the way of dumping a process
    #[command(long_about = CHECK)]
    Check(CheckArgs),
    /// Hold back or let pass the packets of an image's TCP connections
    #[command(long_about = NET)]
    Net(NetArgs),
    /// Show that it works: dump, kill and restore a program that snap carries itself
    #[command(long_about = DEMO)]
    Demo(DemoArgs),
    /// Write man pages or shell completions
    #[command(hide = true)]
    Generate(GenerateArgs),
    /// The program of `snap demo`.
    #[command(hide = true, name = "demo-counter")]
    DemoCounter(DemoCounterArgs),
}

/// `snap dump`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  snap dump 4711                             to snap-4711.snap; 4711 runs on
  snap dump 4711 -o job.snap --kill          stop here, go on later: snap restore job.snap
  snap dump 4711 -o - --kill | ssh there snap restore -
                                             move it to another host
  snap dump 4711 --compress zstd:9           smaller and slower
  snap dump \"$(pidof -s myprog)\" --timeout 5 give up if it takes longer than 5 seconds")]
pub struct DumpArgs {
    /// The process to dump
    #[arg(value_name = "PID", value_parser = pid, allow_negative_numbers = true)]
    pub pid: i32,
    /// Where to write the image; - is standard output [default: snap-PID.snap]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Kill the process once the image is safely on disk
    #[arg(long, group = "after")]
    pub kill: bool,
    /// Leave it stopped, as by SIGSTOP (go on with: kill -CONT PID)
    #[arg(long, group = "after")]
    pub leave_stopped: bool,
    /// Let it run on (the default)
    #[arg(long, group = "after")]
    pub leave_running: bool,
    /// Give up after so many seconds; the process runs on
    #[arg(long, value_name = "SECS", value_parser = seconds, allow_negative_numbers = true)]
    pub timeout: Option<Duration>,
    /// How to store pages: none, zstd, or zstd:LEVEL with LEVEL from -7 to 22
    #[arg(long, value_name = "METHOD", default_value = "none", value_parser = compression)]
    pub compress: Compression,
    /// Let a restore put something else in the place of this descriptor, named as in /proc/PID/fd, such as `pipe:[4711]`; may be given more than once
    #[arg(long, value_name = "LINK", value_parser = NonEmptyStringValueParser::new())]
    pub external: Vec<String>,
    /// Dump pipes, sockets, BPF maps and System V objects that a process outside has too, as if it had let go of them
    #[arg(long)]
    pub allow_leak: bool,
    /// Give up events of inotify and fanotify that the program has not read yet: nothing but reading shows them
    #[arg(long)]
    pub drop_events: bool,
    /// Take every eventfd for one that is no semaphore (EFD_SEMAPHORE), where the kernel does not tell (before Linux 6.5)
    #[arg(long)]
    pub plain_eventfds: bool,
    /// What to do with TCP connections to the outside
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = TcpPolicy::Keep)]
    pub tcp: TcpPolicy,
    /// Write the summary as JSON (to standard error if the image goes to standard output)
    #[arg(long)]
    pub json: bool,
}

/// `snap restore`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  snap restore job.snap                      run it on in the foreground
  snap restore job.snap --detach             in the background; prints its pid
  snap restore job.snap --stopped            stopped at the very instant of the dump, for gdb
  snap restore job.snap --dry-run            say what would be done
  snap restore job.snap --new-pid-namespace  when its pid is taken, or without privilege
  snap restore job.snap --new-pids --detach  many times side by side
  snap restore job.snap --tcp-close --map-address 10.0.0.1=10.0.0.7
                                             on a host with another address")]
pub struct RestoreArgs {
    /// The image; - is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub image: PathBuf,
    /// Return as soon as the process runs, and print its pid
    #[arg(long)]
    pub detach: bool,
    /// Leave it stopped at the instant of the dump
    #[arg(long)]
    pub stopped: bool,
    /// Print the plan, and restore nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write the outcome, or with --dry-run the plan, as JSON
    #[arg(long)]
    pub json: bool,
    /// What to do about files open for writing that changed since the dump
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = FilesPolicy::Check)]
    pub files: FilesPolicy,
    /// Accept that this mapped file (a program or library) changed; may be given more than once
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub ignore_changed: Vec<PathBuf>,
    /// Put this descriptor of snap in the place of one that was dumped with --external, as in `3:pipe:[4711]`; may be given more than once
    #[arg(long, value_name = "FD:LINK", value_parser = inherited)]
    pub inherit: Vec<(i32, String)>,
    /// Restore into a pid namespace of its own (without privilege: in a user namespace too)
    #[arg(long)]
    pub new_pid_namespace: bool,
    /// Restore under whatever ids are free, for programs that do not care, and say which
    #[arg(long, conflicts_with = "new_pid_namespace")]
    pub new_pids: bool,
    /// Restore into an IPC namespace of its own, in which every System V identifier and key is free
    #[arg(long)]
    pub new_ipc_namespace: bool,
    /// Restore TCP connections to the outside as reset, whatever the dump has kept of them
    #[arg(long)]
    pub tcp_close: bool,
    /// Bind to NEW what was bound to OLD, and tell it so: listeners, UDP sockets, and connections within the image; may be given more than once
    #[arg(long, value_name = "OLD=NEW", value_parser = mapped)]
    pub map_address: Vec<(IpAddr, IpAddr)>,
}

/// `--files`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FilesPolicy {
    /// Any change is an error
    Check,
    /// Cut a file that grew back to its size at the dump; other changes are errors
    Truncate,
    /// Use them as they are
    Ignore,
}

/// `--tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TcpPolicy {
    /// Keep them: the other side sees nothing but a delay; takes CAP_NET_ADMIN
    Keep,
    /// Leave them out: the restored program finds them reset
    Close,
    /// Do not dump
    Refuse,
}

/// `snap inspect`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  snap inspect job.snap                      what it is, from where and when
  snap inspect job.snap threads              registers, and the system call each thread is in
  snap inspect job.snap maps                 its memory
  snap inspect job.snap fds --json           open files, for a script

docs/json.md describes the JSON.")]
pub struct InspectArgs {
    /// The image; - is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub image: PathBuf,
    /// What to show
    #[arg(value_name = "REPORT", value_enum, default_value_t = Report::Summary)]
    pub report: Report,
    /// Write it as JSON
    #[arg(long)]
    pub json: bool,
}

/// The reports of `snap inspect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Report {
    /// What the image is, from where and when
    Summary,
    /// Processes and threads
    Tree,
    /// Registers, blocked system calls, masks, scheduling, credentials
    Threads,
    /// Mappings, protections, what is stored of each
    Maps,
    /// Descriptors and what they are open on
    Fds,
    /// Dispositions, masks, pending signals
    Signals,
    /// Interval timers and POSIX timers
    Timers,
    /// Every file that is mapped, open or run
    Files,
    /// System V shared memory, semaphores and message queues, POSIX message queues, BPF maps
    Ipc,
    /// Arguments, environment and auxiliary vector
    Env,
    /// Bytes, blocks, compression, pause
    Stats,
}

/// `snap check`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  snap check                                 what this kernel and this user can do
  snap check 4711                            can 4711 be dumped?
  snap check 4711 --json | jq '.blockers[].object'")]
pub struct CheckArgs {
    /// The process to look at
    #[arg(value_name = "PID", value_parser = pid, allow_negative_numbers = true)]
    pub pid: Option<i32>,
    /// Write it as JSON
    #[arg(long)]
    pub json: bool,
}

/// `snap net`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  snap net unlock job.snap                   it will not be restored
  snap net unlock --all                      none will be
  snap net lock job.snap                     on the host that is about to take its address over")]
pub struct NetArgs {
    /// What to do
    #[command(subcommand)]
    pub action: NetAction,
}

/// What `snap net` does.
#[derive(Debug, Subcommand)]
pub enum NetAction {
    /// Hold back the packets of an image's connections until it is restored
    Lock {
        /// The image; - is standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        image: PathBuf,
    },
    /// Let them pass
    #[command(override_usage = "snap net unlock <FILE>\n       snap net unlock --all")]
    Unlock {
        /// The image, if not --all; - is standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "all")]
        image: Option<PathBuf>,
        /// Those of every image
        #[arg(long, conflicts_with = "image")]
        all: bool,
    },
}

/// `snap demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {}

/// Hidden `snap generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// What to write
    #[command(subcommand)]
    pub what: Generate,
}

/// What `snap generate` writes.
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// One man page per command, into a directory
    Man {
        /// The directory; it is made if it is missing
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
    /// Completions for a shell, to standard output
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Hidden `snap demo-counter`.
#[derive(Debug, Args)]
pub struct DemoCounterArgs {
    /// Where it writes what it has counted
    pub file: PathBuf,
}
