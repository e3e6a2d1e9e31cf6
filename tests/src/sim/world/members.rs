//! The operator: adds and removes members, and replaces nodes whose disks are lost.
//!
//! One errand at a time, repeated until it is known to be done: asked of a random node, as an operator (or a node that
//! joins) would ask. The operator is careful only in what is a person's duty: it destroys no disk that the cluster could
//! not do without (promise 1 speaks of a minority), and removes nobody while it is at that. What the cluster refuses it
//! leaves alone.
//!
//! A removed node runs on for a while, and is started again with its old disk where a fault ends it before it knows; then
//! its place is blank, for another to join. Thin, on purpose: how a process founds, joins and sets its disk aside is
//! `node/src/life`'s, with tests of its own.

use super::*;
use balsa_node::engine::handle::{AdminError, AdminReply};
use balsa_raft::membership::Membership;

/// What the operator is at.
#[derive(Clone, Copy, Debug)]
enum Errand {
    /// The node at a place asks to be taken in, and then is to become a voter.
    Join { place: Place, id: NodeId },
    /// A member is to go.
    Remove { place: Place, id: NodeId },
}

/// The operator of a cluster.
#[derive(Debug, Default)]
pub(super) struct Operator {
    errand: Option<Errand>,
    /// The errand is given up then.
    until: Micros,
    /// The request that was made last.
    ticket: u64,
    /// Identities whose disks are gone for good.
    destroyed: BTreeSet<NodeId>,
    /// No disk is destroyed before: a request may still be on its way.
    quiet_until: Micros,
    /// Names the rounds, so that an errand is looked at by one at a time.
    round: u64,
}

/// How long the operator pursues an errand.
const ERRAND: Micros = 60 * SECOND;
/// How long a request of the operator may be on its way.
const ERRAND_DEADLINE_MS: u64 = 2_000;
/// A request that was made is over after this long.
const ERRAND_OVER: Micros = 10 * SECOND;

impl World {
    pub(super) fn scale_out(&mut self) -> bool {
        let blank = self.nodes.iter().position(|node| node.standing == Standing::Blank);
        let Some(place) = blank.filter(|_| self.operator.errand.is_none()) else { return false };
        self.join(place);
        true
    }

    pub(super) fn remove(&mut self, place: Place) -> bool {
        let id = self.nodes[place].id;
        let membership = &self.oracle.membership.1;
        let gone = self.operator.destroyed.iter().any(|id| membership.is_voter(*id));
        let alone = membership.voters.len() <= 1 && membership.is_voter(id);
        if self.operator.errand.is_some() || gone || alone || !membership.is_member(id) {
            return false;
        }
        self.begin_errand(Errand::Remove { place, id });
        true
    }

    /// A disk is lost, and a blank one with a new identity takes its place.
    pub(super) fn wipe(&mut self, place: Place) -> Result<bool, Violation> {
        if !self.may_destroy(place) {
            return Ok(false);
        }
        self.report.saw("disk wiped");
        if self.random.chance(600) {
            self.joint_doomed = Some(self.random.between(MILLI, 3 * SECOND));
        }
        self.replace(place)?;
        Ok(true)
    }

    /// The disk at a place is of no use any more: a new node takes the slot.
    pub(super) fn replace(&mut self, place: Place) -> Result<(), Violation> {
        let id = self.nodes[place].id;
        self.operator.destroyed.insert(id);
        self.stop_process(place)?;
        self.trace.line(self.now, format_args!("node {place} has lost its disk, and with it {id}"));
        if self.oracle.membership.1.is_member(id) {
            self.join(place);
        } else {
            self.nodes[place].clear();
        }
        Ok(())
    }

    /// Whether the cluster can do without the disk at a place: of every set of voters that may have to decide, a majority
    /// keeps its disks.
    pub(super) fn may_destroy(&self, place: Place) -> bool {
        let id = self.nodes[place].id;
        let running = self.nodes[place].standing == Standing::Running;
        let paused = self.nodes.iter().any(|node| node.paused_until > self.now);
        // The operator has one errand at a time, and a rotten disk will be one.
        let busy =
            self.operator.errand.is_some() || self.now < self.operator.quiet_until || !self.rotten.is_empty();
        if !running || paused || busy {
            return false;
        }
        self.survive_without(&BTreeSet::from([id]))
    }

    /// Whether every set of voters that may have to decide keeps a majority without these, and without those whose disks
    /// are gone, or rotten.
    pub(super) fn survive_without(&self, absent: &BTreeSet<NodeId>) -> bool {
        let newest = self.oracle.membership.0;
        let of_nodes = self.nodes.iter().map(|node| match node.raft() {
            Some(raft) => (raft.membership_index(), &**raft.membership()),
            None => (node.last_membership.0, &*node.last_membership.1),
        });
        let mut all = of_nodes.filter(|(at, _)| *at >= newest).map(|(_, membership)| membership);
        self.survives(&self.oracle.membership.1, absent)
            && all.all(|membership| self.survives(membership, absent))
    }

    fn survives(&self, membership: &Membership, absent: &BTreeSet<NodeId>) -> bool {
        let rotten: Vec<NodeId> = self.rotten.iter().map(|place| self.nodes[*place].id).collect();
        let gone = |voter: &&NodeId| {
            absent.contains(voter) || self.operator.destroyed.contains(voter) || rotten.contains(voter)
        };
        let sets = [&membership.voters, &membership.outgoing];
        sets.iter().all(|set| set.is_empty() || set.iter().filter(gone).count() <= (set.len() - 1) / 2)
    }

    fn join(&mut self, place: Place) {
        let id = NodeId(self.random.draw() | 1);
        self.nodes[place].put_disk(id, None, &self.settings);
        self.begin_errand(Errand::Join { place, id });
    }

    fn begin_errand(&mut self, errand: Errand) {
        self.trace.line(self.now, format_args!("the operator: {errand:?}"));
        self.operator.errand = Some(errand);
        self.operator.until = self.now + ERRAND;
        self.operator.round += 1;
        let round = self.operator.round;
        self.plan(MILLI, Happening::Errand { round });
    }

    fn end_errand(&mut self) {
        self.operator.errand = None;
        self.operator.quiet_until = self.now + ERRAND_OVER;
        self.operator.round += 1;
    }

    /// Looks after the errand: is it done, must it be asked for once more?
    pub(super) fn errand(&mut self, round: u64) -> Result<(), Violation> {
        let Some(errand) = self.operator.errand.filter(|_| self.operator.round == round) else {
            return Ok(());
        };
        if self.is_done(errand) {
            self.trace.line(self.now, format_args!("the operator has done it"));
            match errand {
                Errand::Join { .. } => self.report.saw("node joined and votes"),
                Errand::Remove { place, id } => {
                    self.report.saw("member removed");
                    let lingers = self.random.below(40 * SECOND);
                    self.plan(lingers, Happening::Retire { place, id });
                }
            }
            self.end_errand();
            return Ok(());
        }
        if self.now > self.operator.until {
            if let Errand::Remove { .. } = errand {
                self.end_errand();
                return Ok(());
            }
            // A node that joins goes on asking for ever, but lets others be served.
            if !self.calm {
                self.operator.until = self.now + ERRAND;
            }
        }
        let pause = self.random.between(300 * MILLI, 2 * SECOND);
        self.plan(pause, Happening::Errand { round });
        self.ask_for(errand)
    }

    fn is_done(&self, errand: Errand) -> bool {
        let membership = &self.oracle.membership.1;
        match errand {
            Errand::Join { id, .. } => membership.voters.contains(&id) && !membership.is_joint(),
            Errand::Remove { id, .. } => !membership.is_member(id),
        }
    }

    fn ask_for(&mut self, errand: Errand) -> Result<(), Violation> {
        let request = match errand {
            Errand::Join { id, place } => {
                let known = self.oracle.membership.1.is_learner(id);
                match known && self.random.chance(300) {
                    true => AdminRequest::Promote { id },
                    false => {
                        let (peer_address, client_address) = node::addresses(place);
                        AdminRequest::AddMember { id, slot: Some(place as u32), peer_address, client_address }
                    }
                }
            }
            Errand::Remove { id, .. } => AdminRequest::Remove { id },
        };
        let asked = self.random.below(self.nodes.len() as u64) as Place;
        if self.nodes[asked].process.is_none() || self.nodes[asked].paused_until > self.now {
            return Ok(());
        }
        self.next_ticket += 1;
        self.operator.ticket = self.next_ticket;
        let (ticket, deadline_ms) =
            (self.operator.ticket, self.nodes[asked].clock_ms(self.now) + ERRAND_DEADLINE_MS);
        self.give(asked, Event::Admin { ticket, request, deadline_ms })
    }

    pub(super) fn admin_answered(
        &mut self,
        ticket: u64,
        answer: Result<AdminReply, AdminError>,
    ) -> Result<(), Violation> {
        if ticket == TRANSFER_TICKET {
            self.report.saw(if answer.is_ok() { "transfer done" } else { "transfer refused" });
            return Ok(());
        }
        let Some(errand) = self.operator.errand.filter(|_| self.operator.ticket == ticket) else {
            return Ok(());
        };
        if let Err(error) = &answer {
            self.trace.line(self.now, format_args!("the operator hears: {error}"));
        }
        match (errand, answer) {
            (Errand::Join { place, id }, Ok(_)) if self.nodes[place].standing == Standing::Joining => {
                self.nodes[place].standing = Standing::Running;
                self.report.saw("node taken in");
                self.ends_after(MILLI, move |world| {
                    if !world.oracle.membership.1.is_member(id) {
                        return Err(Violation(format!("{id} is told that it is taken in, and is no member")));
                    }
                    world.start_if_down(place)
                })
            }
            (Errand::Remove { .. }, Err(AdminError::Refused(_))) => {
                self.report.saw("removal refused");
                self.end_errand();
                Ok(())
            }
            (_, Err(AdminError::Busy)) => {
                self.report.saw("membership was busy");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A node knows for certain that it was removed. One that returned sets its disk aside; one that ran runs on until
    /// somebody ends it, and does so then.
    pub(super) fn removal_known(&mut self, place: Place, returned: bool) -> Result<(), Violation> {
        let id = self.nodes[place].id;
        self.trace.line(self.now, format_args!("node {place} knows that {id} was removed"));
        self.nodes[place].knows_removal = true;
        // It may know before any state has applied it: then one soon will.
        self.ends_after(30 * SECOND, move |world| match world.oracle.membership.1.is_member(id) {
            true => Err(Violation(format!("{id} was told that it was removed, and is a member"))),
            false => Ok(()),
        })?;
        if returned {
            self.report.saw("removed node returned and was told");
            self.plan(10 * MILLI, Happening::Retire { place, id });
        }
        Ok(())
    }

    /// A removed node is taken away.
    pub(super) fn retire(&mut self, place: Place, id: NodeId) -> Result<(), Violation> {
        if self.nodes[place].id == id && !self.oracle.membership.1.is_member(id) {
            self.stop_process(place)?;
            self.trace.line(self.now, format_args!("node {place} is taken away, being no member"));
            self.nodes[place].clear();
        }
        Ok(())
    }

    /// At the end: removed nodes go, and whoever has not been replaced yet will be.
    pub(super) fn tidy_up(&mut self) -> Result<(), Violation> {
        for place in 0..self.nodes.len() {
            let id = self.nodes[place].id;
            let left = self.nodes[place].standing == Standing::Running
                && self.operator.errand.is_none()
                && !self.oracle.membership.1.is_member(id);
            if left {
                self.retire(place, id)?;
            }
        }
        Ok(())
    }

    /// Whether the membership is as it will stay.
    pub(super) fn is_settled(&self) -> bool {
        let membership = &self.oracle.membership.1;
        let gone = self.operator.destroyed.iter().any(|id| membership.is_member(*id));
        self.operator.errand.is_none() && !gone && !membership.is_joint() && membership.learners.is_empty()
    }
}
