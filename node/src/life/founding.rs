//! How blank disks become a cluster: the lowest slot proposes, all record, then the first membership is appended.
//!
//! Pure: questions and answers of the founding talk, decided from what a disk records. The shell carries them and calls
//! [`crate::life::identity::save`] where [`Answer::record`] says so, before the answer leaves.
//!
//! Rules (contract, Founding): the proposer records cluster and node ids before it asks anybody; a blank peer records both
//! before it agrees; the proposer's log begins only when all have agreed. A peer that agreed may agree to another proposal
//! as long as nothing has begun: it has no log and has never voted, so the identity it gives up was never used. A peer that
//! has begun (it has a log) never does: whoever asks it has lost a disk and must join instead (hazard 20).

use super::identity::{Founder, Identity};
use crate::engine::directory::{Directory, Member};
use crate::engine::status::ClusterId;
use balsa_raft::NodeId;
use balsa_raft::membership::Membership;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the proposer says to a peer's control door.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// "Do you agree to found this cluster?"
    Propose {
        /// The cluster.
        #[serde(with = "super::identity::hex_id")]
        cluster: u64,
        /// All founders, the proposer among them.
        founders: Vec<Founder>,
        /// The slot that is asked.
        slot: u32,
    },
    /// "All have agreed: begin."
    Begin {
        /// The cluster.
        #[serde(with = "super::identity::hex_id")]
        cluster: u64,
    },
}

/// What a peer answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It has recorded the proposal and waits for the word to begin.
    Agreed {
        /// Where its clients reach it.
        client_address: String,
    },
    /// It has begun.
    Begun,
    /// It is a member of a cluster already: the asker must join that one.
    Member {
        /// The cluster.
        #[serde(with = "super::identity::hex_id")]
        cluster: u64,
        /// Where clients reach this member.
        client_address: String,
    },
    /// It cannot, and why.
    Refused {
        /// A sentence for a person.
        why: String,
    },
}

/// A peer's answer and what it must have recorded before that leaves.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// What to say.
    pub reply: Reply,
    /// Record this first.
    pub record: Option<Identity>,
    /// Make the log and start the engine first.
    pub begin: bool,
}

/// What a peer knows of itself when it is asked.
#[derive(Clone, PartialEq, Debug)]
pub struct Asked<'a> {
    /// Its identity, if it has one.
    pub identity: Option<&'a Identity>,
    /// It has a log: it may have voted.
    pub has_log: bool,
    /// Its slot by its own settings.
    pub slot: u32,
    /// Where its clients reach it.
    pub client_address: &'a str,
}

/// A proposal for blank founders, with ids from `mint` (never 0).
pub fn propose(slot: u32, peers: &BTreeMap<u32, String>, mut mint: impl FnMut() -> u64) -> Identity {
    let cluster = ClusterId(mint());
    let founder = |(slot, address): (&u32, &String)| Founder {
        slot: *slot,
        node: mint(),
        peer_address: address.clone(),
    };
    let founders: Vec<Founder> = peers.iter().map(founder).collect();
    let own = founders.iter().find(|founder| founder.slot == slot).map_or(0, |founder| founder.node);
    assert!(own != 0, "slot {slot} proposes a founding that it is not part of: {founders:?}");
    Identity {
        cluster: Some(cluster),
        node: NodeId(own),
        slot: Some(slot),
        founders,
        proposer: true,
        founded: false,
    }
}

/// A peer answers.
pub fn answer(asked: &Asked<'_>, question: &Question) -> Answer {
    let only = |reply| Answer { reply, record: None, begin: false };
    if let (Some(identity), true) = (asked.identity, asked.has_log) {
        let cluster = identity.cluster.map_or(0, |cluster| cluster.0);
        let same = match question {
            Question::Propose { cluster: proposed, .. } | Question::Begin { cluster: proposed } => {
                *proposed == cluster
            }
        };
        return only(if same {
            Reply::Begun
        } else {
            Reply::Member { cluster, client_address: asked.client_address.to_string() }
        });
    }
    match question {
        Question::Propose { cluster, founders, slot } => {
            let agreed = Reply::Agreed { client_address: asked.client_address.to_string() };
            if *slot != asked.slot {
                let why = format!(
                    "slot {slot} was asked, but this node is slot {}: check its settings",
                    asked.slot
                );
                return only(Reply::Refused { why });
            }
            if let Some(identity) = asked.identity {
                if identity.proposer {
                    let why = "this node proposes a founding itself: only the lowest slot may".to_string();
                    return only(Reply::Refused { why });
                }
                if identity.founders.is_empty() {
                    let why = "this node is about to join a cluster".to_string();
                    return only(Reply::Refused { why });
                }
                if identity.cluster == Some(ClusterId(*cluster)) {
                    return only(agreed);
                }
            }
            let Some(own) = founders.iter().find(|founder| founder.slot == asked.slot) else {
                let why = format!("slot {} is not among the founders", asked.slot);
                return only(Reply::Refused { why });
            };
            let record = Identity {
                cluster: Some(ClusterId(*cluster)),
                node: NodeId(own.node),
                slot: Some(asked.slot),
                founders: founders.clone(),
                proposer: false,
                founded: false,
            };
            Answer { reply: agreed, record: Some(record), begin: false }
        }
        Question::Begin { cluster } => match asked.identity {
            Some(identity) if identity.cluster == Some(ClusterId(*cluster)) => {
                let record = Identity { founded: true, ..identity.clone() };
                Answer { reply: Reply::Begun, record: Some(record), begin: true }
            }
            _ => only(Reply::Refused { why: "this node has not agreed to that cluster".to_string() }),
        },
    }
}

/// The first membership: all founders vote.
pub fn first_membership(founders: &[Founder], client_addresses: &BTreeMap<u32, String>) -> Membership {
    let mut directory = Directory::default();
    for founder in founders {
        directory.put(Member {
            id: founder.node,
            slot: founder.slot,
            peer_address: founder.peer_address.clone(),
            client_address: client_addresses.get(&founder.slot).cloned().unwrap_or_default(),
            promote: false,
        });
    }
    let voters = founders.iter().map(|founder| NodeId(founder.node)).collect();
    Membership { voters, context: directory.to_context(), ..Membership::default() }
}
