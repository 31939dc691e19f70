//! What the interpreter is given: code, stacks, tasks, data and lists of operations, laid out at fixed addresses.
//!
//! Pure: addresses are computed, nothing is mapped. Every operation carries a [`Label`], so that a failure is named.

use crate::image::model::address::{Addr, PAGE_SIZE, PageRange};
use protocol::{Op, Task, check, pseudo};
use std::fmt;

/// Bytes of stack for each thread; the interpreter uses less than 512.
const STACK: u64 = 2048;

/// What an operation is for, in words made only when somebody reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// A fixed text.
    Text(&'static str),
    /// Something done to a range.
    Range(&'static str, PageRange),
    /// Something done with a number, such as a descriptor or a signal.
    Number(&'static str, i64),
    /// A text made for it.
    Owned(String),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Range(text, range) => write!(f, "{text} {range}"),
            Self::Number(text, number) => write!(f, "{text} {number}"),
            Self::Owned(text) => f.write_str(text),
        }
    }
}

impl From<&'static str> for Label {
    fn from(text: &'static str) -> Self {
        Self::Text(text)
    }
}

/// The operations of one thread.
#[derive(Clone, Debug, Default)]
pub struct List {
    ops: Vec<Op>,
    labels: Vec<Label>,
}

impl List {
    /// A system call that must not fail.
    pub fn call(&mut self, label: impl Into<Label>, nr: i64, args: &[u64]) {
        self.push(label.into(), op(nr as u32, check::NON_NEGATIVE, 0, args));
    }

    /// A system call that must return `expect`.
    pub fn call_equals(&mut self, label: impl Into<Label>, nr: i64, args: &[u64], expect: u64) {
        self.push(label.into(), op(nr as u32, check::EQUALS, expect as i64, args));
    }

    /// A system call whose result does not matter.
    pub fn try_call(&mut self, label: impl Into<Label>, nr: i64, args: &[u64]) {
        self.push(label.into(), op(nr as u32, check::ANY, 0, args));
    }

    /// A system call of whose arguments those with a bit in `indirect` are loaded from the addresses given; its result
    /// does not matter.
    pub fn try_call_indirect(&mut self, label: impl Into<Label>, nr: i64, args: &[u64], indirect: u16) {
        self.push(label.into(), Op { indirect, ..op(nr as u32, check::ANY, 0, args) });
    }

    /// A system call that must not fail and whose result is stored as an `i64`.
    pub fn call_stored(&mut self, label: impl Into<Label>, nr: i64, args: &[u64], store: Addr) {
        self.push(label.into(), Op { store: store.0, ..op(nr as u32, check::NON_NEGATIVE, 0, args) });
    }

    /// A system call that must not fail, of whose arguments those with a bit in `indirect` are loaded from the addresses given.
    pub fn call_indirect(&mut self, label: impl Into<Label>, nr: i64, args: &[u64], indirect: u16) {
        self.push(label.into(), Op { indirect, ..op(nr as u32, check::NON_NEGATIVE, 0, args) });
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds 1 to a word and wakes who waits for it.
    pub fn arrive(&mut self, label: impl Into<Label>, word: Addr) {
        self.push(label.into(), op(pseudo::ADD, check::ANY, 0, &[word.0, 1]));
    }

    /// The words at two addresses must be equal.
    pub fn same(&mut self, label: impl Into<Label>, words: [Addr; 2]) {
        let [one, other] = words;
        self.push(label.into(), Op { indirect: 0b11, ..op(pseudo::SAME, check::EQUALS, 0, &[one.0, other.0]) });
    }

    /// Stores a word.
    pub fn store(&mut self, label: impl Into<Label>, at: Addr, word: u64) {
        self.push(label.into(), op(pseudo::STORE, check::ANY, 0, &[at.0, word]));
    }

    /// Uses an AMX tile.
    pub fn use_tile(&mut self, label: impl Into<Label>) {
        self.push(label.into(), op(pseudo::USE_TILE, check::ANY, 0, &[]));
    }

    /// Copies bytes.
    pub fn copy(&mut self, label: impl Into<Label>, to: Addr, from: Addr, len: u64) {
        self.push(label.into(), op(pseudo::COPY, check::ANY, 0, &[to.0, from.0, len]));
    }

    /// Waits until `all` have come to this meeting, whose two words are given.
    pub fn meet(&mut self, label: impl Into<Label>, [word, gate]: [Addr; 2], all: u32) {
        let label = label.into();
        self.push(label.clone(), op(pseudo::MEET, check::ANY, 0, &[word.0, u64::from(all), gate.0]));
        self.push(label, op(pseudo::WAIT, check::ANY, 0, &[gate.0, 1]));
    }

    /// Waits until a word has reached `value`.
    pub fn wait(&mut self, label: impl Into<Label>, word: Addr, value: u32) {
        self.push(label.into(), op(pseudo::WAIT, check::ANY, 0, &[word.0, u64::from(value)]));
    }

    /// Starts a thread on its task; its id must be `tid`.
    pub fn spawn(&mut self, label: impl Into<Label>, clone_args: Addr, size: u64, task: Addr, tid: i32) {
        self.push(label.into(), op(pseudo::SPAWN, check::EQUALS, i64::from(tid), &[clone_args.0, size, task.0]));
    }

    /// Starts a process on its task, under any id, which is stored as an `i64`.
    pub fn spawn_any(&mut self, label: impl Into<Label>, clone_args: Addr, size: u64, task: Addr, store: Addr) {
        let op = op(pseudo::SPAWN, check::NON_NEGATIVE, 0, &[clone_args.0, size, task.0]);
        self.push(label.into(), Op { store: store.0, ..op });
    }

    /// Waits until its parent is `parent` and no longer the process whose id is stored.
    pub fn adopted(&mut self, label: impl Into<Label>, parent: i32, midwife: Addr) {
        let op = op(pseudo::ADOPTED, check::NON_NEGATIVE, 0, &[parent as u64, midwife.0]);
        self.push(label.into(), Op { indirect: 0b10, ..op });
    }

    /// Appends another list.
    pub fn append(&mut self, mut other: Self) {
        self.ops.append(&mut other.ops);
        self.labels.append(&mut other.labels);
    }

    /// What operation `index` is for.
    #[must_use]
    pub fn label(&self, index: usize) -> Option<&Label> {
        self.labels.get(index)
    }

    /// All labels in order.
    pub fn labels(&self) -> impl Iterator<Item = &Label> {
        self.labels.iter()
    }

    fn push(&mut self, label: Label, op: Op) {
        self.labels.push(label);
        self.ops.push(op);
    }
}

fn op(nr: u32, check: u16, expect: i64, values: &[u64]) -> Op {
    let mut args = [0; 6];
    args[..values.len()].copy_from_slice(values);
    Op { nr, check, indirect: 0, expect, store: 0, args }
}

/// Memory under construction.
#[derive(Clone, Debug)]
pub struct Script {
    base: Addr,
    stacks: Addr,
    data_start: Addr,
    data: Vec<u8>,
    tasks: Vec<Addr>,
}

impl Script {
    /// A script at `base` for so many threads, behind `code_len` bytes of interpreter.
    #[must_use]
    pub fn new(base: Addr, code_len: usize, threads: usize) -> Self {
        let stacks = base.add(page_up(code_len as u64));
        let data_start = Addr(page_up(stacks.0 + threads as u64 * STACK));
        let mut script = Self { base, stacks, data_start, data: Vec::new(), tasks: Vec::new() };
        script.tasks = (0..threads).map(|_| script.place(&[0; size_of::<Task>()])).collect();
        script
    }

    /// Where the interpreter's entry is.
    #[must_use]
    pub const fn code(&self) -> Addr {
        self.base
    }

    /// Places bytes, aligned to 16.
    pub fn place(&mut self, bytes: &[u8]) -> Addr {
        self.data.resize(self.data.len().next_multiple_of(16), 0);
        let addr = self.data_start.add(self.data.len() as u64);
        self.data.extend_from_slice(bytes);
        addr
    }

    /// Places words.
    pub fn place_words(&mut self, words: &[u64]) -> Addr {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.place(&bytes)
    }

    /// Places a string with its terminator.
    pub fn place_string(&mut self, text: &[u8]) -> Addr {
        let mut bytes = text.to_vec();
        bytes.push(0);
        self.place(&bytes)
    }

    /// The task of thread `index`.
    #[must_use]
    pub fn task(&self, index: usize) -> Addr {
        self.tasks[index]
    }

    /// How many tasks there are.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Lowest address and length of the stack of thread `index`.
    #[must_use]
    pub fn stack(&self, index: usize) -> (Addr, u64) {
        (self.stacks.add(index as u64 * STACK), STACK)
    }

    /// Lays out the lists, one for each thread, behind the data.
    #[must_use]
    pub fn finish(mut self, lists: &[List]) -> Image {
        for (index, list) in lists.iter().enumerate() {
            let mut bytes = Vec::with_capacity(list.ops.len() * size_of::<Op>());
            list.ops.iter().for_each(|op| encode(op, &mut bytes));
            let ops = self.place(&bytes);
            let at = (self.tasks[index].0 - self.data_start.0) as usize;
            self.data[at..at + 8].copy_from_slice(&ops.0.to_le_bytes());
            self.data[at + 8..at + 16].copy_from_slice(&(list.ops.len() as u64).to_le_bytes());
        }
        let end = page_up(self.data_start.0 + self.data.len() as u64);
        Image { range: PageRange::new(self.base.0, end), data_start: self.data_start, data: self.data }
    }
}

/// A finished script.
#[derive(Clone, Debug)]
pub struct Image {
    /// All of its memory.
    pub range: PageRange,
    /// Where [`Image::data`] belongs.
    pub data_start: Addr,
    /// Tasks, data and operations.
    pub data: Vec<u8>,
}

/// `struct Op` as it lies in memory.
fn encode(op: &Op, out: &mut Vec<u8>) {
    out.extend_from_slice(&op.nr.to_le_bytes());
    out.extend_from_slice(&op.check.to_le_bytes());
    out.extend_from_slice(&op.indirect.to_le_bytes());
    out.extend_from_slice(&op.expect.to_le_bytes());
    out.extend_from_slice(&op.store.to_le_bytes());
    for arg in op.args {
        out.extend_from_slice(&arg.to_le_bytes());
    }
}

/// Rounds up to a whole page.
#[must_use]
pub const fn page_up(value: u64) -> u64 {
    value.next_multiple_of(PAGE_SIZE)
}
