//! The cluster's feature level: which commands may be in its log.
//!
//! Each node says to which level it goes, with its first word on each connection. The leader raises the replicated level
//! once every member goes further: voters and learners, each connected and heard since this node leads. It never falls. A
//! write that needs more is held back for as long as the members may be about to reach it, and refused as soon as one is known
//! not to; where it was raised, no node needs to ask again.

use super::event::{Effect, Tickets};
use super::handle::WriteError;
use super::writes::Waiting;
use super::{Engine, directory};
use balsa_raft::{Index, NodeId};
use balsa_store::command::{self, Operation, SetFeatureLevel};
use balsa_store::{FIRST_LEVEL, Outlook};

/// What this node knows of levels.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// What the applied state means to a leader, the level among it.
    outlook: Outlook,
    /// Proposed to raise it, at this entry; one at a time.
    raising: Option<Index>,
}

impl Levels {
    /// Of a state that was applied.
    pub(super) fn new(outlook: Outlook) -> Levels {
        Levels { outlook, raising: None }
    }
}

impl<T: Tickets> Engine<T> {
    /// What the applied state means to a leader.
    pub(super) fn outlook(&self) -> &Outlook {
        &self.levels.outlook
    }

    /// The replicated level, as far as this node has applied.
    pub(super) fn level(&self) -> u32 {
        self.levels.outlook.feature_level
    }

    /// To which level this node goes: as it was told, but never below what the cluster has reached already.
    pub(super) fn own_level(&self) -> u32 {
        self.config.feature_level.max(self.level())
    }

    /// The store has applied more.
    pub(super) fn note_outlook(&mut self, outlook: Outlook) {
        if outlook.feature_level > self.level() {
            tracing::info!(node = %self.config.id, level = outlook.feature_level, "the cluster's feature level was raised");
            self.status_changed = true;
        }
        self.levels.outlook = outlook;
        self.levels.raising = self.levels.raising.filter(|proposed| *proposed > self.applied);
    }

    /// Another term, or another leader: what was proposed may be lost.
    pub(super) fn forget_raising(&mut self) {
        self.levels.raising = None;
    }

    /// As leader: raises the level to what all members reach. Not before all is applied that was there when it took over: that
    /// may have raised it.
    pub(super) fn maybe_raise_level(&mut self) {
        if !self.raft.is_leader() || self.levels.raising.is_some() || self.raft.is_changing_membership() {
            return;
        }
        if self.raft.term_at(self.applied) != Some(self.raft.term()) {
            return;
        }
        let reached = |member: &directory::Member| self.level_here_and_now(NodeId(member.id));
        let level = self.directory.members.iter().map(reached).min().unwrap_or(FIRST_LEVEL);
        if level > self.level() {
            self.levels.raising = self.propose_own(Operation::SetFeatureLevel(SetFeatureLevel { level }));
        }
    }

    /// To which level a member goes, if it is there now; else the first.
    fn level_here_and_now(&self, id: NodeId) -> u32 {
        let is_here =
            id == self.config.id || (self.connected.contains(&id) && self.was_heard_while_leading(id));
        self.told_level(id).filter(|_| is_here).unwrap_or(FIRST_LEVEL)
    }

    /// To which level a member goes, as it last told.
    pub(super) fn told_level(&self, id: NodeId) -> Option<u32> {
        if id == self.config.id {
            return Some(self.own_level());
        }
        self.told_build(id).map(|build| build.feature_level.max(FIRST_LEVEL))
    }

    /// Whether a command must not be in the log yet.
    pub(super) fn lacks_level(&self, command: &[u8]) -> bool {
        command::level_of(command) > self.level()
    }

    /// A write that needs a level that the cluster has not reached: it waits, unless somebody is known to hold that back.
    pub(super) fn hold_for_level(&mut self, write: Waiting<T>) {
        let needed = command::level_of(&write.command);
        let held_by = self.held_by(|told| told.is_some_and(|told| told < needed));
        if held_by.is_empty() {
            return self.writes.wait(write);
        }
        let error = write.failure(WriteError::FeatureLevel { needed, level: self.level(), held_by });
        self.effects.push(Effect::AnswerWrite(write.ticket, Err(error)));
    }

    /// Why a write met its deadline where it waited.
    pub(super) fn waited_for(&self, command: &[u8]) -> WriteError {
        let needed = command::level_of(command);
        if needed <= self.level() || self.raft.leader().is_none() {
            return WriteError::NoLeader;
        }
        let held_by = self.held_by(|told| told.is_none_or(|told| told < needed));
        WriteError::FeatureLevel { needed, level: self.level(), held_by }
    }

    /// The members of which this holds, for a person.
    fn held_by(&self, holds: impl Fn(Option<u32>) -> bool) -> String {
        let held = (self.directory.members.iter()).filter_map(|member| {
            let id = NodeId(member.id);
            let told = self.told_level(id);
            let reach = told.map_or("was not heard yet".to_string(), |level| format!("reaches {level}"));
            holds(told).then(|| format!("{id} in slot {} {reach}", member.slot))
        });
        held.collect::<Vec<_>>().join(", ")
    }
}
