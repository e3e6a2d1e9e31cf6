//! What a leader knows of one peer, and how it sends to it.
//!
//! ```text
//!            accepted                      rejected, unreachable
//!   Probe ─────────────▶ Replicate ───────────────────────────────▶ Probe
//!     │ next was compacted      │ next was compacted
//!     └────────▶ Snapshot ◀─────┘      Snapshot ── failed, or long not installed ──▶ Probe
//!                    └── installed ──▶ Replicate
//! ```
//! *Probe* finds where the logs match: one append at a time, again when it was answered or, if the peer shows
//! life, a heartbeat interval later. *Replicate* pipelines within a limit of messages and bytes. *Snapshot*
//! sends nothing: the driver does.
//!
//! Invariant: `matched < next`. Does not know the log: what can be sent, and whether a quorum has it, others
//! decide.

use crate::status::PeerState;
use crate::types::Index;
use std::collections::VecDeque;

/// The limits of a pipeline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) max_messages: usize,
    pub(crate) max_bytes: usize,
}

/// One peer, as its leader sees it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Durable there up to here, and equal to the leader's log. Never falls within a term.
    pub(crate) matched: Index,
    /// The next index to send.
    pub(crate) next: Index,
    /// Heard from since the last quorum check.
    pub(crate) active: bool,
    /// The tick at which it was last heard from, in this term.
    heard_at: Option<u64>,
    /// The commit index that it was last told.
    pub(crate) commit_told: Index,
    /// The newest read context that it acknowledged.
    pub(crate) context: u64,
    /// Removed by the membership entry at this index: served until it knows, counted nowhere.
    pub(crate) departing: Option<Index>,
    state: State,
    /// The tick of the last progress, or of the last attempt to get on.
    moved_at: u64,
    /// An empty append is due, to find out whether those in flight were lost.
    nudge: bool,
    /// Appends in flight: the last index and the bytes of each.
    inflight: VecDeque<(Index, usize)>,
    inflight_bytes: usize,
    /// An append that took all there was and is not answered: its last index, and when it left.
    gathers_behind: Option<(Index, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// `waiting`: a probe for `next - 1` is in flight.
    Probe {
        waiting: bool,
    },
    Replicate,
    /// `sent`: the driver has sent a snapshot at this index, and the peer is at work on it.
    Snapshot {
        sent: Option<Index>,
    },
}

/// A peer that was sent a snapshot is left alone for this many times the usual patience: installing a large one takes
/// time, and a probe that it must reject would only cause another.
const INSTALL_PATIENCE: u64 = 100;

/// What to send to a peer now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sending {
    /// An append of the entries from `next` on.
    Entries,
    /// An empty append at `next - 1`.
    Empty,
    /// No append.
    Nothing,
}

impl Progress {
    /// A peer of which nothing is known.
    pub(crate) fn new(next: Index, active: bool, now: u64) -> Progress {
        Progress {
            matched: Index::ZERO,
            next,
            active,
            heard_at: None,
            commit_told: Index::ZERO,
            context: 0,
            departing: None,
            state: State::Probe { waiting: false },
            moved_at: now,
            nudge: false,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            gathers_behind: None,
        }
    }

    /// The state, as shown.
    pub(crate) fn state(&self) -> PeerState {
        match self.state {
            State::Probe { .. } => PeerState::Probe,
            State::Replicate => PeerState::Replicate,
            State::Snapshot { .. } => PeerState::Snapshot,
        }
    }

    /// What may be sent at the tick `now`, of a log that ends at `last`.
    pub(crate) fn sending(&self, last: Index, window: Window, now: u64) -> Sending {
        let gathers = self.gathers_behind.is_some_and(|(_, left_at)| left_at == now);
        match self.state {
            State::Probe { waiting: false } => Sending::Entries,
            State::Replicate if self.next <= last && !gathers && !self.is_full(window) => Sending::Entries,
            State::Replicate if self.nudge => Sending::Empty,
            State::Probe { waiting: true } | State::Replicate | State::Snapshot { .. } => Sending::Nothing,
        }
    }

    /// Nothing is on its way, so that the next append may be far off.
    pub(crate) fn is_idle(&self) -> bool {
        self.state == State::Replicate && self.inflight.is_empty()
    }

    fn is_full(&self, window: Window) -> bool {
        self.inflight.len() >= window.max_messages || self.inflight_bytes >= window.max_bytes
    }

    /// An append left, with entries up to `last` (`next - 1` where it is empty).
    pub(crate) fn sent(&mut self, last: Index, bytes: usize, commit: Index, now: u64) {
        self.commit_told = self.commit_told.max(commit.min(last));
        self.nudge = false;
        match &mut self.state {
            State::Probe { waiting } => {
                *waiting = true;
                self.moved_at = now;
            }
            State::Replicate if last >= self.next => {
                if self.inflight.is_empty() {
                    self.moved_at = now;
                }
                self.next = last.next();
                self.inflight.push_back((last, bytes));
                self.inflight_bytes += bytes;
            }
            State::Replicate => {}
            State::Snapshot { .. } => unreachable!("append to a peer that awaits a snapshot"),
        }
    }

    /// What comes now waits for the answer to what just left, or for the next tick.
    pub(crate) fn gather(&mut self, now: u64) {
        self.gathers_behind = self.inflight.back().map(|(last, _)| (*last, now));
    }

    /// The peer holds the log durably up to `index`; `compacted` is where the leader's own log begins.
    pub(crate) fn accepted(&mut self, index: Index, compacted: Index, now: u64) {
        if index > self.matched {
            self.matched = index;
            self.moved_at = now;
        }
        self.next = self.next.max(self.matched.next());
        match self.state {
            State::Probe { .. } => self.become_replicate(),
            State::Snapshot { .. } if self.matched >= compacted => self.become_replicate(),
            State::Snapshot { .. } => {}
            State::Replicate => {
                while let Some((_, bytes)) = self.inflight.pop_front_if(|(last, _)| *last <= index) {
                    self.inflight_bytes -= bytes;
                }
                self.gathers_behind.take_if(|(last, _)| *last <= index);
            }
        }
    }

    /// Whether a rejection of `prev_index` answers what is in flight; anything else is late and says nothing
    /// (hazard 7). What matched once is durable there: its rejection is late, too.
    pub(crate) fn is_current_rejection(&self, prev_index: Index) -> bool {
        prev_index > self.matched
            && match self.state {
                State::Probe { waiting } => waiting && prev_index == self.next.prev(),
                State::Replicate => prev_index < self.next,
                State::Snapshot { .. } => false,
            }
    }

    /// Probes again from `next` on, but never at or below what matched.
    pub(crate) fn become_probe(&mut self, next: Index) {
        self.next = next.max(self.matched.next());
        self.state = State::Probe { waiting: false };
        self.clear_inflight();
    }

    fn become_replicate(&mut self) {
        self.next = self.matched.next();
        self.state = State::Replicate;
        self.clear_inflight();
    }

    /// The peer is behind the leader's log.
    pub(crate) fn become_snapshot(&mut self) {
        self.state = State::Snapshot { sent: None };
        self.clear_inflight();
    }

    /// The driver has sent a snapshot at `index`: the peer's own word for it may be on its way.
    pub(crate) fn snapshot_sent(&mut self, index: Index, now: u64) {
        if let State::Snapshot { sent } = &mut self.state {
            *sent = Some(index);
            self.moved_at = now;
        }
    }

    /// The driver could not send the snapshot: ask for another, but not at once.
    pub(crate) fn snapshot_failed(&mut self, now: u64) {
        if matches!(self.state, State::Snapshot { .. }) {
            self.become_probe(self.matched.next());
            self.state = State::Probe { waiting: true };
            self.moved_at = now;
        }
    }

    /// Appends may have been lost: find out where the peer is.
    pub(crate) fn unreachable(&mut self) {
        if self.state == State::Replicate {
            self.become_probe(self.matched.next());
            self.state = State::Probe { waiting: true };
        }
    }

    /// It said something; gives the ticks since it last did.
    pub(crate) fn heard(&mut self, now: u64) -> u64 {
        self.active = true;
        now - self.heard_at.replace(now).unwrap_or(now)
    }

    /// Whether it said something within the last so many ticks: unlike `active`, that does not begin anew with each
    /// quorum check.
    pub(crate) fn heard_within(&self, ticks: u32, now: u64) -> bool {
        self.heard_at.is_some_and(|at| now - at < u64::from(ticks))
    }

    /// The peer shows life. Where an append has been unanswered for `patience` ticks, it is asked again.
    pub(crate) fn alive(&mut self, now: u64, patience: u32) {
        if now - self.moved_at < u64::from(patience) {
            return;
        }
        match &mut self.state {
            State::Probe { waiting } => *waiting = false,
            State::Snapshot { sent: Some(index) }
                if now - self.moved_at >= u64::from(patience) * INSTALL_PATIENCE =>
            {
                let next = index.next();
                self.become_probe(next);
            }
            State::Replicate if !self.inflight.is_empty() => {
                self.nudge = true;
                self.moved_at = now;
            }
            State::Replicate | State::Snapshot { .. } => {}
        }
    }

    fn clear_inflight(&mut self) {
        self.inflight.clear();
        self.inflight_bytes = 0;
        self.gathers_behind = None;
        self.nudge = false;
    }
}
