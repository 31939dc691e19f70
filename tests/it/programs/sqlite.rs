//! sqlite3 in the middle of a long transaction.

use crate::support::{Room, isolated_for, wait};
use nix::sys::wait::WaitStatus;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);
const ROWS: u64 = 1_500_000;

/// One transaction that inserts and then changes every row; the cache is so small that the database file grows meanwhile.
fn start(room: &Room, database: &Path) -> i32 {
    let script = room.path("script.sql");
    let text = format!(
        "PRAGMA cache_size=100;\nCREATE TABLE t(k INTEGER PRIMARY KEY, v TEXT);\nINSERT INTO t VALUES(0, 'before');\nBEGIN;\n\
         INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {ROWS}) SELECT x, hex(x * x) FROM c;\n\
         UPDATE t SET v = v || '!';\nCOMMIT;\n"
    );
    fs::write(&script, text).expect("the script");
    #[allow(
        clippy::zombie_processes,
        reason = "reaped by its pid, under which a restore brings it back as another child"
    )]
    let child = Command::new("sqlite3")
        .arg(database)
        .env("HOME", "/nonexistent")
        .stdin(File::open(&script).expect("the script"))
        .stdout(Stdio::null())
        .stderr(File::create(room.path("sqlite.stderr")).expect("a file"))
        .process_group(0)
        .spawn()
        .expect("sqlite3");
    child.id() as i32
}

fn query(database: &Path, query: &str) -> String {
    let output = Command::new("sqlite3").arg(database).arg(query).output().expect("sqlite3");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn assert_whole(database: &Path) {
    assert_eq!(query(database, "PRAGMA integrity_check"), "ok");
    let sound = format!("SELECT count(*) = {ROWS} + 1 AND sum(v = hex(k * k) || '!') = {ROWS} FROM t");
    assert_eq!(query(database, &sound), "1", "rows are missing or wrong");
}

fn ends_well(room: &Room, pid: i32) {
    let end = wait::gone_within(pid, LIMIT);
    let said = fs::read_to_string(room.path("sqlite.stderr")).unwrap_or_default();
    assert!(matches!(end, Some(WaitStatus::Exited(_, 0))), "sqlite3 ended with {end:?}: {said}");
}

fn at_work(database: &Path) {
    let grown = || (fs::metadata(database).map_or(0, |meta| meta.len()) > 4 << 20).then_some(());
    wait::until("the database to grow inside the transaction", grown);
}

#[test]
fn a_transaction_goes_on_after_kill_and_restore() {
    isolated_for(LIMIT, |room| {
        let database = room.path("test.db");
        let pid = start(room, &database);
        at_work(&database);
        let image = room.dump(pid, "killed.snap", &["--kill"]);
        wait::gone(pid);
        assert_eq!(room.restore(&image, &[]), pid);
        ends_well(room, pid);
        assert_whole(&database);
    });
}

/// The image of a transaction that has meanwhile been committed must not be let loose on the database again.
#[test]
fn a_transaction_goes_on_after_a_dump_and_its_image_is_refused_later() {
    isolated_for(LIMIT, |room| {
        let database = room.path("test.db");
        let pid = start(room, &database);
        at_work(&database);
        let image = room.dump(pid, "living.snap", &[]);
        ends_well(room, pid);
        assert_whole(&database);
        let run = room.snap(["restore", "--detach"]).arg(&image).run();
        assert!(run.code == Some(3) || run.code == Some(7), "the restore over a changed database: {run}");
        assert!(run.stderr.contains("test.db"), "the changed file is not named: {run}");
        assert_whole(&database);
    });
}
