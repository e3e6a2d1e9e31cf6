//! Writes to the log that are under way, and what waits for them.
//!
//! The driver persists in the order of tokens and reports completions when it likes; a completion confirms
//! all before it. Two dangers live here:
//! - *A late completion confirms entries that were overwritten since* (ABA, hazard 3). So whenever the log is
//!   truncated, every write under way is cut back to what it still has in common with the log. Completing it
//!   then confirms only that; the entries that took their place are confirmed by their own write.
//! - *A message leaves before what it promises is durable* (hazard 2). A message that depends on a write
//!   which was already handed out is held here until that completes.
//!
//! Does not know what is written, nor what the messages say, except to fold repeated acknowledgements into
//! one.

use crate::message::{Body, Message};
use crate::ready::PersistToken;
use crate::types::Index;
use std::collections::VecDeque;

/// What a message depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum After {
    /// Nothing that the disk could forget.
    Nothing,
    /// Term and vote as they are now.
    HardState,
    /// The log (and term and vote) as it is now.
    Log,
}

/// One write under way.
#[derive(Clone, Debug)]
struct Pending {
    token: PersistToken,
    /// The entries that it and the log still have in common, first and last.
    entries: Option<(Index, Index)>,
    /// Whether it holds a hard state.
    hard_state: bool,
    /// The tick at which it was handed out.
    since: u64,
}

/// What a completion brings.
#[derive(Clone, Debug)]
pub(crate) struct Completed {
    /// The last index that it confirms.
    pub(crate) stable: Option<Index>,
    /// The tick at which the oldest of the writes was handed out; `None`: it was no news.
    pub(crate) since: Option<u64>,
    /// What waited for it.
    pub(crate) free: Vec<Message>,
}

/// All writes under way, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipeline {
    issued: PersistToken,
    pending: VecDeque<Pending>,
    /// Messages that wait for a completion.
    held: Vec<(PersistToken, Message)>,
}

impl Pipeline {
    /// Registers a write; its token is the one after the last.
    pub(crate) fn begin(
        &mut self,
        entries: Option<(Index, Index)>,
        hard_state: bool,
        now: u64,
    ) -> PersistToken {
        self.issued.0 += 1;
        self.pending.push_back(Pending { token: self.issued, entries, hard_state, since: now });
        self.issued
    }

    /// The log was truncated from here on: no write under way confirms that part any more.
    pub(crate) fn truncate(&mut self, from: Index) {
        for pending in &mut self.pending {
            pending.entries = pending
                .entries
                .filter(|(first, _)| *first < from)
                .map(|(first, last)| (first, last.min(from.prev())));
        }
    }

    /// Everything up to `token` is durable.
    pub(crate) fn complete(&mut self, token: PersistToken) -> Completed {
        assert!(token <= self.issued, "completion of {token:?}, of which only {:?} was issued", self.issued);
        let since = self.oldest_since();
        let mut stable = None;
        let mut any = false;
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.token <= token) {
            any = true;
            stable = stable.max(pending.entries.map(|(_, last)| last));
        }
        let free = self.held.extract_if(.., |(waits_for, _)| *waits_for <= token);
        let free = free.map(|(_, message)| message).collect();
        Completed { stable, since: since.filter(|_| any), free }
    }

    /// The write under way that a message with this dependency must wait for, if any.
    pub(crate) fn waits_for(&self, after: After) -> Option<PersistToken> {
        let newest = match after {
            After::Nothing => None,
            After::HardState => self.pending.iter().rev().find(|pending| pending.hard_state),
            After::Log => self.pending.back(),
        };
        newest.map(|pending| pending.token)
    }

    /// Keeps a message until `token` completes.
    pub(crate) fn hold(&mut self, token: PersistToken, message: Message) {
        // At most one of a kind, peer and write is kept, so that what is held is bounded by the writes under
        // way. Those that wait for different writes may come in turns, so all are looked at.
        let mut same = self.held.iter_mut().filter(|(other, _)| *other == token);
        if same.any(|(_, held)| fold(held, &message)) {
            return;
        }
        self.held.push((token, message));
    }

    /// The tick at which the oldest write under way was handed out.
    pub(crate) fn oldest_since(&self) -> Option<u64> {
        self.pending.front().map(|pending| pending.since)
    }
}

/// Folds `newer` into `older` where one message says what both do: acknowledgements of the same leader, of
/// which the furthest counts, and repetitions.
pub(crate) fn fold(older: &mut Message, newer: &Message) -> bool {
    if (older.to, older.term) != (newer.to, newer.term) {
        return false;
    }
    match (&mut older.body, &newer.body) {
        (Body::AppendAccepted { match_index: old }, Body::AppendAccepted { match_index: new })
        | (Body::SnapshotInstalled { match_index: old }, Body::SnapshotInstalled { match_index: new }) => {
            *old = (*old).max(*new);
            true
        }
        (Body::HeartbeatReply { context: old }, Body::HeartbeatReply { context: new }) => {
            *old = (*old).max(*new);
            true
        }
        (old, new) => old == new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeId, Term};

    /// A stalled disk, and a leader whose heartbeats and appends come in turns: their answers wait for different writes.
    #[test]
    fn what_is_held_is_bounded_whatever_the_order() {
        let mut pipeline = Pipeline::default();
        let hard_state = pipeline.begin(None, true, 0);
        let entries = pipeline.begin(Some((Index(1), Index(1))), false, 0);
        let message = |body| Message { from: NodeId(2), to: NodeId(1), term: Term(3), body };
        for context in 1..=100 {
            pipeline.hold(hard_state, message(Body::HeartbeatReply { context }));
            pipeline.hold(entries, message(Body::AppendAccepted { match_index: Index(1) }));
        }
        assert_eq!(pipeline.held.len(), 2);
        let free = pipeline.complete(hard_state).free;
        assert_eq!(free, [message(Body::HeartbeatReply { context: 100 })]);
    }

    /// A vote must not leave with an earlier write of term and vote, nor an acknowledgement with an earlier write of entries.
    #[test]
    fn a_message_waits_for_the_newest_write_that_it_depends_on() {
        let mut pipeline = Pipeline::default();
        let term = pipeline.begin(None, true, 0);
        let vote = pipeline.begin(None, true, 0);
        let entries = pipeline.begin(Some((Index(1), Index(1))), false, 0);
        let waits = |pipeline: &Pipeline| {
            [After::Nothing, After::HardState, After::Log].map(|after| pipeline.waits_for(after))
        };
        assert_eq!(waits(&pipeline), [None, Some(vote), Some(entries)]);
        pipeline.complete(term);
        assert_eq!(waits(&pipeline), [None, Some(vote), Some(entries)]);
        pipeline.complete(vote);
        assert_eq!(waits(&pipeline), [None, None, Some(entries)]);
        pipeline.complete(entries);
        assert_eq!(waits(&pipeline), [None; 3]);
    }

    #[test]
    fn of_acknowledgements_in_one_term_the_furthest_counts() {
        let mut pipeline = Pipeline::default();
        let write = pipeline.begin(Some((Index(1), Index(9))), true, 0);
        let message = |term, body| Message { from: NodeId(2), to: NodeId(1), term: Term(term), body };
        let accepted = |index| Body::AppendAccepted { match_index: Index(index) };
        for (term, index, context) in [(3, 5, 2), (3, 4, 1), (4, 9, 1)] {
            pipeline.hold(write, message(term, accepted(index)));
            pipeline.hold(write, message(term, Body::HeartbeatReply { context }));
        }
        let free = pipeline.complete(write).free;
        let reply = |context| Body::HeartbeatReply { context };
        let expected = [(3, accepted(5)), (3, reply(2)), (4, accepted(9)), (4, reply(1))];
        assert_eq!(free, expected.map(|(term, body)| message(term, body)));
    }

    #[test]
    fn an_acknowledgement_does_not_leave_with_one_that_waits_for_less() {
        let mut pipeline = Pipeline::default();
        let accepted = |index| Message {
            from: NodeId(2),
            to: NodeId(1),
            term: Term(3),
            body: Body::AppendAccepted { match_index: Index(index) },
        };
        let writes = [1, 2].map(|index| pipeline.begin(Some((Index(index), Index(index))), false, 0));
        pipeline.hold(writes[0], accepted(1));
        pipeline.hold(writes[1], accepted(2));
        assert_eq!(pipeline.complete(writes[0]).free, [accepted(1)]);
        assert_eq!(pipeline.complete(writes[1]).free, [accepted(2)]);
    }

    /// However many writes came behind it (hazard 13).
    #[test]
    fn a_stall_is_counted_from_the_oldest_write_under_way() {
        let mut pipeline = Pipeline::default();
        let first = pipeline.begin(None, true, 3);
        let second = pipeline.begin(None, true, 7);
        assert_eq!(pipeline.oldest_since(), Some(3));
        assert_eq!(pipeline.complete(first).since, Some(3));
        assert_eq!(pipeline.oldest_since(), Some(7));
        assert_eq!(pipeline.complete(first).since, None, "it is no news");
        assert_eq!(pipeline.complete(second).since, Some(7));
        assert_eq!(pipeline.oldest_since(), None);
    }
}
