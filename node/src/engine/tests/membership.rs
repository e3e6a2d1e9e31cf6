//! Changes of membership, as one engine decides and takes part in them; its peers are played by hand.

use super::*;
use crate::engine::handle::{AdminError, AdminReply, AdminRequest};
use crate::engine::message::{AdminResult, MemberStanding};
use crate::engine::status::{Phase, Role};
use std::collections::BTreeSet;

/// One engine and what came out of it.
pub(super) struct Node {
    pub(super) engine: Engine<Numbers>,
    pub(super) now_ms: u64,
    pub(super) outlook: Outlook,
    answers: BTreeMap<u64, Result<AdminReply, AdminError>>,
    pub(super) writes: Vec<Result<balsa_store::command::Reply, WriteError>>,
    pub(super) sent: Vec<(NodeId, PeerMessage)>,
    peers: Vec<NodeId>,
    refused: Vec<NodeId>,
    removed: Vec<bool>,
    /// What is applied only once the test says so; `None`: all is at once.
    pub(super) unapplied: Option<Vec<(Index, Outlook)>>,
}

fn member(id: u64, promote: bool) -> Member {
    let slot = id as u32 - 1;
    let (peer_address, client_address) = (format!("node-{slot}:3300"), format!("node-{slot}:3000"));
    Member { id, slot, peer_address, client_address, promote }
}

fn of_voters(count: u64) -> Membership {
    let mut directory = Directory::default();
    (1..=count).for_each(|id| directory.put(member(id, false)));
    Membership { context: directory.to_context(), ..Membership::of_voters((1..=count).map(NodeId)) }
}

impl Node {
    /// A follower of `LEADER`, or nobody yet, among voters 1 to `count`; it is 1.
    pub(super) fn start(count: u64) -> Node {
        Node::starting(count, config())
    }

    pub(super) fn starting(count: u64, config: EngineConfig) -> Node {
        let restored = Restored {
            hard_state: HardState { term: TERM, vote: None },
            entries: vec![Raft::bootstrap_entry(&of_voters(count))],
            ..Restored::blank()
        };
        let mut core = Config::with_defaults(ME, 1);
        core.election_ticks = 100_000;
        let engine = Engine::new(config, Raft::new(core, restored).unwrap(), 0, Outlook::default());
        let mut node = Node {
            engine,
            now_ms: 0,
            outlook: Outlook::default(),
            answers: BTreeMap::new(),
            writes: Vec::new(),
            sent: Vec::new(),
            peers: Vec::new(),
            refused: Vec::new(),
            removed: Vec::new(),
            unapplied: None,
        };
        node.settle();
        node
    }

    /// A follower of voter 2, among 1 to `count`, with a connection to it.
    pub(super) fn following(count: u64) -> Node {
        let mut node = Node::start(count);
        node.hears(2, Body::Heartbeat { commit: Index(0), context: 0 });
        node.give(Event::Connected(LEADER));
        node
    }

    /// The leader of voters 1 to `count`, all of whom have just said that they are up to date.
    pub(super) fn leading(count: u64) -> Node {
        Node::start(count).takes_over(count)
    }

    pub(super) fn takes_over(self, count: u64) -> Node {
        let mut node = self;
        if count == 1 {
            node.give(Event::Tick);
        } else {
            node.hears(2, Body::Heartbeat { commit: Index(0), context: 0 });
            node.hears(2, Body::TimeoutNow { last_index: Index(1) });
            (2..=count).for_each(|id| node.hears(id, Body::VoteReply { granted: true }));
        }
        assert!(node.engine.raft().is_leader());
        (2..=count).for_each(|id| node.give(Event::Connected(NodeId(id))));
        node.all_answer(&(2..=count).collect::<Vec<_>>());
        assert_eq!(node.engine.raft().commit_index(), node.engine.raft().last_index());
        node
    }

    pub(super) fn give(&mut self, event: Event<Numbers>) {
        self.engine.handle(self.now_ms, event);
        self.settle();
    }

    pub(super) fn hears(&mut self, from: u64, body: Body) {
        self.hears_in(self.engine.raft().term(), from, body);
    }

    /// A message of another term than the node's own.
    pub(super) fn hears_in(&mut self, term: Term, from: u64, body: Body) {
        let message = Message { from: NodeId(from), to: ME, term, body };
        self.says(from, PeerMessage::Raft(message));
    }

    pub(super) fn says(&mut self, from: u64, message: PeerMessage) {
        self.give(Event::Message { from: NodeId(from), message });
    }

    /// These hold all that this leader has.
    pub(super) fn all_answer(&mut self, ids: &[u64]) {
        for id in ids {
            self.hears(*id, Body::AppendAccepted { match_index: self.engine.raft().last_index() });
        }
    }

    /// Time passes in which only these are heard.
    pub(super) fn pass(&mut self, ms: u64, alive: &[u64]) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.now_ms += 100;
            self.all_answer(alive);
            self.give(Event::Tick);
        }
    }

    pub(super) fn ask(&mut self, ticket: u64, request: AdminRequest) {
        self.give(Event::Admin { ticket, request, deadline_ms: self.now_ms + 5_000 });
    }

    fn settle(&mut self) {
        loop {
            let mut more = Vec::new();
            for effect in self.engine.finish() {
                match effect {
                    Effect::Log(LogJob::Persist { token, .. }) => more.push(Event::Persisted(token)),
                    Effect::Apply(committed) => {
                        let index = committed.last().unwrap().entry.index;
                        self.outlook = after(self.outlook, &committed);
                        match &mut self.unapplied {
                            Some(later) => later.push((index, self.outlook)),
                            None => more.push(Event::Applied { index, outlook: self.outlook }),
                        }
                    }
                    Effect::Send { to, message } => self.sent.push((to, message)),
                    Effect::AnswerAdmin(ticket, answer) => {
                        assert!(self.answers.insert(ticket, answer).is_none(), "{ticket} was answered twice");
                    }
                    Effect::AnswerWrite(_, answer) => self.writes.push(answer),
                    Effect::SetPeers(peers) => self.peers = peers.into_iter().map(|(id, _)| id).collect(),
                    Effect::SetRemoved(nodes) => self.refused = nodes,
                    Effect::Removed { returned } => self.removed.push(returned),
                    _ => {}
                }
            }
            if more.is_empty() {
                return;
            }
            more.into_iter().for_each(|event| self.engine.handle(self.now_ms, event));
        }
    }

    fn voters(&self) -> BTreeSet<u64> {
        self.engine.raft().membership().voters.iter().map(|id| id.0).collect()
    }

    fn refusal(&self, ticket: u64) -> &str {
        match self.answers.get(&ticket) {
            Some(Err(AdminError::Refused(why))) => why,
            other => panic!("request {ticket} was not refused: {other:?}"),
        }
    }
}

pub(super) fn remove(id: u64) -> AdminRequest {
    AdminRequest::Remove { id: NodeId(id) }
}

pub(super) fn add(id: u64, slot: u32) -> AdminRequest {
    let (peer_address, client_address) = (format!("new-{id}:3300"), format!("new-{id}:3000"));
    AdminRequest::AddMember { id: NodeId(id), slot: Some(slot), peer_address, client_address }
}

#[test]
fn a_removal_that_would_cost_the_quorum_is_refused_and_one_that_helps_is_made() {
    let mut node = Node::leading(3);
    node.pass(3_000, &[2]);
    node.ask(1, remove(2));
    assert!(node.refusal(1).contains("of the 2 voters that there would be only 1"), "{}", node.refusal(1));
    node.ask(2, remove(3));
    node.all_answer(&[2]);
    assert!(node.answers[&2].is_ok());
    assert_eq!(node.voters(), [1, 2].into());

    // One that answers and is far behind is no help either.
    let mut node = Node::leading(3);
    for id in 0..300 {
        node.says(2, PeerMessage::Forward { id, command: Bytes::from_static(&[0; 9]) });
    }
    node.all_answer(&[2]);
    node.hears(3, Body::HeartbeatReply { context: 0 });
    node.ask(1, remove(2));
    assert!(node.refusal(1).contains("answer and are up to date"), "{}", node.refusal(1));

    let mut node = Node::leading(1);
    node.ask(1, remove(1));
    assert!(node.refusal(1).contains("last voter"), "{}", node.refusal(1));
    node.ask(2, remove(9));
    assert_eq!(node.answers[&2], Err(AdminError::NoSuchMember(NodeId(9))));
}

#[test]
fn a_second_change_waits_for_its_turn_and_is_told_the_truth_if_that_never_comes() {
    let mut node = Node::leading(5);
    node.ask(1, remove(5));
    node.ask(2, remove(4));
    assert!(node.answers.is_empty(), "the first has not committed: {:?}", node.answers);
    node.all_answer(&[2, 3]);
    assert!(node.answers[&1].is_ok());
    node.pass(100, &[2, 3, 4]);
    node.all_answer(&[2, 3]);
    assert!(node.answers[&2].is_ok());
    assert_eq!(node.voters(), [1, 2, 3].into());
    // Asked once more after the answer was lost, it is as done.
    node.ask(3, remove(4));
    assert!(node.answers[&3].is_ok());

    node.ask(4, remove(3));
    node.ask(5, remove(2));
    node.now_ms += 6_000;
    node.give(Event::Tick);
    assert_eq!(node.answers[&5], Err(AdminError::Busy));
    assert!(matches!(node.answers[&4], Err(AdminError::Unknown { .. })));
}

#[test]
fn a_follower_whose_request_meets_another_change_asks_again() {
    let mut node = Node::following(3);
    node.ask(1, remove(3));
    let asked = |node: &mut Node| {
        let sent = std::mem::take(&mut node.sent);
        sent.into_iter().find_map(|(to, message)| match message {
            PeerMessage::Admin { id, .. } => Some((to, id)),
            _ => None,
        })
    };
    let (to, id) = asked(&mut node).unwrap();
    assert_eq!(to, LEADER);
    node.says(2, PeerMessage::AdminReply { id, result: AdminResult::Busy });
    assert!(node.answers.is_empty() && asked(&mut node).is_none(), "not in a tight loop");
    node.now_ms += 100;
    node.give(Event::Tick);
    // A broken connection leaves it open whether it was done: it is asked again, which does it once.
    assert!(asked(&mut node).is_some());
    node.give(Event::Disconnected(LEADER));
    node.give(Event::Connected(LEADER));
    node.hears(2, Body::Heartbeat { commit: Index(0), context: 0 });
    let (_, id) = asked(&mut node).unwrap();
    let done = AdminReply { members: vec![], cluster: ClusterId(7) };
    node.says(2, PeerMessage::AdminReply { id, result: AdminResult::Done(done.clone()) });
    assert_eq!(node.answers[&1], Ok(done));
}

#[test]
fn a_slot_is_handed_over_only_by_one_that_is_silent_and_in_one_joint_change() {
    let mut node = Node::leading(3);
    node.ask(1, add(9, 2));
    assert!(node.refusal(1).contains("slot 2 is held by"), "{}", node.refusal(1));
    node.pass(3_000, &[2]);
    node.ask(2, add(9, 2));
    node.all_answer(&[2]);
    assert!(node.answers[&2].is_ok());
    assert_eq!(node.voters(), [1, 2, 3].into(), "it only learns");
    node.ask(3, AdminRequest::Promote { id: NodeId(9) });
    assert!(node.refusal(3).contains("has not caught up"), "{}", node.refusal(3));
    // The old one comes back before the new one has caught up: nothing is handed over.
    node.pass(500, &[2, 3, 9]);
    assert_eq!(node.voters(), [1, 2, 3].into());
    node.ask(4, AdminRequest::Promote { id: NodeId(9) });
    assert!(node.refusal(4).contains("take the slot of"), "{}", node.refusal(4));
    // It falls silent again.
    node.pass(3_000, &[2, 9]);
    assert_eq!(node.voters(), [1, 2, 9].into());
    assert!(!node.engine.raft().membership().is_joint());
    assert!(node.engine.directory.was_removed(NodeId(3)));
    node.pass(3_000, &[2, 9]);
    assert_eq!(node.peers, [2, 9].map(NodeId));
    assert_eq!(node.refused, [NodeId(3)]);
}

#[test]
fn a_leader_that_has_just_been_elected_takes_nobody_for_silent() {
    let mut node = Node::start(3);
    node.now_ms = 60_000; // it has followed for long, and heard only from the leader
    node.hears(2, Body::Heartbeat { commit: Index(0), context: 0 });
    node.hears(2, Body::TimeoutNow { last_index: Index(1) });
    node.hears(2, Body::VoteReply { granted: true });
    node.all_answer(&[2]);
    node.ask(1, add(9, 2));
    assert!(node.refusal(1).contains("answers or did so lately"), "{}", node.refusal(1));
}

#[test]
fn a_learner_that_dies_while_joining_holds_up_nobody_and_leaves_its_slot() {
    let mut node = Node::leading(3);
    node.ask(1, add(8, 3));
    node.all_answer(&[2]);
    node.pass(3_000, &[2, 3]);
    assert_eq!(node.voters(), [1, 2, 3].into());
    node.ask(2, add(9, 4));
    node.all_answer(&[2]);
    node.pass(300, &[2, 3, 9]);
    assert_eq!(node.voters(), [1, 2, 3, 9].into(), "another joins meanwhile");
    node.ask(3, add(10, 3));
    node.all_answer(&[2, 3, 9]);
    assert!(node.answers[&3].is_ok());
    assert!(node.engine.directory.was_removed(NodeId(8)));
    node.pass(300, &[2, 3, 9, 10]);
    assert_eq!(node.voters(), [1, 2, 3, 9, 10].into());
}

#[test]
fn a_replacement_comes_before_an_addition() {
    let mut node = Node::leading(3);
    node.pass(3_000, &[2]);
    node.ask(1, add(5, 5));
    node.all_answer(&[2]);
    node.ask(2, add(9, 2));
    node.all_answer(&[2]);
    assert!(node.answers[&1].is_ok() && node.answers[&2].is_ok());
    // Both catch up in the same moment.
    node.all_answer(&[2, 5, 9]);
    node.now_ms += 100;
    node.give(Event::Tick);
    let membership = node.engine.raft().membership().clone();
    assert!(membership.is_joint(), "{membership:?}");
    assert_eq!(node.voters(), [1, 2, 9].into());
}

#[test]
fn a_leader_that_is_to_be_removed_hands_over_and_the_next_one_removes_it() {
    let mut node = Node::leading(3);
    node.ask(1, remove(1));
    let asked = |node: &Node| {
        node.sent.iter().any(|(_, message)| {
            matches!(message, PeerMessage::Raft(Message { body: Body::TimeoutNow { .. }, .. }))
        })
    };
    assert!(asked(&node) && node.answers.is_empty());
    assert_eq!(node.voters(), [1, 2, 3].into(), "not by itself");
    let next = Term(node.engine.raft().term().0 + 1);
    let last = node.engine.raft().last_index();
    node.hears_in(next, 2, Body::Heartbeat { commit: last, context: 0 });
    let forwarded = node.sent.iter().rev().find_map(|(to, message)| match message {
        PeerMessage::Admin { id, request } => Some((*to, *id, request.clone())),
        _ => None,
    });
    let (to, id, request) = forwarded.unwrap();
    assert_eq!((to, request), (LEADER, remove(1)));

    // The next leader does it, and this node sees it commit.
    let mut directory = node.engine.directory.clone();
    directory.remove(ME);
    let left = Membership { context: directory.to_context(), ..Membership::of_voters([LEADER, OTHER]) };
    let entry = Entry { index: last.next(), term: next, kind: EntryKind::Membership, data: left.encode() };
    let prev_term = node.engine.raft().term_at(last).unwrap();
    node.hears_in(next, 2, Body::Append { prev_index: last, prev_term, entries: vec![entry], commit: last });
    assert_eq!(node.engine.status().phase, Phase::Running, "it is not committed");
    assert!(node.removed.is_empty());
    node.hears_in(next, 2, Body::Heartbeat { commit: last.next(), context: 0 });
    assert_eq!(node.removed, [false], "it was removed while it ran");
    let status = node.engine.status();
    assert_eq!((status.phase, status.leader), (Phase::Removed, None));

    // It answers what it can, keeps its connections for the answers under way, and then is alone.
    node.give(Event::Write {
        ticket: 7,
        command: Bytes::from_static(&[0; 9]),
        repeatable: true,
        deadline_ms: 99_999,
    });
    let Some(Err(WriteError::Removed { ask })) = node.writes.pop() else { panic!("{:?}", node.writes) };
    assert_eq!(ask, "node-1:3000, node-2:3000");
    let done = AdminReply { members: vec![], cluster: ClusterId(7) };
    node.says(2, PeerMessage::AdminReply { id, result: AdminResult::Done(done.clone()) });
    assert_eq!(node.answers[&1], Ok(done));
    assert_eq!(node.peers, [LEADER, OTHER]);
    node.pass(2_100, &[]);
    assert!(node.peers.is_empty());
    node.sent.clear();
    for _ in 0..300_000 {
        node.engine.handle(node.now_ms, Event::Tick);
    }
    node.settle();
    assert!(node.sent.is_empty(), "it asks for no votes: {:?}", node.sent);
    assert_eq!(node.engine.status().role, Role::Follower);
}

#[test]
fn a_disk_that_returns_is_told_and_begins_anew_and_one_that_ran_stays_where_it_is() {
    let mut node = Node::start(3);
    node.give(Event::ToldRemoved { by: OTHER });
    node.give(Event::ToldRemoved { by: LEADER });
    assert_eq!(node.removed, [true], "once");
    assert!(node.peers.is_empty(), "there is nothing to wait for");

    let mut node = Node::start(3);
    node.hears(2, Body::Heartbeat { commit: Index(0), context: 0 });
    node.give(Event::ToldRemoved { by: OTHER });
    assert_eq!(node.removed, [false]);
    node.ask(1, remove(1));
    assert!(node.answers[&1].is_ok(), "that is what it is");
    node.ask(2, remove(2));
    let Err(AdminError::Removed { ask }) = &node.answers[&2] else { panic!("{:?}", node.answers) };
    assert_eq!(ask, "node-1:3000, node-2:3000");
}

#[test]
fn who_leaves_is_served_until_its_removal_has_committed_and_is_never_taken_in_again() {
    let mut node = Node::leading(3);
    node.ask(1, remove(3));
    assert_eq!(node.peers, [LEADER, OTHER], "its removal may yet be taken back");
    assert!(node.refused.is_empty());
    node.all_answer(&[2]);
    assert_eq!(node.refused, [OTHER]);
    assert_eq!(node.peers, [LEADER, OTHER], "it is to hear of it");
    node.pass(2_100, &[2]);
    assert_eq!(node.peers, [LEADER]);
    node.ask(2, add(3, 2));
    assert!(node.refusal(2).contains("never used again"), "{}", node.refusal(2));
}

#[test]
fn any_node_knows_what_the_leader_knows_and_what_the_others_run() {
    let mut node = Node::start(3);
    node.hears(2, Body::Heartbeat { commit: Index(0), context: 0 });
    let build = BUILD.clone();
    node.says(3, PeerMessage::Introduce { peer_address: "node-2:3300".into(), build, is_low_on_disk: false });
    let standing = |id: u64, alive| MemberStanding { id: NodeId(id), matched: Index(id), alive };
    let members = vec![standing(1, true), standing(2, true), standing(3, false)];
    node.says(3, PeerMessage::Standing { members: members.clone() });
    let seen = |node: &Node| {
        let members = node.engine.status().members;
        members.into_iter().map(|m| (m.match_index.map(|i| i.0), m.active)).collect::<Vec<_>>()
    };
    assert_eq!(seen(&node), [(None, None); 3], "only the leader's word counts");
    node.says(2, PeerMessage::Standing { members });
    assert_eq!(seen(&node), [(Some(1), Some(true)), (Some(2), Some(true)), (Some(3), Some(false))]);
    let versions: Vec<_> = node.engine.status().members.into_iter().map(|m| m.version).collect();
    let own = Some(BUILD.version.clone());
    assert_eq!(versions, [own.clone(), None, own]);
    node.now_ms += 60_000;
    node.give(Event::Tick);
    assert_eq!(seen(&node), [(None, None); 3], "it is old");
}
