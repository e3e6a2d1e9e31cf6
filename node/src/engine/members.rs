//! What this node knows of the other members, whom it keeps connections to, and whether it is a member itself.
//!
//! Three states of a node that goes: its removal is appended (it may still be needed, and is served), committed (it is
//! told, and soon let go), and over. Whoever was removed and has not seen the entry learns it from the refusal of its
//! next stream. It is never concluded from silence, from elections that fail, or from a list of members, which may be
//! old: only from the replicated record of those that were removed, once that is committed ([`Directory::removed`]).

use super::Engine;
use super::directory::{self, Directory};
use super::event::{Effect, Tickets};
use super::message::{BUILD, Build, MemberStanding, PeerMessage};
use super::status::MemberStatus;
use balsa_raft::{Index, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// How many nodes may have introduced themselves at addresses that this node's membership does not tell; of more, only the
/// leader is remembered.
const MAX_INTRODUCED: usize = 16;
/// How long a connection is kept to a node that is no member here and asked for a vote, in ms: long enough to make the
/// connection, and for its next question.
const ASKS_MS: u64 = 10_000;
/// Of how many nodes it is remembered what they run, members apart.
const BUILDS_MAX: usize = 64;
/// How long a leader keeps its connection to a node whose removal has committed, and that node its own, in ms: for the
/// word that it has, and for the answers to what it forwarded.
const FAREWELL_MS: u64 = 2_000;
/// How often a leader tells the others what it knows of each, in ms.
const STANDING_INTERVAL_MS: u64 = 500;
/// How long what the leader told of the others is believed, in ms.
const STANDING_TTL_MS: u64 = 3_000;

/// What is known of the others, and of this node's own place among them.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// When each was last heard from, in ms of the engine's clock.
    heard_ms: BTreeMap<NodeId, u64>,
    /// Since when each is in this node's membership. Bounded by that.
    known_since_ms: BTreeMap<NodeId, u64>,
    /// What each runs, as it said itself. Bounded by the membership and [`BUILDS_MAX`].
    builds: BTreeMap<NodeId, Build>,
    /// Nodes that this node's membership does not list, or lists at another address. At most [`MAX_INTRODUCED`].
    introduced: BTreeMap<NodeId, Introduced>,
    /// Were members, and are still connected to.
    leaving: BTreeMap<NodeId, Leaving>,
    /// The committed membership entry that was last taken note of.
    settled: Index,
    /// Since when this node leads.
    leading_since_ms: Option<u64>,
    /// What the leader told of the others, and when.
    standing: Option<(NodeId, u64, Vec<MemberStanding>)>,
    told_standing_ms: u64,
    removal: Option<Removal>,
}

/// It is a peer all the same, there, while it leads or asks for votes: this node's membership may be the older one, as that of
/// a snapshot is; a leader that it does not answer cannot bring it the newer one, and without its vote there may be none.
#[derive(Debug)]
struct Introduced {
    /// Where it said that it is.
    address: String,
    /// It asked for a vote, and counts as a candidate until then.
    asks_until_ms: Option<u64>,
}

#[derive(Debug)]
struct Leaving {
    address: String,
    /// Its removal has committed, and it is let go then.
    until_ms: Option<u64>,
}

/// This node was removed.
#[derive(Debug)]
pub(super) struct Removal {
    /// Its connections end then; `None`: they have.
    farewell_ms: Option<u64>,
    /// See [`Effect::Removed`].
    returned: bool,
    /// Client addresses of members.
    ask: String,
}

impl Removal {
    /// Whom to ask instead of this node.
    pub(super) fn ask(&self) -> &str {
        &self.ask
    }

    /// What a person should know.
    pub(super) fn advice(&self) -> &'static str {
        match self.returned {
            true => "its data to be set aside: this disk was removed from the cluster while it was away",
            false => {
                "its end: it was removed from the cluster. Started again, it sets its data aside and joins under a new \
                 identity"
            }
        }
    }
}

impl Members {
    /// This node leads since then, or does not.
    pub(super) fn leader_changed(&mut self, leading_since_ms: Option<u64>) {
        if leading_since_ms.is_none() || self.leading_since_ms.is_none() {
            self.leading_since_ms = leading_since_ms;
        }
    }
}

impl<T: Tickets> Engine<T> {
    /// The effective membership is another one: appended, or taken back.
    pub(super) fn membership_changed(&mut self) {
        self.status_changed = true;
        let membership = self.raft.membership();
        let directory = match Directory::from_context(&membership.context) {
            Ok(directory) => directory,
            Err(error) => panic!("the directory in a membership entry cannot be read: {error}"),
        };
        let ids = self.other_members();
        let gone = (self.directory.members.iter())
            .map(|member| NodeId(member.id))
            .filter(|id| *id != self.config.id && directory.get(*id).is_none());
        let gone: Vec<(NodeId, Option<String>)> = gone.map(|id| (id, self.address_of(id))).collect();
        let before = std::mem::replace(&mut self.directory, directory);
        let (members, now) = (&mut self.members, self.now_ms);
        for (id, address) in gone {
            if let Some(address) = address {
                members.leaving.entry(id).or_insert(Leaving { address, until_ms: None });
            }
        }
        members.leaving.retain(|id, _| self.directory.get(*id).is_none());
        members.heard_ms.retain(|id, _| ids.contains(id));
        members.builds.retain(|id, _| ids.contains(id));
        self.storage.keep(&ids);
        let told =
            |directory: &Directory, id: NodeId| directory.get(id).map(|member| member.peer_address.clone());
        members.introduced.retain(|id, introduced| match told(&self.directory, *id) {
            None => true,
            // What the newer membership says is newer, unless it says nothing new.
            Some(now) => now != introduced.address && told(&before, *id).is_none_or(|before| before == now),
        });
        let (own_before, own) = (told(&before, self.config.id), told(&self.directory, self.config.id));
        members.known_since_ms.retain(|id, _| ids.contains(id));
        for id in ids {
            members.known_since_ms.entry(id).or_insert(now);
        }
        if own_before.is_some() && own.is_some() && own != own_before {
            let connected: Vec<NodeId> = self.connected.iter().copied().collect();
            connected.into_iter().for_each(|peer| self.introduce_to(peer));
        }
        self.give_up_snapshots();
        self.judge_storage();
        self.set_peers();
    }

    /// Takes note of a membership that has committed: who left may be let go and told, be it this node itself.
    pub(super) fn maybe_settle_membership(&mut self) {
        if self.is_removed() {
            return self.refuse_as_removed();
        }
        let at = self.raft.membership_index();
        if self.raft.is_changing_membership() || at <= self.members.settled {
            return;
        }
        self.members.settled = at;
        let until_ms = self.now_ms + if self.raft.is_leader() { FAREWELL_MS } else { 0 };
        for leaving in self.members.leaving.values_mut() {
            leaving.until_ms.get_or_insert(until_ms);
        }
        let membership = self.raft.membership();
        let removed = self.directory.removed.iter().map(|id| NodeId(*id));
        let removed = removed.filter(|id| *id != self.config.id && !membership.is_member(*id)).collect();
        self.effects.push(Effect::SetRemoved(removed));
        self.expire_leaving();
        if self.directory.was_removed(self.config.id) && !self.raft.membership().is_member(self.config.id) {
            self.become_removed(Some(self.now_ms + FAREWELL_MS));
        }
    }

    /// A member refused this node's stream because it was removed.
    pub(super) fn handle_told_removed(&mut self, by: NodeId) {
        if !self.is_removed() {
            tracing::info!(node = %self.config.id, %by, "told by a member");
            self.become_removed(None);
        }
    }

    fn become_removed(&mut self, farewell_ms: Option<u64>) {
        let others = self.directory.members.iter().filter(|member| member.id != self.config.id.0);
        let ask: Vec<&str> = others.map(|member| member.client_address.as_str()).collect();
        let returned = self.last_leader.is_none();
        let ask = if ask.is_empty() { "another member".to_string() } else { ask.join(", ") };
        let removal = Removal { farewell_ms, returned, ask };
        tracing::warn!(
            node = %self.config.id, term = %self.raft.term(), returned, ask = removal.ask,
            "this node was removed from the cluster"
        );
        self.members.removal = Some(removal);
        self.status_changed = true;
        self.effects.push(Effect::Removed { returned });
        if farewell_ms.is_none() {
            self.effects.push(Effect::SetPeers(Vec::new()));
        }
        self.refuse_as_removed();
    }

    /// Answers all that waits for a leader: there will be none for this node.
    fn refuse_as_removed(&mut self) {
        let Some(ask) = self.removal().map(|removal| removal.ask().to_string()) else { return };
        self.refuse_writes_as_removed(&ask);
        self.refuse_reads_as_removed(&ask);
        self.refuse_admins_as_removed(&ask);
    }

    /// Whether this node was removed from the cluster, for certain.
    pub(super) fn is_removed(&self) -> bool {
        self.members.removal.is_some()
    }

    pub(super) fn removal(&self) -> Option<&Removal> {
        self.members.removal.as_ref()
    }

    /// Ends connections whose time is over.
    pub(super) fn expire_leaving(&mut self) {
        let now = self.now_ms;
        if let Some(removal) = &mut self.members.removal
            && removal.farewell_ms.take_if(|until| *until <= now).is_some()
        {
            self.effects.push(Effect::SetPeers(Vec::new()));
        }
        let before = self.members.leaving.len();
        self.members.leaving.retain(|_, leaving| leaving.until_ms.is_none_or(|until| until > now));
        let mut is_over = self.members.leaving.len() < before;
        for introduced in self.members.introduced.values_mut() {
            is_over |= introduced.asks_until_ms.take_if(|until| *until <= now).is_some();
        }
        if is_over {
            self.set_peers();
        }
    }

    pub(super) fn other_members(&self) -> BTreeSet<NodeId> {
        let mut known = self.raft.membership().members();
        known.remove(&self.config.id);
        known
    }

    /// Peers are the members that this node knows, those that leave, the leader, and candidates: its membership may be
    /// older than they are.
    fn set_peers(&mut self) {
        if self.is_removed() {
            return; // as they are, until the farewell is over
        }
        let wanted = |(id, introduced): &(&NodeId, &Introduced)| {
            // A member that asks a leader for its vote may be the one whose membership is old.
            let may_know_better = !self.raft.is_leader() || self.directory.get(**id).is_none();
            self.raft.leader() == Some(**id) || (introduced.asks_until_ms.is_some() && may_know_better)
        };
        let introduced = self.members.introduced.iter().filter(wanted);
        let mut introduced: BTreeMap<NodeId, String> =
            introduced.map(|(id, introduced)| (*id, introduced.address.clone())).collect();
        let mut peers: Vec<(NodeId, String)> = Vec::new();
        for id in self.other_members() {
            let own_word = introduced.remove(&id).filter(|_| !self.is_fixed(id));
            peers.extend(own_word.or_else(|| self.address_of(id)).map(|address| (id, address)));
        }
        for (id, leaving) in &self.members.leaving {
            introduced.remove(id);
            peers.push((*id, leaving.address.clone()));
        }
        peers.extend(introduced);
        // A disk that has not heard of its membership yet keeps to the peers that it was told of.
        if !self.raft.membership().voters.is_empty() || !peers.is_empty() {
            self.effects.push(Effect::SetPeers(peers));
        }
    }

    /// There may be another leader, and it may be known by its own word only.
    pub(super) fn leader_may_be_introduced(&mut self) {
        if !self.members.introduced.is_empty() {
            self.set_peers();
        }
    }

    pub(super) fn introduce_to(&mut self, peer: NodeId) {
        let own = self.directory.get(self.config.id);
        let peer_address = own.map(|own| own.peer_address.clone()).unwrap_or_default();
        let build = Build { feature_level: self.own_level(), ..BUILD.clone() };
        let is_low_on_disk = self.is_low_on_disk(self.config.id);
        let message = PeerMessage::Introduce { peer_address, build, is_low_on_disk };
        self.effects.push(Effect::Send { to: peer, message });
    }

    pub(super) fn handle_introduction(&mut self, from: NodeId, peer_address: String, build: Build) {
        let is_member = self.other_members().contains(&from);
        if is_member || self.members.builds.len() < BUILDS_MAX {
            self.members.builds.insert(from, build); // a blank node knows no members yet
        }
        if peer_address.is_empty() || self.directory.was_removed(from) {
            return;
        }
        if self.directory.get(from).is_some_and(|member| member.peer_address == peer_address) {
            if self.members.introduced.remove(&from).is_some() {
                self.set_peers();
            }
            return; // the membership says where it is
        }
        if self.members.introduced.len() >= MAX_INTRODUCED {
            let leader = self.raft.leader();
            self.members.introduced.retain(|id, _| Some(*id) == leader);
        }
        let asks_until_ms = self.members.introduced.get(&from).and_then(|known| known.asks_until_ms);
        self.members.introduced.insert(from, Introduced { address: peer_address, asks_until_ms });
        if self.raft.leader() == Some(from) || asks_until_ms.is_some() {
            self.set_peers();
        }
    }

    /// A node asks for a vote. Where this node's membership does not list it, it needs a connection for the answer.
    pub(super) fn heard_candidate(&mut self, from: NodeId) {
        let until_ms = self.now_ms + ASKS_MS;
        let Some(introduced) = self.members.introduced.get_mut(&from) else { return };
        if introduced.asks_until_ms.replace(until_ms).is_none() {
            self.set_peers();
        }
    }

    /// A setting says where its slot is.
    fn is_fixed(&self, id: NodeId) -> bool {
        self.directory.get(id).is_some_and(|member| self.config.fixed_addresses.contains_key(&member.slot))
    }

    fn address_of(&self, id: NodeId) -> Option<String> {
        let member = self.directory.get(id)?;
        Some(self.config.fixed_addresses.get(&member.slot).unwrap_or(&member.peer_address).clone())
    }

    pub(super) fn heard_from(&mut self, id: NodeId) {
        self.members.heard_ms.insert(id, self.now_ms);
    }

    /// What another node last said that it runs.
    pub(super) fn told_build(&self, id: NodeId) -> Option<&Build> {
        self.members.builds.get(&id)
    }

    /// As leader: whether a member was heard from since this node leads.
    pub(super) fn was_heard_while_leading(&self, id: NodeId) -> bool {
        let heard_ms = self.members.heard_ms.get(&id);
        heard_ms.zip(self.members.leading_since_ms).is_some_and(|(heard_ms, since_ms)| *heard_ms >= since_ms)
    }

    /// Whether a member was heard from lately. Oneself is alive.
    pub(super) fn is_alive(&self, id: NodeId) -> bool {
        let lately = |heard_ms: &u64| heard_ms + self.config.alive_ms >= self.now_ms;
        id == self.config.id || self.members.heard_ms.get(&id).is_some_and(lately)
    }

    /// As leader: whether a member had its time to be heard, and was not. A leader that has just been elected has heard
    /// nobody, and that says nothing.
    pub(super) fn is_silent(&self, id: NodeId) -> bool {
        let long_ago = |since_ms: &u64| since_ms + self.config.alive_ms < self.now_ms;
        !self.is_alive(id)
            && self.members.leading_since_ms.as_ref().is_some_and(long_ago)
            && self.members.known_since_ms.get(&id).is_none_or(long_ago)
    }

    /// As leader: tells the others what it knows of each, so that any node can say how the cluster is.
    pub(super) fn tell_standing(&mut self) {
        if !self.raft.is_leader() || self.now_ms < self.members.told_standing_ms + STANDING_INTERVAL_MS {
            return;
        }
        self.members.told_standing_ms = self.now_ms;
        let standing = |member: &directory::Member| {
            let id = NodeId(member.id);
            let matched = if id == self.config.id {
                Some(self.raft.last_index())
            } else {
                self.raft.peer_status(id).map(|peer| peer.matched)
            };
            MemberStanding { id, matched: matched.unwrap_or_default(), alive: self.is_alive(id) }
        };
        let members: Vec<MemberStanding> = self.directory.members.iter().map(standing).collect();
        for to in self.other_members() {
            if self.connected.contains(&to) {
                let message = PeerMessage::Standing { members: members.clone() };
                self.effects.push(Effect::Send { to, message });
            }
        }
    }

    /// What the leader knows of each.
    pub(super) fn handle_standing(&mut self, from: NodeId, members: Vec<MemberStanding>) {
        if self.raft.leader() == Some(from) {
            self.members.standing = Some((from, self.now_ms, members));
        }
    }

    /// What the leader told of a member lately.
    fn told_standing(&self, id: NodeId) -> Option<&MemberStanding> {
        let (by, at_ms, members) = self.members.standing.as_ref()?;
        if self.raft.leader() != Some(*by) || at_ms + STANDING_TTL_MS < self.now_ms {
            return None;
        }
        members.iter().find(|standing| standing.id == id)
    }

    /// A member as this node knows it.
    pub(super) fn member_status(&self, member: &directory::Member) -> MemberStatus {
        let (id, leads) = (NodeId(member.id), self.raft.is_leader());
        let own = id == self.config.id;
        let told = self.told_standing(id);
        let match_index = match leads {
            true if own => Some(self.raft.last_index()),
            true => self.raft.peer_status(id).map(|peer| peer.matched),
            false => told.map(|told| told.matched),
        };
        let build = if own { Some(&*BUILD) } else { self.members.builds.get(&id) };
        MemberStatus {
            id,
            slot: member.slot,
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            voter: self.raft.membership().voters.contains(&id),
            match_index,
            active: if leads { Some(self.is_alive(id)) } else { told.map(|told| told.alive) },
            version: build.map(|build| build.version.clone()),
            feature_level: self.told_level(id),
            is_low_on_disk: self.is_low_on_disk(id),
        }
    }
}
