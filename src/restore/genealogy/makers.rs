//! Who can make whom: somebody in the right session, who has what is to be shared, and whose child becomes the right parent's.

use super::records::{Record, Records};
use super::shares::Shares;
use super::{Being, Moment};
use crate::image::model::id::Pid;
use std::collections::HashMap;

impl Records<'_> {
    /// Gives each a maker. What is simple comes first: a parent, then a brother, then adoption, then somebody in the place of a dead leader.
    pub(super) fn find_makers(&mut self) {
        self.find_births_before_sessions();
        self.all[0].is_placed = true;
        self.hold(0);
        let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
        loop {
            if self.place_all(|records, index| {
                let is_placed = records.by_parent(index) || records.by_brother(index, &children);
                if let Some(parent) = records.all[index].parent.filter(|_| is_placed) {
                    children.entry(parent).or_default().push(index);
                }
                is_placed
            }) {
                continue;
            }
            if self.place_all(|records, index| records.by_descendant(index)) {
                continue;
            }
            match self.add_stand_in() {
                Some((stand_in, parent)) => children.entry(parent).or_default().push(stand_in),
                None => break,
            }
        }
        let lost: Vec<usize> = (0..self.all.len()).filter(|index| !self.all[*index].is_placed).collect();
        lost.into_iter().for_each(|index| self.give_up(index));
    }

    /// Tries this for everybody who has no maker and whose parent has one; whether it helped anybody.
    fn place_all(&mut self, mut place: impl FnMut(&mut Self, usize) -> bool) -> bool {
        let mut has_helped = false;
        for index in 1..self.all.len() {
            let Record { is_placed, parent: Some(parent), .. } = self.all[index] else { continue };
            if !is_placed && self.all[parent].is_placed && place(self, index) {
                self.hold(index);
                has_helped = true;
            }
        }
        has_helped
    }

    fn hold(&mut self, index: usize) {
        if let Some(process) = self.process(index) {
            self.held.note(process);
        }
    }

    /// Leaders of sessions whose children are still in the session that they themselves were born in.
    fn find_births_before_sessions(&mut self) {
        for index in (1..self.all.len()).rev() {
            let Record { born_in: Some(session), parent: Some(parent), .. } = self.all[index] else { continue };
            let above = &self.all[parent];
            let may_be_born_there = above.born_in.is_none_or(|other| other == session);
            if above.sid == session || !above.leads() || !may_be_born_there || self.is_led_below(session, parent) {
                continue;
            }
            if self.is_there_above(session, parent) {
                self.all[index].before_session = true;
                self.all[parent].born_in = Some(session);
            }
        }
    }

    /// Whether the leader of a session is a descendant of this one.
    fn is_led_below(&self, session: Pid, ancestor: usize) -> bool {
        self.by_pid.get(&session).is_some_and(|leader| self.is_below(*leader, ancestor))
    }

    /// Whether somebody above this one can be in that session: an ancestor, or whoever leads it elsewhere.
    fn is_there_above(&self, session: Pid, index: usize) -> bool {
        let mut at = Some(index);
        while let Some(above) = at.and_then(|index| self.all[index].parent) {
            if self.all[above].sid == session {
                return true;
            }
            at = Some(above);
        }
        self.outer == Some(session) || self.by_pid.contains_key(&session)
    }

    /// Whether one is a descendant of the other.
    fn is_below(&self, index: usize, ancestor: usize) -> bool {
        let mut at = self.all[index].parent;
        while let Some(above) = at {
            if above == ancestor {
                return true;
            }
            at = self.all[above].parent;
        }
        false
    }

    /// What it would share with this maker; `None` when it shares something with somebody else.
    fn sharing(&self, index: usize, maker: usize) -> Option<Shares> {
        let Some(process) = self.process(index) else { return Some(Shares::default()) };
        self.held.shares(process, self.process(maker)).ok()
    }

    /// Made by its parent.
    fn by_parent(&mut self, index: usize) -> bool {
        let Record { born_in, before_session, parent: Some(parent), .. } = self.all[index] else { return false };
        if !before_session && born_in.is_some_and(|session| session != self.all[parent].sid) {
            return false;
        }
        let moment = if before_session { Moment::BeforeSession } else { Moment::Early };
        self.sharing(index, parent).is_some_and(|shares| self.place(index, parent, moment, shares))
    }

    /// Made by a child of its parent (CLONE_PARENT), which takes the signal of the maker.
    fn by_brother(&mut self, index: usize, children: &HashMap<usize, Vec<usize>>) -> bool {
        let Record { born_in, parent: Some(parent), exit_signal, .. } = self.all[index] else { return false };
        let Some(brothers) = children.get(&parent) else { return false };
        let found = brothers.iter().find_map(|&brother| {
            let other = &self.all[brother];
            if !other.makes() || other.exit_signal != exit_signal {
                return None;
            }
            let moment = match born_in {
                Some(session) if session == other.sid => Moment::Early,
                Some(session) if Some(session) == other.born_in => Moment::BeforeSession,
                Some(_) => return None,
                None => Moment::Early,
            };
            Some((brother, moment, self.sharing(index, brother)?))
        });
        found.is_some_and(|(brother, moment, shares)| self.place(index, brother, moment, shares))
    }

    /// Made, through a midwife, by a descendant of its parent, which adopts it. Whoever was adopted tells of its end by SIGCHLD (kernel/exit.c,
    /// `reparent_leader`).
    fn by_descendant(&mut self, index: usize) -> bool {
        let Record { born_in, parent: Some(parent), exit_signal, .. } = self.all[index] else { return false };
        if exit_signal != libc::SIGCHLD {
            return false;
        }
        let leader = born_in.and_then(|session| self.by_pid.get(&session).copied());
        let mut candidates = leader.into_iter().chain(0..self.all.len());
        let found = candidates.find_map(|maker| {
            let other = &self.all[maker];
            let fits = other.is_placed && other.makes() && born_in.is_none_or(|session| session == other.sid);
            if !fits || !self.is_below(maker, parent) {
                return None;
            }
            let shares = self.sharing(index, maker)?;
            // Somebody without memory of the image has none to share.
            Some((maker, shares))
        });
        let Some((maker, shares)) = found else { return false };
        let midwife = self.midwife(maker, shares);
        let record = &mut self.all[index];
        (record.maker, record.is_adopted, record.is_placed) = (Some(midwife), true, true);
        (record.moment, record.shares) = (Moment::Late, shares);
        true
    }

    /// Notes a maker, unless what they share comes later in the maker's life than the session.
    fn place(&mut self, index: usize, maker: usize, moment: Moment, shares: Shares) -> bool {
        let makers = self.process(maker).map(|process| process.mm);
        let inherits = makers.is_some() && self.inherits_from(index) == makers;
        let moment = match moment {
            Moment::BeforeSession if shares.memory => return false,
            Moment::Early if shares.memory || inherits => Moment::Filled,
            other => other,
        };
        let record = &mut self.all[index];
        (record.maker, record.moment, record.shares, record.is_placed) = (Some(maker), moment, shares, true);
        true
    }

    /// Somebody in the place of a leader that is dead, as a child of the deepest parent that waits for it, so that others can adopt from there.
    fn add_stand_in(&mut self) -> Option<(usize, usize)> {
        let waits = |index: &usize| {
            let record = &self.all[*index];
            let session = record.born_in.filter(|session| Some(*session) != self.outer)?;
            let parent = record.parent.filter(|parent| self.all[*parent].is_placed)?;
            let is_dead = !record.is_placed && !self.by_pid.contains_key(&session) && !record.before_session;
            is_dead.then_some((session, parent))
        };
        let mut waiting = (1..self.all.len()).filter_map(|index| Some((index, waits(&index)?)));
        let (mut index, (session, mut parent)) = waiting.next()?;
        for (other, (its_session, its_parent)) in waiting {
            if its_session == session && self.is_below(its_parent, parent) {
                (index, parent) = (other, its_parent);
            }
        }
        let exit_signal = self.all[index].exit_signal;
        Some((self.stand_in(session, session, parent, exit_signal), parent))
    }

    /// Says why nobody can make it.
    fn give_up(&mut self, index: usize) {
        let Record { parent: Some(parent), born_in, being, .. } = self.all[index] else { return };
        if !self.all[parent].is_placed {
            // Its parent is named already.
            return;
        }
        let strange = self.process(index).and_then(|own| self.held.shares(own, self.process(parent)).err());
        match (strange, born_in) {
            (Some(object), _) => {
                let reason =
                    "it shares it with a process that is not its parent, in a way that clone(2) cannot make again";
                self.block(index, object.name().to_owned(), reason.to_owned());
            }
            (None, Some(session)) => {
                let who = if matches!(being, Being::Zombie(_)) { "it was in it and" } else { "it" };
                let reason = format!("{who} has a parent from which no process of that session descends");
                self.block(index, format!("session {session}"), reason);
            }
            (None, None) => self.block(index, "parent".to_owned(), "nobody can make it".to_owned()),
        }
    }
}
