//! PostgreSQL in the middle of transactions: its clients by a UNIX socket and by TCP in the tree, and one outside. It has its buffers in memory that
//! its processes share or in a System V segment, a segment by which a second server on its data would be noticed, and POSIX shared memory.

use super::dialogue::Dialogue;
use crate::support::network::own_network;
use crate::support::{Room, isolated_for, require_root, wait};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);
const PORT: &str = "5432";
/// `nobody`: it does not run as root.
const USER: u32 = 65534;
const ROWS: u64 = 50_000;
const MANY_ROWS: u64 = 400_000;

/// Where its programs are.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL").flatten();
    versions.map(|entry| entry.path().join("bin")).max().expect("a version of PostgreSQL")
}

/// A program that is run by somebody who is not root.
fn as_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    let user = USER.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(program);
    command.env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

/// A server and two clients in one tree.
struct Tree {
    pid: i32,
    directory: PathBuf,
    data: PathBuf,
}

impl Tree {
    #[allow(clippy::zombie_processes, reason = "reaped by its pid, under which a restore brings it back")]
    fn start(room: &Room, data: &Path, memory: &str) -> Self {
        let directory = room.path(memory);
        // Nobody else may enter.
        fs::DirBuilder::new().mode(0o700).create(&directory).expect("a directory");
        chown(&directory, Some(USER), Some(USER)).expect("its owner");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scripts/postgres.sh");
        let text = fs::read_to_string(script).expect("the script");
        let mut command = as_user("bash");
        command.args(["-c", &text, "postgres.sh"]).arg(programs()).arg(data).arg(&directory).args([PORT, memory]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let pid = command.spawn().expect("setpriv").id() as i32;
        let tree = Self { pid, directory, data: data.to_path_buf() };
        wait::until("both clients", || (tree.said("unix").is_some() && tree.said("tcp").is_some()).then_some(()));
        tree
    }

    fn said(&self, client: &str) -> Option<String> {
        fs::read_to_string(self.directory.join(format!("{client}.out"))).ok()
    }

    fn tell(&self, client: &str, command: &str) {
        let fifo = self.directory.join(format!("{client}.sql"));
        let mut fifo = File::options().write(true).open(fifo).expect("the FIFO");
        writeln!(fifo, "{command}").expect("a command");
    }

    fn await_line(&self, client: &str, line: &str) {
        let said = || self.said(client).unwrap_or_default();
        let found = || said().lines().any(|found| found == line).then_some(());
        let failed = || assert!(!said().contains("ERROR"), "{client}: {}", said());
        wait::within(LIMIT, &format!("{client} to say {line}: {}", said()), || {
            failed();
            found()
        });
    }

    fn size(&self) -> u64 {
        size(&self.data.join("base"))
    }
}

impl Drop for Tree {
    /// The server takes its memory in /dev/shm away.
    fn drop(&mut self) {
        let stopped = as_user(programs().join("pg_ctl")).args(["stop", "-m", "fast", "-D"]).arg(&self.data).output();
        let log = || fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        if !std::thread::panicking() {
            assert!(stopped.is_ok_and(|output| output.status.success()), "it does not stop: {}", log());
        }
        eprintln!("{}", log());
    }
}

/// psql, which is not in the tree.
fn psql() -> Dialogue {
    let mut command = as_user(programs().join("psql"));
    command.args(["-X", "-A", "-t", "-h", "127.0.0.1", "-p", PORT, "-U", "pg", "postgres"]);
    Dialogue::start(command)
}

/// Bytes of all files below.
fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

fn cluster(room: &Room) -> PathBuf {
    let data = room.path("data");
    let output =
        as_user(programs().join("initdb")).arg("-D").arg(&data).args(["-N", "-A", "trust", "-U", "pg"]).output();
    let output = output.expect("setpriv");
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    data
}

/// Three transactions are under way, one of them in the middle of a long insertion, when the tree is dumped.
fn goes_on(room: &Room, data: &Path, memory: &str) {
    let tree = Tree::start(room, data, memory);
    let fill = |rows: u64| format!("SELECT g, md5(g::text) FROM generate_series(1, {rows}) g;");
    for table in ["a", "b", "c"] {
        tree.tell("unix", &format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table}(k int PRIMARY KEY, v text);"));
    }
    tree.tell("unix", &format!("BEGIN; INSERT INTO a {}", fill(ROWS)));
    tree.await_line("unix", &format!("INSERT 0 {ROWS}"));
    let mut outside = psql();
    assert_eq!(outside.ask("BEGIN;"), "BEGIN");
    assert_eq!(outside.ask(&format!("INSERT INTO c {}", fill(100))), "INSERT 0 100");
    let before = tree.size();
    tree.tell("tcp", &format!("BEGIN; INSERT INTO b {}", fill(MANY_ROWS)));
    wait::within(LIMIT, "the table to grow inside the transaction", || {
        (tree.size() > before + (4 << 20)).then_some(())
    });
    let image = room.dump(tree.pid, &format!("{memory}.snap"), &["--kill"]);
    wait::alone_but_for(&[outside.child.id()]);
    assert!(!tree.said("tcp").unwrap_or_default().contains("INSERT"), "the insertion was over before the dump");
    assert_eq!(room.restore(&image, &[]), tree.pid);
    tree.await_line("tcp", &format!("INSERT 0 {MANY_ROWS}"));
    assert_eq!(outside.ask("UPDATE c SET v = v || '!';"), "UPDATE 100");
    assert_eq!(outside.ask("COMMIT;"), "COMMIT");
    for client in ["unix", "tcp"] {
        tree.tell(client, "COMMIT;");
        tree.await_line(client, "COMMIT");
    }
    let sound =
        |table, rows, end| format!("SELECT count(*) = {rows} AND bool_and(v = md5(k::text) || '{end}') FROM {table};");
    assert_eq!(outside.ask(&sound("a", ROWS, "")), "t", "rows are missing or wrong");
    assert_eq!(outside.ask(&sound("b", MANY_ROWS, "")), "t", "rows are missing or wrong");
    assert_eq!(outside.ask(&sound("c", 100, "!")), "t", "rows are missing or wrong");
    let extension = outside.ask("SET client_min_messages = error; CREATE EXTENSION IF NOT EXISTS amcheck;");
    assert_eq!((extension.as_str(), outside.ask("").as_str()), ("SET", "CREATE EXTENSION"));
    for table in ["a", "b", "c"] {
        assert_eq!(outside.ask(&format!("SELECT bt_index_check('{table}_pkey', true)::text = '';")), "t", "{table}");
        assert_eq!(outside.ask(&format!("SELECT count(*) FROM verify_heapam('{table}');")), "0", "{table}");
    }
    for client in ["unix", "tcp"] {
        tree.tell(client, "\\q");
    }
}

#[test]
fn transactions_of_postgresql_go_on_after_kill_and_restore() {
    isolated_for(LIMIT, |room| {
        require_root!("to keep TCP connections (CAP_NET_ADMIN), and for a user who is not root");
        own_network();
        let data = cluster(room);
        for memory in ["mmap", "sysv"] {
            goes_on(room, &data, memory);
            wait::alone();
        }
    });
}
