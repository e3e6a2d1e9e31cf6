//! How a disk becomes a member: by what it already is, by founding with its peers, or by joining a running cluster.

use super::founding::{self, Answer, Asked, Beside, Question, Reply};
use super::identity::{self, Identity, IdentityError};
use super::join::{self, JoinRequest};
use super::set_aside::set_aside;
use crate::engine::boot::{self, BootError};
use crate::engine::status::ClusterId;
use crate::kubernetes::Api;
use crate::kubernetes::api::{Mark, Marked};
use crate::peer::call_control;
use crate::repair;
use balsa_log::{Folder, Log, LogConfig, LogIdentity};
use balsa_raft::membership::Membership;
use balsa_raft::{NodeId, Raft};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What a node is told about its place.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its slot; `None` only where it joins by URL and takes a free one.
    pub slot: Option<u32>,
    /// The founders' peer addresses by slot; empty where it joins by URL.
    pub initial_peers: BTreeMap<u32, String>,
    /// A running cluster to join.
    pub join: Option<String>,
    /// Where peers reach this node.
    pub peer_address: String,
    /// Where clients reach this node.
    pub client_address: String,
    /// The log's settings.
    pub log: LogConfig,
    /// The Kubernetes around this node, which remembers whether a cluster was founded here; `None`: it runs elsewhere.
    pub kubernetes: Option<Api>,
}

/// A question at the control door, and where its answer goes.
pub type ControlCall = (Bytes, oneshot::Sender<Bytes>);

/// Where a node waits until it is a member: what it waits for, in a sentence for a person.
pub type Lobby = tokio::sync::watch::Sender<Option<String>>;

/// A disk that is a member: its identity is recorded, its log exists.
#[derive(Clone, Debug)]
pub struct Member {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its slot.
    pub slot: u32,
    /// Peers known before the log says more.
    pub peers: Vec<(NodeId, String)>,
    /// Founders that may still wait for the word to begin.
    pub to_begin: Vec<(u32, String)>,
}

const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const ASK_INTERVAL: Duration = Duration::from_millis(100);
const JOIN_INTERVAL: Duration = Duration::from_millis(500);
/// How often one member is asked to take this node in before another is looked for.
const ATTEMPTS_AT_ONE: usize = 10;
const FIND_INTERVAL: Duration = Duration::from_secs(1);

/// Why a disk cannot become a member.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Its identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its log.
    #[error(transparent)]
    Log(#[from] BootError),
    /// Its settings.
    #[error("{0}")]
    Settings(String),
    /// The disk holds a log but no identity.
    #[error(
        "the data folder holds a log but no identity.json: this disk does not know who it is. Restore the file, or move \
         the data folder away so that the node joins again under a new identity"
    )]
    IdentityMissing,
    /// The disk knows who it is, but not what it promised.
    #[error(
        "the data folder holds identity.json but no log: this disk may have voted and does not know how. Restore the log, \
         or move the data folder away so that the node joins again under a new identity"
    )]
    LogMissing,
    /// A repair was cut off.
    #[error(
        "`{0}` of this data folder was begun and has not ended: run `balsa-node {0} --yes` on it once more"
    )]
    UnderRepair(&'static str),
    /// The same, where the deploy tool is at hand and other members may live.
    #[error(
        "`{0}` of this data folder was begun and has not ended: `kubectl balsa {0} --yes` ends it, and not a hand. Where that \
         says that another cluster lives: once this folder holds nothing that you want, delete this Pod's \
         PersistentVolumeClaim and the Pod"
    )]
    UnderRepairOnKubernetes(&'static str),
    /// The disk failed.
    #[error("the data folder cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The process stops.
    #[error("stopped while waiting to become a member")]
    Stopped,
}

/// Becomes a member, however long that takes. Questions of other founders arrive in `calls` and are answered meanwhile.
pub async fn become_member(
    folder: &Folder,
    settings: &Settings,
    calls: &mut mpsc::Receiver<ControlCall>,
    lobby: &Lobby,
) -> Result<Member, MemberError> {
    if let Some(command) = repair::under_way(folder)? {
        return Err(match settings.kubernetes {
            None => MemberError::UnderRepair(command),
            Some(_) => MemberError::UnderRepairOnKubernetes(command),
        });
    }
    repair::sweep(folder)?;
    let has_log = Log::exists(&boot::log_folder(folder)).map_err(BootError::from)?;
    match identity::load(folder)? {
        Some(known) if known.removed => {
            let own = set_aside(folder, &known, mint_id())?;
            Blank { folder, settings, lobby, identity: Some(own), more_peers: Vec::new() }
                .become_member(calls)
                .await
        }
        None if has_log => Err(MemberError::IdentityMissing),
        Some(known) if has_log => {
            let member = member_of(&known, settings)?;
            if !known.begun {
                identity::save(folder, &Identity { begun: true, ..known })?; // the crash came before that
            }
            Ok(member)
        }
        Some(known) if known.begun => Err(MemberError::LogMissing),
        known => {
            Blank { folder, settings, lobby, identity: known, more_peers: Vec::new() }
                .become_member(calls)
                .await
        }
    }
}

/// Answers a founder's question as a member.
pub(crate) fn answer_as_member(
    identity: &Identity,
    slot: u32,
    client_address: &str,
    question: &Bytes,
) -> Bytes {
    let asked = Asked { identity: Some(identity), has_log: true, slot, client_address };
    match serde_json::from_slice::<Question>(question) {
        Ok(question) => encode(&founding::answer(&asked, &question).reply),
        Err(error) => encode(&Reply::Refused { why: format!("the question is not understood: {error}") }),
    }
}

/// Tells founders to begin until each has.
pub(crate) async fn tell_to_begin(cluster: ClusterId, founders: Vec<(u32, String)>) {
    let question = encode(&Question::Begin { cluster: cluster.0 });
    for (slot, address) in founders {
        let mut told = false;
        loop {
            match ask(&address, question.clone()).await {
                Ok(Reply::Begun | Reply::Member { .. }) => break, // or its disk was lost, and it joined since
                Ok(other) if !std::mem::replace(&mut told, true) => {
                    tracing::warn!(slot, address, answer = ?other, "a founder does not begin");
                }
                Ok(_) => tokio::time::sleep(JOIN_INTERVAL).await,
                Err(error) => tracing::debug!(slot, address, error, "a founder was not reached"),
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }
}

fn member_of(identity: &Identity, settings: &Settings) -> Result<Member, MemberError> {
    let Some(cluster) = identity.cluster else { return Err(MemberError::IdentityMissing) };
    let slot = identity.slot.or(settings.slot).unwrap_or_default();
    if let Some(wanted) = settings.slot
        && wanted != slot
    {
        return Err(MemberError::Settings(format!(
            "setting slot is {wanted}, but this data folder belongs to slot {slot}: give --slot {slot}, or another folder"
        )));
    }
    let others = || identity.founders.iter().filter(|founder| founder.node != identity.node.0);
    let peers = others().map(|founder| (NodeId(founder.node), founder.peer_address.clone())).collect();
    let to_begin = match identity.proposer && !identity.founded {
        true => others().map(|founder| (founder.slot, founder.peer_address.clone())).collect(),
        false => Vec::new(),
    };
    Ok(Member { cluster, node: identity.node, slot, peers, to_begin })
}

/// A disk without a log.
struct Blank<'a> {
    folder: &'a Folder,
    settings: &'a Settings,
    lobby: &'a Lobby,
    identity: Option<Identity>,
    /// Where members may be beside the founders' slots.
    more_peers: Vec<(u32, String)>,
}

impl Blank<'_> {
    async fn become_member(self, calls: &mut mpsc::Receiver<ControlCall>) -> Result<Member, MemberError> {
        if let Some(url) = self.settings.join.clone() {
            return self.join(&url).await;
        }
        if self.identity.as_ref().is_some_and(|identity| identity.founders.is_empty()) {
            if self.settings.initial_peers.is_empty() {
                return Err(MemberError::Settings(
                    "this data folder was joining a cluster by --join: give it again".to_string(),
                ));
            }
            return self
                .join_by_peers("a peer that is a member of the cluster to join".to_string(), calls)
                .await;
        }
        let Some(slot) = self.settings.slot else {
            return Err(MemberError::Settings("setting slot is missing: founding needs it".to_string()));
        };
        if !self.settings.initial_peers.contains_key(&slot) {
            let what = format!("a peer that is a member: slot {slot} is no founder, and joins");
            return self.join_by_peers(what, calls).await;
        }
        if let Some(founded) = self.founded_before().await {
            return self.join_by_peers(founded, calls).await;
        }
        if self.settings.initial_peers.keys().next() == Some(&slot) {
            self.propose(slot, calls).await
        } else {
            self.wait_for_proposal(slot, calls).await
        }
    }

    /// The lowest slot: asks all others until all have agreed.
    async fn propose(
        mut self,
        slot: u32,
        calls: &mut mpsc::Receiver<ControlCall>,
    ) -> Result<Member, MemberError> {
        let proposal = match self.identity.take() {
            Some(recorded) => recorded,
            None => {
                let proposal = founding::propose(slot, &self.settings.initial_peers, mint_id);
                identity::save(self.folder, &proposal)?;
                proposal
            }
        };
        let cluster = proposal.cluster.map_or(0, |cluster| cluster.0);
        for (peer, address) in self.peers_but(Some(slot)) {
            loop {
                self.wait(format!("slot {peer} ({address}) to say whether it is a member of a cluster"));
                match ask(&address, encode(&Question::Hello)).await {
                    Ok(Reply::NoMember) => break,
                    Ok(Reply::Member { cluster, client_address }) => {
                        return self.give_way(peer, cluster, &client_address).await;
                    }
                    Ok(other) => tracing::warn!(slot = peer, answer = ?other, "a peer gives no such answer"),
                    Err(error) => tracing::debug!(slot = peer, error, "a peer was not reached"),
                }
                tokio::time::sleep(ASK_INTERVAL).await;
            }
        }
        let mut clients = BTreeMap::from([(slot, self.settings.client_address.clone())]);
        while clients.len() < proposal.founders.len() {
            let missing = proposal.founders.iter().find(|founder| !clients.contains_key(&founder.slot));
            let Some(founder) = missing else { break };
            self.wait(format!("slot {} ({}) to agree to the founding", founder.slot, founder.peer_address));
            let founders = proposal.founders.clone();
            let question = encode(&Question::Propose { cluster, founders, slot: founder.slot });
            match ask(&founder.peer_address, question).await {
                Ok(Reply::Agreed { client_address }) => {
                    clients.insert(founder.slot, client_address);
                }
                Ok(Reply::Member { cluster, client_address }) => {
                    return self.give_way(founder.slot, cluster, &client_address).await;
                }
                Ok(other) => {
                    tracing::warn!(slot = founder.slot, answer = ?other, "a peer does not agree to the founding");
                    tokio::time::sleep(JOIN_INTERVAL).await;
                }
                Err(error) => {
                    tracing::debug!(slot = founder.slot, error, "a peer was not reached");
                    tokio::time::sleep(ASK_INTERVAL).await;
                }
            }
        }
        if let Some(founded) = self.leave_mark(ClusterId(cluster)).await {
            return self.join_by_peers(founded, calls).await;
        }
        let first = founding::first_membership(&proposal.founders, &clients);
        self.create_log(&proposal, Some(&first))?;
        tracing::info!(cluster = %ClusterId(cluster), founders = clients.len(), "all founders agreed: the cluster begins");
        member_of(&proposal, self.settings)
    }

    /// A peer is a member of a cluster that this disk has no part in: it joins that one under a new identity.
    async fn give_way(
        mut self,
        slot: u32,
        cluster: u64,
        client_address: &str,
    ) -> Result<Member, MemberError> {
        let cluster = ClusterId(cluster);
        tracing::warn!(slot, %cluster, "a peer is a member of a cluster already: this blank disk joins that one");
        self.forget_proposal()?;
        self.join(client_address).await
    }

    /// Gives up what was agreed to in a founding that this disk never began: nothing was ever said or voted under it.
    fn forget_proposal(&mut self) -> Result<(), IdentityError> {
        if self.identity.take_if(|identity| !identity.founders.is_empty()).is_some() {
            identity::discard(self.folder)?;
        }
        Ok(())
    }

    /// Joins whatever cluster a peer is a member of, and founds nothing. Waits for one for as long as it takes.
    async fn join_by_peers(
        mut self,
        what: String,
        calls: &mut mpsc::Receiver<ControlCall>,
    ) -> Result<Member, MemberError> {
        self.wait(what);
        if let (Some(api), Some(slot)) = (&self.settings.kubernetes, self.settings.slot) {
            self.more_peers = api.peers(&self.settings.peer_address, slot).await;
        }
        let peers = self.peers_but(self.settings.slot);
        let (_, client_address) = tokio::select! {
            found = find_member(peers) => found,
            () = refuse_founding(calls) => return Err(MemberError::Stopped),
        };
        self.forget_proposal()?;
        self.join(&client_address).await
    }

    /// On Kubernetes: what to wait for, where a cluster was founded here that this disk has no part in. Its volumes may
    /// be lost or only late: a blank disk cannot tell, and founds nothing beside it (hazard 20).
    async fn founded_before(&self) -> Option<String> {
        let api = self.settings.kubernetes.as_ref()?;
        let mark = self.read_mark(api).await;
        self.founded_by_others(api, &mark)
    }

    fn founded_by_others(&self, api: &Api, mark: &Mark) -> Option<String> {
        let cluster = mark.cluster?;
        let own = self.identity.as_ref().and_then(|identity| identity.cluster);
        (own != Some(cluster)).then(|| {
            format!(
                "a member of cluster {cluster}, which was founded here (ConfigMap {}): this disk is blank and founds no \
                 other beside it. Where all members are lost, recover or restore",
                api.mark_name()
            )
        })
    }

    /// On Kubernetes: all have agreed to found `cluster`, and before it begins its mark is left, once for all. Gives
    /// what to wait for where somebody else's is there.
    async fn leave_mark(&self, cluster: ClusterId) -> Option<String> {
        let api = self.settings.kubernetes.as_ref()?;
        loop {
            let mark = self.read_mark(api).await;
            if mark.cluster.is_some() {
                return self.founded_by_others(api, &mark);
            }
            match api.leave_mark(&mark, cluster).await {
                Ok(Marked::Done) => return None,
                Ok(Marked::Conflict) => {}
                Err(why) => {
                    self.wait(format!("the API server to take the mark of the founding ({why})"));
                    tokio::time::sleep(JOIN_INTERVAL).await;
                }
            }
        }
    }

    async fn read_mark(&self, api: &Api) -> Mark {
        loop {
            match api.mark().await {
                Ok(mark) => return mark,
                Err(why) => {
                    self.wait(format!(
                        "the API server to say whether a cluster was founded here before ({why})"
                    ));
                    tokio::time::sleep(JOIN_INTERVAL).await;
                }
            }
        }
    }

    /// The peer addresses of the founders, and of others where they are known, without that of a slot.
    fn peers_but(&self, slot: Option<u32>) -> Vec<(u32, String)> {
        let founders = &self.settings.initial_peers;
        let others = self.more_peers.iter().filter(|(peer, _)| !founders.contains_key(peer));
        let peers = founders.iter().map(|(peer, address)| (*peer, address.clone())).chain(others.cloned());
        peers.filter(|(peer, _)| Some(*peer) != slot).collect()
    }

    /// Every other slot: answers the proposer until told to begin, or until a peer proves to be a member already.
    async fn wait_for_proposal(
        mut self,
        slot: u32,
        calls: &mut mpsc::Receiver<ControlCall>,
    ) -> Result<Member, MemberError> {
        self.wait("the lowest slot to propose the founding, or a peer that is a member already".to_string());
        let mut living = std::pin::pin!(find_member(self.peers_but(Some(slot))));
        loop {
            let call = tokio::select! {
                call = calls.recv() => call,
                (cluster, client_address) = &mut living => {
                    return match (founding::beside(self.identity.as_ref(), cluster), self.identity.clone()) {
                        (Beside::Begin, Some(own)) => {
                            tracing::info!(%cluster, "the cluster has begun without this founder: it begins, too");
                            self.create_log(&own, None)?;
                            member_of(&own, self.settings)
                        }
                        _ => self.give_way(slot, cluster.0, &client_address).await,
                    };
                }
            };
            let Some((bytes, reply_to)) = call else { return Err(MemberError::Stopped) };
            let question = match serde_json::from_slice::<Question>(&bytes) {
                Ok(question) => question,
                Err(error) => {
                    let why = format!("the question is not understood: {error}");
                    let _ = reply_to.send(encode(&Reply::Refused { why }));
                    continue;
                }
            };
            let client_address = &self.settings.client_address;
            let asked = Asked { identity: self.identity.as_ref(), has_log: false, slot, client_address };
            let Answer { reply, record, begin } = founding::answer(&asked, &question);
            if let Some(record) = record {
                identity::save(self.folder, &record)?;
                self.identity = Some(record);
                self.wait("the other founders to agree".to_string());
            }
            let begun = match (begin, &self.identity) {
                (true, Some(identity)) => {
                    self.create_log(identity, None)?;
                    Some(identity.clone())
                }
                _ => None,
            };
            let _ = reply_to.send(encode(&reply));
            if let Some(identity) = begun {
                return member_of(&identity, self.settings);
            }
        }
    }

    /// Asks a running cluster until it takes this node in.
    async fn join(mut self, url: &str) -> Result<Member, MemberError> {
        let mut own = match self.identity.take() {
            Some(recorded) => recorded,
            None => {
                let node = NodeId(mint_id());
                let (slot, founders) = (self.settings.slot, Vec::new());
                let own = Identity {
                    cluster: None,
                    node,
                    slot,
                    founders,
                    proposer: false,
                    founded: true,
                    begun: false,
                    removed: false,
                };
                identity::save(self.folder, &own)?;
                own
            }
        };
        own.slot = own.slot.or(self.settings.slot); // it may have been given since
        let request = JoinRequest {
            id: join::id_text(own.node),
            slot: own.slot,
            peer_address: &self.settings.peer_address,
            client_address: &self.settings.client_address,
        };
        let mut url = url.to_string();
        for attempt in 1.. {
            self.wait(format!("{url} to take this node in"));
            match join::ask(&url, &request).await.and_then(|reply| Joined::read(&reply, own.node)) {
                Ok(joined) if own.cluster.is_some_and(|cluster| cluster != joined.cluster) => {
                    // Taken in or not, it never begins there: it is to return to where it was removed from.
                    let (wanted, found) = (own.cluster.map_or(0, |cluster| cluster.0), joined.cluster);
                    return Err(MemberError::Settings(format!(
                        "this disk was removed from cluster {} and is to join that again, but {url} is of cluster {found}: \
                         give the right address, or an empty data folder",
                        ClusterId(wanted)
                    )));
                }
                Ok(joined) => {
                    own.cluster = Some(joined.cluster);
                    own.slot = Some(joined.slot);
                    identity::save(self.folder, &own)?;
                    self.create_log(&own, None)?;
                    let node = own.node;
                    tracing::info!(cluster = %joined.cluster, %node, slot = joined.slot, "taken into the cluster");
                    let (cluster, slot, peers) = (joined.cluster, joined.slot, joined.peers);
                    return Ok(Member { cluster, node, slot, peers, to_begin: Vec::new() });
                }
                Err(error) => tracing::warn!(url, error, "not taken in yet"),
            }
            tokio::time::sleep(JOIN_INTERVAL).await;
            if self.settings.join.is_none() && attempt % ATTEMPTS_AT_ONE == 0 {
                // Whoever answered first may have been removed itself since: another may know better.
                let mut peers = self.peers_but(own.slot);
                let turns = attempt / ATTEMPTS_AT_ONE % peers.len().max(1);
                peers.rotate_left(turns);
                (_, url) = find_member(peers).await;
            }
        }
        unreachable!("the attempts do not end")
    }

    fn create_log(&self, identity: &Identity, first: Option<&Membership>) -> Result<(), MemberError> {
        let cluster = identity.cluster.map_or(0, |cluster| cluster.0);
        let names = LogIdentity { cluster, node: identity.node.0 };
        let entries = first.map(Raft::bootstrap_entry).into_iter().collect();
        boot::create(self.folder, self.settings.log.clone(), names, entries)?;
        identity::save(self.folder, &Identity { begun: true, ..identity.clone() })?;
        Ok(())
    }

    fn wait(&self, for_what: String) {
        self.lobby.send_if_modified(|current| {
            let changed = current.as_ref() != Some(&for_what);
            if changed {
                tracing::info!("waiting for {for_what}");
                *current = Some(for_what);
            }
            changed
        });
    }
}

struct Joined {
    cluster: ClusterId,
    slot: u32,
    peers: Vec<(NodeId, String)>,
}

impl Joined {
    fn read(reply: &join::JoinReply, own: NodeId) -> Result<Joined, String> {
        let cluster = ClusterId(join::parse_id(&reply.cluster)?);
        let mut peers = Vec::new();
        let mut slot = None;
        for member in &reply.members {
            let id = NodeId(join::parse_id(&member.id)?);
            if id == own {
                slot = Some(member.slot);
            } else {
                peers.push((id, member.peer_address.clone()));
            }
        }
        let slot = slot.ok_or("the cluster's answer does not list this node")?;
        Ok(Joined { cluster, slot, peers })
    }
}

/// Answers founders for a disk that joins. Ends when the process does.
async fn refuse_founding(calls: &mut mpsc::Receiver<ControlCall>) {
    while let Some((question, reply_to)) = calls.recv().await {
        let reply = match serde_json::from_slice::<Question>(&question) {
            Ok(Question::Hello) => Reply::NoMember,
            _ => Reply::Refused { why: "this node is about to join a cluster, and founds none".to_string() },
        };
        let _ = reply_to.send(encode(&reply));
    }
}

/// Asks peers in turn until one is a member of a cluster; gives that and where its clients reach it. Begins after a
/// while: in a founding among blank disks nobody is.
async fn find_member(peers: Vec<(u32, String)>) -> (ClusterId, String) {
    loop {
        tokio::time::sleep(FIND_INTERVAL).await;
        for (slot, address) in &peers {
            match ask(address, encode(&Question::Hello)).await {
                Ok(Reply::Member { cluster, client_address }) => return (ClusterId(cluster), client_address),
                Ok(_) => {}
                Err(error) => tracing::debug!(slot, address, error, "a peer was not reached"),
            }
        }
    }
}

/// Asks a peer whether it is a member.
pub(super) async fn hello(address: &str) -> Result<Reply, String> {
    ask(address, encode(&Question::Hello)).await
}

async fn ask(address: &str, question: Bytes) -> Result<Reply, String> {
    let answer = call_control(address, question, ASK_TIMEOUT).await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&answer).map_err(|error| format!("its answer is not understood: {error}"))
}

fn encode<M: serde::Serialize>(message: &M) -> Bytes {
    match serde_json::to_vec(message) {
        Ok(bytes) => bytes.into(),
        Err(error) => panic!("a founding message cannot be written as JSON: {error}"),
    }
}

/// A new id from the operating system's randomness. Never 0.
pub(crate) fn mint_id() -> u64 {
    loop {
        match getrandom::u64() {
            Ok(0) => {}
            Ok(id) => return id,
            Err(error) => panic!("the operating system has no randomness for an identity: {error}"),
        }
    }
}
