//! A row of the tables of options: what it is called, when it is set, what that takes.

/// When an option is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// As soon as the socket exists: bind(2), connect(2) and what arrives depend on it.
    Made,
    /// Once it has its names and, where it is to have one, its connection: these would change it, or it is refused before.
    Named,
    /// Once its queues are filled: it would get in the way.
    Filled,
}

/// One option that is read and set again.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// SOL_SOCKET, IPPROTO_IP and the like.
    pub level: i32,
    /// The option.
    pub name: i32,
    /// What programs call it.
    pub title: &'static str,
    /// When it is set.
    pub moment: Moment,
    /// The capabilities of which one lets it be set; empty where everybody may.
    pub takes: &'static str,
    /// Whether the kernel, or the making of a socket, changes it of some sockets and not of others that are like them.
    pub restless: bool,
}

/// A row that is set when the socket is made.
pub const fn row(level: i32, name: i32, title: &'static str) -> Row {
    Row { level, name, title, moment: Moment::Made, takes: "", restless: false }
}

impl Row {
    /// Set at another moment.
    pub const fn at(self, moment: Moment) -> Self {
        Self { moment, ..self }
    }

    /// Changed by the kernel: by addresses, by what comes and goes, by what waits.
    pub const fn restless(self) -> Self {
        Self { restless: true, ..self }
    }

    /// Refused to those without this.
    pub const fn takes(self, takes: &'static str) -> Self {
        Self { takes, ..self }
    }
}
