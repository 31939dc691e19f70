//! `snap inspect FILE tree`: processes and threads.

use super::json::Raw;
use super::names::signals;
use super::{Report, text, threads};
use crate::image::model::Snapshot;
use crate::image::model::id::Pid;
use crate::image::model::process::{Process, ProcessState, Zombie};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

/// The report: processes in the order of the image, parents before their children.
#[derive(Debug, Serialize)]
pub struct Tree {
    schema: &'static str,
    processes: Vec<Node>,
    zombies: Vec<Ended>,
}

#[derive(Debug, Serialize)]
struct Node {
    pid: i32,
    ppid: i32,
    pgid: i32,
    sid: i32,
    exit_signal: Option<String>,
    state: &'static str,
    stopped_by: Option<String>,
    stop_waited_for: bool,
    memory: u32,
    handlers: u32,
    ended_leader: Option<EndedLeader>,
    argv: Vec<Raw>,
    oom_score_adj: i32,
    child_subreaper: bool,
    cgroups: Vec<String>,
    threads: Vec<Leaf>,
}

#[derive(Debug, Serialize)]
struct Leaf {
    tid: i32,
    name: Raw,
    fd_table: u32,
    fs: u32,
    undo_list: Option<u32>,
    io_context: Option<u32>,
    syscall: Option<String>,
}

#[derive(Debug, Serialize)]
struct EndedLeader {
    name: Raw,
    exit_code: i32,
}

#[derive(Debug, Serialize)]
struct Ended {
    pid: i32,
    ppid: i32,
    pgid: i32,
    sid: i32,
    name: Raw,
    exit_signal: Option<String>,
    exit_code: Option<i32>,
    killed_by: Option<String>,
    core_dumped: bool,
    uid: u32,
    user_ns: u64,
    system_ns: u64,
}

/// Makes it.
#[must_use]
pub fn report(snapshot: &Snapshot) -> Tree {
    Tree {
        schema: "snap.inspect.tree/1",
        processes: snapshot.processes.iter().map(node).collect(),
        zombies: snapshot.zombies.iter().map(ended).collect(),
    }
}

/// What wait(2) stores, taken apart.
fn ended(zombie: &Zombie) -> Ended {
    const CORE: i32 = 0x80;
    let signal = zombie.status & 0x7f;
    Ended {
        pid: zombie.pid.0,
        ppid: zombie.ppid.0,
        pgid: zombie.pgid.0,
        sid: zombie.sid.0,
        name: Raw(zombie.comm.clone()),
        exit_signal: exit_signal(zombie.exit_signal),
        exit_code: (signal == 0).then_some(zombie.status >> 8),
        killed_by: (signal != 0).then(|| signals::name(signal)),
        core_dumped: signal != 0 && zombie.status & CORE != 0,
        uid: zombie.uid,
        user_ns: zombie.cpu_time[0],
        system_ns: zombie.cpu_time[1],
    }
}

fn exit_signal(signal: i32) -> Option<String> {
    (signal != 0).then(|| signals::name(signal))
}

fn node(process: &Process) -> Node {
    let (state, stopped_by) = match process.state {
        ProcessState::Running => ("running", None),
        ProcessState::Continued => ("continued", None),
        ProcessState::Stopped { signal, waited: _ } => ("stopped", Some(signals::name(signal))),
    };
    Node {
        pid: process.pid.0,
        ppid: process.ppid.0,
        pgid: process.pgid.0,
        sid: process.sid.0,
        exit_signal: exit_signal(process.exit_signal),
        state,
        stopped_by,
        stop_waited_for: matches!(process.state, ProcessState::Stopped { signal: _, waited: true }),
        memory: process.mm.0,
        handlers: process.handlers.0,
        ended_leader: process
            .ended_leader
            .as_ref()
            .map(|leader| EndedLeader { name: Raw(leader.comm.clone()), exit_code: leader.status >> 8 }),
        argv: process.argv.iter().cloned().map(Raw).collect(),
        oom_score_adj: process.oom_score_adj,
        child_subreaper: process.child_subreaper,
        cgroups: process.cgroups.clone(),
        threads: process
            .threads
            .iter()
            .map(|thread| Leaf {
                tid: thread.tid.0,
                name: Raw(thread.comm.clone()),
                fd_table: thread.fd_table.0,
                fs: thread.fs.0,
                undo_list: thread.undo_list.map(|id| id.0),
                io_context: thread.io_context.map(|id| id.0),
                syscall: thread.blocked.as_ref().map(|blocked| threads::syscall_name(blocked.number)),
            })
            .collect(),
    }
}

impl Report for Tree {
    fn text(&self, _: Option<u16>) -> String {
        let known: HashSet<i32> = self.processes.iter().map(|node| node.pid).collect();
        let mut children: HashMap<i32, Vec<usize>> = HashMap::new();
        let mut pending: Vec<(usize, usize)> = Vec::new();
        for (index, node) in self.processes.iter().enumerate().rev() {
            // A process that names itself as its parent is hostile: it stands at the top.
            if known.contains(&node.ppid) && node.ppid != node.pid {
                children.entry(node.ppid).or_default().push(index);
            } else {
                pending.push((index, 0));
            }
        }
        let mut ended: HashMap<i32, Vec<&Ended>> = HashMap::new();
        for zombie in &self.zombies {
            ended.entry(zombie.ppid).or_default().push(zombie);
        }
        let mut out = String::new();
        while let Some((index, depth)) = pending.pop() {
            let node = &self.processes[index];
            write_node(&mut out, node, depth);
            ended.remove(&node.pid).into_iter().flatten().for_each(|zombie| write_ended(&mut out, zombie, depth + 1));
            // Removed when taken, so that a circle ends.
            pending.extend(children.remove(&node.pid).into_iter().flatten().map(|child| (child, depth + 1)));
        }
        out
    }
}

fn write_node(out: &mut String, node: &Node, depth: usize) {
    let indent = "  ".repeat(depth.min(40));
    let leader = node.ended_leader.as_ref().map(|leader| &leader.name);
    let name = leader.or(node.threads.first().map(|main| &main.name)).map_or_else(String::new, Raw::printable);
    let argv = node.argv.iter().map(Raw::printable).collect::<Vec<_>>().join(" ");
    let stop = node.stopped_by.as_ref().map_or_else(String::new, |signal| format!(", stopped by {signal}"));
    let _ = writeln!(
        out,
        "{indent}{} {name}  (parent {}, group {}, session {}{stop})",
        Pid(node.pid),
        node.ppid,
        node.pgid,
        node.sid
    );
    let _ = writeln!(out, "{indent}  {argv}");
    if let Some(leader) = &node.ended_leader {
        let _ = writeln!(out, "{indent}  - {} {}  ended with {}", node.pid, leader.name.printable(), leader.exit_code);
    }
    for thread in &node.threads {
        let doing = thread.syscall.as_deref().map_or("computing".to_owned(), |name| format!("in {name}"));
        let _ =
            writeln!(out, "{indent}  - {} {}  {}", thread.tid, thread.name.printable(), text::escape_controls(&doing));
    }
}

fn write_ended(out: &mut String, zombie: &Ended, depth: usize) {
    let indent = "  ".repeat(depth.min(40));
    let end = match (&zombie.exit_code, &zombie.killed_by) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("killed by {signal}"),
        (None, None) => "ended".to_owned(),
    };
    let _ = writeln!(out, "{indent}{} {}  {end}, not reaped", Pid(zombie.pid), zombie.name.printable());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::sample::snapshot;

    #[test]
    fn children_stand_below_their_parents() {
        let mut snapshot = snapshot();
        let mut child = snapshot.processes[0].clone();
        (child.pid, child.ppid, child.state) =
            (Pid(110), Pid(100), ProcessState::Stopped { signal: 19, waited: false });
        child.threads.truncate(1);
        snapshot.processes.push(child);
        insta::assert_snapshot!(report(&snapshot).text(None), @r"
        100 sample  (parent 1, group 100, session 1)
          sample
          - 100 sample  in nanosleep
          - 101 sample  in nanosleep
          102 ended  exited with 3, not reaped
          110 sample  (parent 100, group 100, session 1, stopped by SIGSTOP)
            sample
            - 100 sample  in nanosleep
        ");
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let mut snapshot = snapshot();
        snapshot.processes[0].ppid = Pid(100);
        let mut other = snapshot.processes[0].clone();
        (other.pid, other.ppid) = (Pid(7), Pid(8));
        snapshot.processes.push(other.clone());
        (other.pid, other.ppid) = (Pid(8), Pid(7));
        snapshot.processes.push(other);
        assert!(report(&snapshot).text(None).starts_with("100 sample"));
    }
}
