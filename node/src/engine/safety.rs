//! Which changes of membership leave a cluster that can go on: rules over sets, nothing else.
//!
//! A change needs the quorum that it leads to: its own entry commits there (Raft thesis 4.1, 4.3), and so does all that
//! follows. So a change is made only where those that remain are *fit* in a majority: they answer, and hold nearly all
//! of the log. One that answers and lags would hold up every write until it has caught up.
//!
//! This module does not know who is fit, nor whether a change is allowed at this moment (one at a time, none before an
//! entry of the leader's own term): that is the core's.

use balsa_raft::NodeId;
use balsa_raft::quorum::majority_size;
use std::collections::BTreeSet;

/// Why a change would cost the quorum, or cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsafe {
    /// Nobody would be left to vote.
    #[error("the last voter cannot be removed")]
    LastVoter,
    /// Too few of those that would vote are fit.
    #[error(
        "of the {voters} voters that there would be only {fit} answer and are up to date, and {quorum} are needed: the \
         cluster would lose its quorum; bring voters back or remove silent ones first"
    )]
    NoQuorum {
        /// How many would vote.
        voters: usize,
        /// How many of them are fit.
        fit: usize,
        /// How many must be.
        quorum: usize,
    },
    /// It is not fit to vote.
    #[error("{0} does not answer, or has not caught up: it becomes a voter by itself once it has")]
    NotFit(NodeId),
    /// It would drive out a living member.
    #[error("{new} is to take the slot of {old}, which answers or did so lately")]
    ReplacesLiving {
        /// Who comes.
        new: NodeId,
        /// Who would go.
        old: NodeId,
    },
}

/// Whether `id` may be removed from these voters. Removing who does not vote is always safe.
pub fn may_remove(
    voters: &BTreeSet<NodeId>,
    id: NodeId,
    is_fit: impl Fn(NodeId) -> bool,
) -> Result<(), Unsafe> {
    if !voters.contains(&id) {
        return Ok(());
    }
    let rest: BTreeSet<NodeId> = voters.iter().copied().filter(|voter| *voter != id).collect();
    if rest.is_empty() {
        return Err(Unsafe::LastVoter);
    }
    keeps_quorum(&rest, is_fit)
}

/// Whether a learner may become a voter, in place of `replaced` or beside all others. `is_silent`: was not heard from
/// for long enough to be given up.
pub fn may_promote(
    voters: &BTreeSet<NodeId>,
    id: NodeId,
    replaced: Option<NodeId>,
    is_fit: impl Fn(NodeId) -> bool,
    is_silent: impl Fn(NodeId) -> bool,
) -> Result<(), Unsafe> {
    if !is_fit(id) {
        return Err(Unsafe::NotFit(id));
    }
    if let Some(old) = replaced.filter(|old| !is_silent(*old)) {
        return Err(Unsafe::ReplacesLiving { new: id, old });
    }
    // A swap goes by way of a joint phase in which today's voters decide, too.
    if replaced.is_some_and(|old| voters.contains(&old)) {
        keeps_quorum(voters, &is_fit)?;
    }
    let mut next: BTreeSet<NodeId> =
        voters.iter().copied().filter(|voter| Some(*voter) != replaced).collect();
    next.insert(id);
    keeps_quorum(&next, is_fit)
}

fn keeps_quorum(voters: &BTreeSet<NodeId>, is_fit: impl Fn(NodeId) -> bool) -> Result<(), Unsafe> {
    let fit = voters.iter().filter(|voter| is_fit(**voter)).count();
    let (voters, quorum) = (voters.len(), majority_size(voters.len()));
    if fit < quorum { Err(Unsafe::NoQuorum { voters, fit, quorum }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Row<W> = (&'static [u64], &'static [u64], W, Result<(), Unsafe>);

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn removals() {
        let no_quorum = |voters, fit, quorum| Err(Unsafe::NoQuorum { voters, fit, quorum });
        // voters, who of them is fit, who goes
        let table: [Row<u64>; 9] = [
            (&[1], &[1], 1, Err(Unsafe::LastVoter)),
            (&[1, 2], &[1], 2, Ok(())),
            (&[1, 2], &[1], 1, no_quorum(1, 0, 1)),
            (&[1, 2, 3], &[1, 2, 3], 3, Ok(())),
            (&[1, 2, 3], &[1, 2], 3, Ok(())),
            (&[1, 2, 3], &[1, 2], 2, no_quorum(2, 1, 2)),
            (&[1, 2, 3, 4, 5], &[1, 2, 3], 3, no_quorum(4, 2, 3)),
            (&[1, 2, 3, 4, 5], &[1, 2, 3], 4, Ok(())),
            (&[1, 2, 3], &[1], 9, Ok(())),
        ];
        for (voters, fit, gone, expected) in table {
            let fit = nodes(fit);
            let found = may_remove(&nodes(voters), NodeId(gone), |id| fit.contains(&id));
            assert_eq!(found, expected, "{voters:?} without {gone}, fit: {fit:?}");
        }
    }

    #[test]
    fn promotions() {
        let silent = |id: NodeId| id == NodeId(3);
        // voters, fit among all, the slot's old holder
        let table: [Row<Option<u64>>; 8] = [
            (&[1], &[1, 9], None, Ok(())),
            (&[1], &[1], None, Err(Unsafe::NotFit(NodeId(9)))),
            (&[1, 2, 3], &[1, 2, 9], None, Ok(())),
            (&[1, 2, 3], &[1, 2, 9], Some(3), Ok(())),
            (&[1, 2, 3], &[1, 2, 9], Some(2), Err(Unsafe::ReplacesLiving { new: NodeId(9), old: NodeId(2) })),
            (&[1, 2, 3], &[1, 9], Some(3), Err(Unsafe::NoQuorum { voters: 3, fit: 1, quorum: 2 })),
            (&[1, 2, 3, 4], &[1, 2, 9], None, Ok(())),
            (&[1, 2, 3, 4, 5], &[1, 2, 9], None, Err(Unsafe::NoQuorum { voters: 6, fit: 3, quorum: 4 })),
        ];
        for (voters, fit, old, expected) in table {
            let fit = nodes(fit);
            let found =
                may_promote(&nodes(voters), NodeId(9), old.map(NodeId), |id| fit.contains(&id), silent);
            assert_eq!(found, expected, "{voters:?} and 9 for {old:?}, fit: {fit:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_allowed_leaves_a_fit_majority(
            voters in proptest::collection::btree_set((1u64..8).prop_map(NodeId), 1..7),
            fit in proptest::collection::btree_set((1u64..10).prop_map(NodeId), 0..9),
            which in 1u64..10,
            old in proptest::option::of((1u64..8).prop_map(NodeId)),
        ) {
            let is_fit = |id: NodeId| fit.contains(&id);
            let majority = |next: &BTreeSet<NodeId>| {
                2 * next.iter().filter(|voter| is_fit(**voter)).count() > next.len()
            };
            let id = NodeId(which);
            let mut without = voters.clone();
            if without.remove(&id) {
                let allowed = may_remove(&voters, id, is_fit).is_ok();
                prop_assert_eq!(allowed, !without.is_empty() && majority(&without));
            } else if may_promote(&voters, id, old, is_fit, |old| !is_fit(old)).is_ok() {
                let mut next = voters.clone();
                next.insert(id);
                if let Some(old) = old {
                    prop_assert!(!is_fit(old));
                    next.remove(&old);
                }
                prop_assert!(majority(&next));
            }
        }
    }
}
