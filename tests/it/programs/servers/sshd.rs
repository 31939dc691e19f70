//! sshd with live sessions: of root, who has a terminal, and of a user whose session is served without privilege.

use super::{PORT, ended, script, start};
use crate::programs::dialogue::Dialogue;
use crate::programs::interpreters::RESTLESS;
use crate::support::network::own_network;
use crate::support::{Room, Victim, isolated, require_root, wait};
use crate::tree::{members, survives};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Write;
use std::process::Command;

/// Who is in /etc/passwd of the test alone.
const USER: &str = "tester";

/// What a session does: it multiplies.
const LOOP: &str = "echo ready; while read x; do echo $$ $((x * x)); done";

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// Keys, users, and the configuration of a server.
fn prepare(room: &Room) {
    for key in ["host", "user"] {
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(room.path(key)));
    }
    let path = |name| room.path(name).to_str().expect("text").to_owned();
    let configuration = format!(
        "Port {PORT}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
         PermitRootLogin yes\n",
        path("host"),
        path("user.pub")
    );
    fs::write(room.path("sshd_config"), configuration).expect("a configuration");
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    fs::write(room.path("passwd"), format!("{users}{USER}:x:12345:12345::/:/bin/sh\n")).expect("a file");
    run(Command::new("mount").arg("--bind").arg(room.path("passwd")).arg("/etc/passwd"));
    // Where it locks its helpers up; a service manager would make it.
    fs::create_dir_all("/run/sshd").expect("a directory");
}

fn server(room: &Room) -> i32 {
    prepare(room);
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f"]).arg(room.path("sshd_config"));
    start(room, command)
}

/// A server of one session, and the pid of its shell.
fn server_of_a_terminal(room: &Room) -> (i32, Session, i32) {
    let pid = server(room);
    let mut session = Session::on_a_terminal(room);
    let shell = session.ask();
    await_members(pid, 3);
    (pid, session, shell)
}

/// How ssh is called, up to its options.
fn client(room: &Room, user: &str) -> Vec<String> {
    let key = room.path("user");
    let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "LogLevel=ERROR"];
    let options = options.iter().map(|option| format!("-o{option}"));
    let words = ["ssh", "-F", "none", "-p", &PORT.to_string(), "-i", key.to_str().expect("text")].map(str::to_owned);
    words.into_iter().chain(options).chain([format!("{user}@127.0.0.1")]).collect()
}

/// A client outside with its session.
struct Session {
    client: Dialogue,
    number: u64,
}

impl Session {
    fn start(room: &Room, user: &str, more: &[&str], command: &str) -> Self {
        let words = client(room, user);
        let mut ssh = Command::new(&words[0]);
        ssh.args(&words[1..]).args(more).arg(command);
        let mut client = Dialogue::start(ssh);
        assert_eq!(client.line(), "ready");
        Self { client, number: 1000 }
    }

    /// With a terminal there.
    fn on_a_terminal(room: &Room) -> Self {
        Self::start(room, "root", &["-tt"], &format!("stty -echo; {LOOP}"))
    }

    /// The pid of the shell, which has multiplied rightly.
    fn ask(&mut self) -> i32 {
        self.number += 1;
        let line = self.client.ask(&self.number.to_string());
        let (pid, square) = line.split_once(' ').unwrap_or_else(|| panic!("the answer is `{line}`"));
        assert_eq!(square, (self.number * self.number).to_string());
        pid.parse().expect("a pid")
    }

    /// Waits for its end without having told of it.
    fn has_ended(mut self) {
        assert!(wait::exit_of(&mut self.client.child, wait::PATIENCE).is_some(), "the client holds its connection");
    }
}

/// What has to do with connections that are no sessions has ended.
fn await_members(pid: i32, count: usize) -> Vec<i32> {
    wait::until("no more than the sessions", || Some(members(pid)).filter(|members| members.len() == count))
}

fn killed_and_restored(room: &Room, pid: i32, more: &[&str]) {
    let processes = members(pid);
    let image = room.dump(pid, "killed.snap", &[&["--kill"], more].concat());
    for pid in processes {
        wait::gone(pid);
    }
    assert_eq!(room.restore(&image, &[]), pid);
}

fn end(pid: i32) {
    let processes = members(pid);
    for pid in &processes {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    processes.into_iter().for_each(ended);
}

#[test]
fn sshd_with_live_sessions() {
    isolated(|room| {
        require_root!("sshd changes users");
        own_network();
        let pid = server(room);
        let mut sessions = [Session::on_a_terminal(room), Session::start(room, USER, &[], LOOP)];
        let shells = sessions.each_mut().map(Session::ask);
        // One process for the session of root, two for the other, and their shells.
        await_members(pid, 6);
        room.dump(pid, "running.snap", &[]);
        assert_eq!(sessions.each_mut().map(Session::ask), shells);
        killed_and_restored(room, pid, &["--tcp", "keep"]);
        assert_eq!(sessions.each_mut().map(Session::ask), shells);
        Session::start(room, USER, &[], LOOP).ask();
        end(pid);
    });
}

#[test]
fn sshd_with_a_session_that_is_refused_or_given_up() {
    isolated(|room| {
        require_root!("sshd changes users");
        own_network();
        let (pid, mut session, shell) = server_of_a_terminal(room);
        let dump = |more: &[&str]| room.snap(["dump", &pid.to_string(), "-o", "x.snap"]).args(more).run();
        dump(&["--tcp", "refuse"]).expect(3).says("127.0.0.1");
        assert_eq!(session.ask(), shell);
        let idle = room.path("later.snap");
        room.dump(pid, "later.snap", &["--tcp", "close"]);
        assert_eq!(session.ask(), shell);
        killed_and_restored(room, pid, &["--tcp", "close"]);
        session.has_ended();
        await_members(pid, 1);
        Session::start(room, "root", &[], LOOP).ask();
        end(pid);
        // The shell whose session has ended too.
        wait::alone();
        assert_eq!(room.restore(&idle, &["--files", "truncate"]), pid);
        await_members(pid, 1);
        Session::start(room, "root", &[], LOOP).ask();
        end(pid);
    });
}

/// Whoever has not said who he is is served by a process in an empty root directory, whose seccomp filter kills it for almost anything.
#[test]
fn sshd_with_somebody_at_the_door_is_refused() {
    isolated(|room| {
        require_root!("sshd changes users");
        own_network();
        let (pid, mut session, shell) = server_of_a_terminal(room);
        let mut stranger = super::connect(PORT);
        stranger.write_all(b"SSH-2.0-stranger\r\n").expect("a greeting");
        let locked_up = await_members(pid, 5)[4];
        wait::until("its filter", || (crate::support::facts::status(locked_up, "Seccomp") == "2").then_some(()));
        for fate in ["--leave-running", "--kill"] {
            let run = room.snap(["dump", fate, &pid.to_string(), "-o", "x.snap"]).run().expect(3);
            run.says(&format!("tid {locked_up}")).says("seccomp filter");
            assert_eq!(session.ask(), shell);
        }
        drop(stranger);
        await_members(pid, 3);
        killed_and_restored(room, pid, &[]);
        assert_eq!(session.ask(), shell);
        end(pid);
    });
}

#[test]
fn sshd_and_its_clients_in_one_tree() {
    isolated(|room| {
        require_root!("sshd changes users");
        own_network();
        prepare(room);
        let directory = Victim::directory_in(room, "ssh");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script("ssh.py")).arg(&directory).arg(room.path("sshd_config")).args(client(room, "root"));
        survives(room, Victim::start_command(command, directory), RESTLESS);
    });
}
