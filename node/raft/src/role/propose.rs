//! What a leader is asked for: entries, memberships, reads, and to hand over.

use crate::error::{MembershipError, ProposeError, ReadError, TransferError};
use crate::membership::Change;
use crate::node::Raft;
use crate::ready::ReadId;
use crate::role::RoleState;
use crate::role::leader::{Leader, Transfer};
use crate::types::{EntryKind, Index, NodeId, Term};
use bytes::Bytes;

impl Raft {
    /// Appends a command. Gives where it will be if it commits: in that term, at that index.
    pub fn propose(&mut self, data: Bytes) -> Result<(Term, Index), ProposeError> {
        let max_bytes = self.config.max_uncommitted_bytes;
        let leader = self.leading().ok_or(ProposeError::NotLeader { leader: self.leader })?;
        if leader.transfer.is_some() || leader.retires {
            return Err(ProposeError::Transferring);
        }
        let bytes = leader.uncommitted_bytes;
        if bytes > 0 && bytes + data.len() > max_bytes {
            return Err(ProposeError::Overloaded);
        }
        Ok(self.append_as_leader(EntryKind::Command, data))
    }

    /// Appends a membership: today's with `changes` applied, and `context` in place of the old one. Without
    /// changes it replaces the context alone. Effective at once; where more than one voter changes, it enters
    /// a joint phase that ends by itself.
    pub fn propose_membership(
        &mut self,
        changes: &[Change],
        context: Bytes,
    ) -> Result<(Term, Index), MembershipError> {
        let leader = self.leading().ok_or(MembershipError::NotLeader { leader: self.leader })?;
        if leader.transfer.is_some() || leader.retires {
            return Err(MembershipError::Transferring);
        }
        let membership = self.log.membership();
        let settled = self.log.membership_index() <= self.log.commit() && !membership.is_joint();
        if !settled || !self.has_committed_in_term(leader) {
            return Err(MembershipError::Busy);
        }
        let next = membership.change(changes, context)?;
        Ok(self.append_as_leader(EntryKind::Membership, next.encode()))
    }

    /// Asks that a quorum confirm this leader, for reads. A later Ready confirms or drops it.
    pub fn read(&mut self, id: ReadId) -> Result<(), ReadError> {
        let leader = self.leading().ok_or(ReadError::NotLeader { leader: self.leader })?;
        if leader.reads.waiting() >= self.config.max_pending_reads {
            return Err(ReadError::Overloaded);
        }
        let commit = self.has_committed_in_term(leader).then_some(self.log.commit());
        if let RoleState::Leader(leader) = &mut self.role {
            leader.reads.push(id, commit);
        }
        Ok(())
    }

    /// Hands leadership to `to`, or to the active voter that holds most of the log. Gives the target.
    /// Proposals are refused until it took over, or the transfer is aborted after an election timeout.
    pub fn transfer_leadership(&mut self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        let leader = self.leading().ok_or(TransferError::NotLeader { leader: self.leader })?;
        if let Some(Transfer { to: target, .. }) = leader.transfer {
            return match to {
                Some(other) if other != target => Err(TransferError::InProgress { to: target }),
                _ => Ok(target),
            };
        }
        let target = match to {
            Some(to) if to == self.config.id || !self.log.membership().is_voter(to) => {
                return Err(TransferError::NotAVoter { to });
            }
            Some(to) => to,
            None => self.best_successor().ok_or(TransferError::NoTarget)?,
        };
        if let RoleState::Leader(leader) = &mut self.role {
            leader.transfer = Some(Transfer::new(target));
        }
        Ok(target)
    }

    /// Whether this leader knows what is committed, and may change the membership (hazards 14 and 29).
    fn has_committed_in_term(&self, leader: &Leader) -> bool {
        self.log.commit() >= leader.term_start
    }
}
