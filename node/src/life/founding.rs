//! How blank disks become a cluster: the lowest slot proposes, all record, then the first membership is appended.
//!
//! Pure: questions and answers of the founding talk, decided from what a disk records. The shell carries them and calls
//! [`crate::life::identity::save`] where [`Answer::record`] says so, before the answer leaves.
//!
//! Rules (contract, Founding): the proposer records cluster and node ids before it asks anybody, and proposes only when
//! every peer was reached and is a member of nothing: a peer that agrees gives up what it agreed to before, which may have
//! begun elsewhere; a blank peer records both before it agrees; the proposer's log begins only when all have agreed. A peer that agreed may agree to another proposal
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
    /// "Are you a member of a cluster?" Asked before anything is proposed, and by whoever waits: a blank disk beside a
    /// living cluster must join that.
    Hello,
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
    /// It is no member of a cluster that it knows to have begun.
    NoMember,
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
        begun: false,
        removed: false,
    }
}

/// A peer answers.
pub fn answer(asked: &Asked<'_>, question: &Question) -> Answer {
    let only = |reply| Answer { reply, record: None, begin: false };
    if asked.identity.is_some_and(|identity| identity.removed) {
        let why = "this node was removed from its cluster: ask another".to_string();
        return only(Reply::Refused { why });
    }
    if let (Some(identity), true) = (asked.identity, asked.has_log) {
        let cluster = identity.cluster.map_or(0, |cluster| cluster.0);
        let same = match question {
            Question::Hello => false,
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
        Question::Hello => only(Reply::NoMember),
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
                begun: false,
                removed: false,
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

/// What a disk without a log does when a peer says that it is a member of `cluster`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beside {
    /// It agreed to found that very cluster, and the cluster has begun, so all had agreed: it begins, too.
    Begin,
    /// It has no part in it yet: it joins under a new identity. One that it has was never used.
    Join,
}

/// See [`Beside`].
pub fn beside(identity: Option<&Identity>, cluster: ClusterId) -> Beside {
    match identity {
        Some(own) if own.cluster == Some(cluster) && !own.founders.is_empty() && !own.begun => Beside::Begin,
        _ => Beside::Join,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> BTreeMap<u32, String> {
        (0..3).map(|slot| (slot, format!("node-{slot}:3300"))).collect()
    }

    fn proposal(first_id: u64) -> Identity {
        let mut next = first_id;
        propose(0, &peers(), || {
            next += 1;
            next
        })
    }

    fn question(proposal: &Identity, slot: u32) -> Question {
        let cluster = proposal.cluster.map_or(0, |cluster| cluster.0);
        Question::Propose { cluster, founders: proposal.founders.clone(), slot }
    }

    fn begin(proposal: &Identity) -> Question {
        Question::Begin { cluster: proposal.cluster.map_or(0, |cluster| cluster.0) }
    }

    fn ask(identity: Option<&Identity>, has_log: bool, slot: u32, question: &Question) -> Answer {
        answer(&Asked { identity, has_log, slot, client_address: "node-1:3000" }, question)
    }

    fn agreed() -> Reply {
        Reply::Agreed { client_address: "node-1:3000".into() }
    }

    #[test]
    fn a_blank_peer_records_cluster_and_id_before_it_agrees_and_begins_only_when_told() {
        let proposal = proposal(100);
        let agreement = ask(None, false, 1, &question(&proposal, 1));
        assert_eq!(agreement.reply, agreed());
        assert!(!agreement.begin);
        let recorded = agreement.record.unwrap();
        assert_eq!(recorded.cluster, proposal.cluster);
        assert_eq!(recorded.node.0, proposal.founders[1].node);
        assert!(!recorded.proposer);

        let again = ask(Some(&recorded), false, 1, &question(&proposal, 1));
        assert_eq!((again.reply, again.record), (agreed(), None), "asked again, it agrees again");

        let begun = ask(Some(&recorded), false, 1, &begin(&proposal));
        assert_eq!(begun.reply, Reply::Begun);
        assert!(begun.begin, "the log is made before this answer leaves");
        let begun_again = ask(begun.record.as_ref(), true, 1, &begin(&proposal));
        assert_eq!((begun_again.reply, begun_again.begin), (Reply::Begun, false));
    }

    #[test]
    fn an_agreement_that_never_began_gives_way_to_another_proposal() {
        let (lost, next) = (proposal(100), proposal(200));
        let recorded = ask(None, false, 1, &question(&lost, 1)).record.unwrap();
        let agreement = ask(Some(&recorded), false, 1, &question(&next, 1));
        assert_eq!(agreement.reply, agreed());
        assert_eq!(agreement.record.unwrap().cluster, next.cluster);
        let stale = ask(Some(&recorded), false, 1, &begin(&next));
        assert!(matches!(stale.reply, Reply::Refused { .. }), "it has not recorded that proposal: {stale:?}");
    }

    #[test]
    fn a_member_never_founds_again() {
        let (first, second) = (proposal(100), proposal(200));
        let member = ask(None, false, 1, &question(&first, 1)).record.unwrap();
        for asked in [question(&second, 1), begin(&second)] {
            let answer = ask(Some(&member), true, 1, &asked);
            let cluster = first.cluster.unwrap().0;
            assert_eq!(answer.reply, Reply::Member { cluster, client_address: "node-1:3000".into() });
            assert_eq!((answer.record, answer.begin), (None, false));
        }
    }

    #[test]
    fn a_blank_disk_beside_a_living_cluster_joins_it_and_a_founder_that_missed_the_word_begins() {
        let proposal = proposal(100);
        let cluster = proposal.cluster.unwrap();
        let agreed = ask(None, false, 1, &question(&proposal, 1)).record.unwrap();
        assert_eq!(ask(None, false, 1, &Question::Hello).reply, Reply::NoMember);
        assert_eq!(ask(Some(&agreed), false, 1, &Question::Hello).reply, Reply::NoMember);
        let member = Reply::Member { cluster: cluster.0, client_address: "node-1:3000".into() };
        assert_eq!(ask(Some(&agreed), true, 1, &Question::Hello).reply, member);

        assert_eq!(beside(None, cluster), Beside::Join);
        assert_eq!(beside(Some(&agreed), cluster), Beside::Begin);
        assert_eq!(beside(Some(&agreed), ClusterId(cluster.0 + 1)), Beside::Join);
        let used = Identity { begun: true, ..agreed };
        assert_eq!(
            beside(Some(&used), cluster),
            Beside::Join,
            "an identity that may have voted is never taken up"
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_reason() {
        let proposal = proposal(100);
        let joining = Identity { founders: Vec::new(), ..proposal.clone() };
        let cases = [
            (ask(None, false, 2, &question(&proposal, 1)), "slot 1 was asked, but this node is slot 2"),
            (ask(Some(&proposal), false, 0, &question(&self::proposal(7), 0)), "only the lowest slot may"),
            (
                ask(Some(&Identity { proposer: false, ..joining }), false, 1, &question(&proposal, 1)),
                "about to join",
            ),
            (ask(None, false, 1, &begin(&proposal)), "has not agreed"),
            (
                ask(Some(&Identity { removed: true, ..proposal.clone() }), true, 0, &Question::Hello),
                "was removed from its cluster",
            ),
        ];
        for (answer, expected) in cases {
            let Reply::Refused { why } = &answer.reply else { panic!("{expected}: {answer:?}") };
            assert!(why.contains(expected), "{why}");
            assert_eq!((answer.record, answer.begin), (None, false));
        }
    }

    #[test]
    fn the_first_membership_has_all_founders_as_voters_with_their_addresses() {
        let proposal = proposal(100);
        let clients = BTreeMap::from([(2, "node-2:3000".to_string())]);
        let membership = first_membership(&proposal.founders, &clients);
        assert_eq!(membership.voters.len(), 3);
        let directory = Directory::from_context(&membership.context).unwrap();
        let last = directory.members.last().unwrap();
        assert_eq!(
            (last.slot, last.peer_address.as_str(), last.client_address.as_str()),
            (2, "node-2:3300", "node-2:3000")
        );
    }
}
