//! MariaDB, whose threads write its tables by Linux AIO, in the middle of transactions of two clients in the tree.

use crate::support::{Room, isolated_for, wait};
use nix::sys::wait::WaitStatus;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);
const ROWS: u64 = 20_000;
const MANY_ROWS: u64 = 250_000;

/// A server and two clients in one tree.
struct Tree {
    pid: i32,
    directory: PathBuf,
}

impl Tree {
    #[allow(clippy::zombie_processes, reason = "reaped by its pid, under which a restore brings it back")]
    fn start(room: &Room) -> Self {
        let directory = room.path("mariadb");
        fs::create_dir(&directory).expect("a directory");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scripts/mariadb.sh");
        let text = fs::read_to_string(script).expect("the script");
        let mut command = Command::new("bash");
        command.args(["-c", &text, "mariadb.sh"]).arg(&directory).env("HOME", "/nonexistent").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let tree = Self { pid: command.spawn().expect("bash").id() as i32, directory };
        for client in ["one", "two"] {
            tree.tell(client, "SELECT 'ready';");
            tree.await_line(client, "ready");
        }
        tree
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.directory.join(file)).unwrap_or_default()
    }

    fn said(&self, client: &str) -> String {
        self.read(&format!("{client}.out"))
    }

    fn tell(&self, client: &str, command: &str) {
        let path = self.directory.join(format!("{client}.sql"));
        let fifo = || File::options().write(true).open(&path).ok();
        writeln!(wait::until("the FIFO", fifo), "{command}").expect("a command");
    }

    fn await_line(&self, client: &str, line: &str) {
        wait::within(LIMIT, &format!("{client} to say {line}"), || {
            let said = self.said(client);
            let runs = fs::read_link(format!("/proc/{}/exe", self.pid)).is_ok();
            assert!(runs && !said.contains("ERROR"), "{client}: {said}\n{}", self.read("log"));
            said.lines().any(|found| found == line).then_some(())
        });
    }

    /// Begins an insertion that takes long, and returns in the middle of it.
    fn insert(&self, table: &str) {
        self.tell("two", &format!("BEGIN; INSERT INTO {table} {} SELECT 'inserted {table}';", fill(MANY_ROWS)));
        let size = || fs::metadata(self.directory.join(format!("data/d/{table}.ibd"))).map_or(0, |meta| meta.len());
        wait::within(LIMIT, "the table to grow inside the transaction", || (size() > 4 << 20).then_some(()));
    }

    fn is_inserting(&self, table: &str) -> bool {
        !self.said("two").contains(&format!("inserted {table}"))
    }

    /// Commits, and has the server look through the table.
    fn assert_whole(&self, client: &str, table: &str, rows: u64) {
        self.tell(client, &format!("COMMIT; CHECK TABLE {table} EXTENDED;"));
        self.await_line(client, &format!("d.{table}\tcheck\tstatus\tOK"));
        self.tell(client, &format!("SELECT '{table}', count(*) = {rows}, sum(v = md5(k)) = {rows} FROM {table};"));
        self.await_line(client, &format!("{table}\t1\t1"));
    }
}

fn fill(rows: u64) -> String {
    format!("SELECT seq, md5(seq) FROM seq_1_to_{rows};")
}

#[test]
fn exam_1_transactions_of_mariadb_go_on_after_a_dump_and_after_kill_and_restore() {
    isolated_for(LIMIT, |room| {
        let tree = Tree::start(room);
        for table in ["a", "b", "c"] {
            tree.tell("one", &format!("CREATE TABLE {table}(k INT PRIMARY KEY, v CHAR(32)) ENGINE=InnoDB;"));
        }
        tree.tell("one", &format!("BEGIN; INSERT INTO a {} SELECT 'inserted a';", fill(ROWS)));
        tree.await_line("one", "inserted a");
        tree.insert("b");
        // Whatever is in flight is waited for.
        let image = room.dump(tree.pid, "killed.snap", &["--kill", "--timeout", "60"]);
        wait::alone();
        assert!(tree.is_inserting("b"), "the insertion was over before the dump");
        assert_eq!(room.restore(&image, &[]), tree.pid);
        tree.await_line("two", "inserted b");
        tree.assert_whole("one", "a", ROWS);
        tree.assert_whole("two", "b", MANY_ROWS);
        tree.insert("c");
        room.dump(tree.pid, "living.snap", &["--timeout", "60"]);
        tree.await_line("two", "inserted c");
        tree.assert_whole("two", "c", MANY_ROWS);
        assert!(tree.read("log").contains("Using Linux native AIO"), "{}", tree.read("log"));
        tree.tell("one", "\\q");
        tree.tell("two", "SHUTDOWN;\n\\q");
        let end = wait::gone_within(tree.pid, LIMIT);
        let log = tree.read("log");
        assert!(matches!(end, Some(WaitStatus::Exited(_, 0))), "ended with {end:?}: {log}");
        assert!(log.contains("Shutdown complete") && !log.contains("[ERROR]"), "{log}");
    });
}
