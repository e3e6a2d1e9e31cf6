//! What was said is what is heard, and no bytes make it panic.

use super::*;
use balsa_store::command::{Answer, PutDone};
use proptest::prelude::*;

fn index() -> impl Strategy<Value = Index> {
    (0u64..1 << 50).prop_map(Index)
}

fn term() -> impl Strategy<Value = Term> {
    (0u64..1 << 50).prop_map(Term)
}

fn body() -> impl Strategy<Value = Body> {
    let kind = prop_oneof![Just(EntryKind::Noop), Just(EntryKind::Command), Just(EntryKind::Membership)];
    let entry = (term(), kind, proptest::collection::vec(any::<u8>(), 0..40));
    let append = (index(), term(), index(), proptest::collection::vec(entry, 0..5)).prop_map(
        |(prev_index, prev_term, commit, entries)| {
            let entries = (entries.into_iter().enumerate())
                .map(|(nth, (term, kind, data))| Entry {
                    index: Index(prev_index.0 + 1 + nth as u64),
                    term,
                    kind,
                    data: data.into(),
                })
                .collect();
            Body::Append { prev_index, prev_term, entries, commit }
        },
    );
    prop_oneof![
        (index(), term()).prop_map(|(last_index, last_term)| Body::PreVote { last_index, last_term }),
        any::<bool>().prop_map(|granted| Body::PreVoteReply { granted }),
        (index(), term(), any::<bool>()).prop_map(|(last_index, last_term, transfer)| Body::Vote {
            last_index,
            last_term,
            transfer
        }),
        any::<bool>().prop_map(|granted| Body::VoteReply { granted }),
        append,
        index().prop_map(|match_index| Body::AppendAccepted { match_index }),
        (index(), index(), term()).prop_map(|(prev_index, hint_index, hint_term)| Body::AppendRejected {
            prev_index,
            hint_index,
            hint_term
        }),
        (index(), any::<u64>()).prop_map(|(commit, context)| Body::Heartbeat { commit, context }),
        any::<u64>().prop_map(|context| Body::HeartbeatReply { context }),
        index().prop_map(|last_index| Body::TimeoutNow { last_index }),
        index().prop_map(|match_index| Body::SnapshotInstalled { match_index }),
    ]
}

fn raft() -> impl Strategy<Value = PeerMessage> {
    (any::<u64>(), any::<u64>(), term(), body()).prop_map(|(from, to, term, body)| {
        PeerMessage::Raft(Message { from: NodeId(from), to: NodeId(to), term, body })
    })
}

fn others() -> Vec<PeerMessage> {
    let reply = Reply { answer: Some(Answer::Put(PutDone { revision: 7, previous: None })), replayed: true };
    let done = AdminReply {
        members: vec![(NodeId(u64::MAX), 3, "a:1".into(), "b:2".into(), true)],
        cluster: ClusterId(u64::MAX),
    };
    let add = AdminRequest::AddMember {
        id: NodeId(9),
        slot: Some(0),
        peer_address: "a:1".into(),
        client_address: "b:2".into(),
    };
    let mut all = vec![
        PeerMessage::Forward { id: 1, command: Bytes::from_static(b"c") },
        PeerMessage::ReadIndex { id: 0 },
        PeerMessage::Introduce {
            peer_address: "node-1:3300".to_string(),
            build: BUILD.clone(),
            is_low_on_disk: true,
        },
        PeerMessage::Standing {
            members: vec![MemberStanding { id: NodeId(u64::MAX), matched: Index(7), alive: true }],
        },
        PeerMessage::ReadIndexReply { id: 2, index: Some(Index(0)) },
        PeerMessage::ReadIndexReply { id: 2, index: None },
    ];
    let results = [
        ForwardResult::Applied(reply),
        ForwardResult::Refused,
        ForwardResult::Overloaded,
        ForwardResult::StorageFull("why".into()),
        ForwardResult::Unknown,
    ];
    all.extend(results.map(|result| PeerMessage::ForwardReply { id: 3, result }));
    let requests = [
        add,
        AdminRequest::Promote { id: NodeId(1) },
        AdminRequest::Remove { id: NodeId(1) },
        AdminRequest::TransferLeadership { to: None },
        AdminRequest::TransferLeadership { to: Some(NodeId(4)) },
    ];
    all.extend(requests.map(|request| PeerMessage::Admin { id: 4, request }));
    let results = [
        AdminResult::Done(done),
        AdminResult::NotLeader,
        AdminResult::Refused("why".into()),
        AdminResult::NoSuchMember(NodeId(0)),
        AdminResult::Busy,
        AdminResult::Unknown,
    ];
    all.extend(results.map(|result| PeerMessage::AdminReply { id: 5, result }));
    all
}

#[test]
fn requests_and_replies_survive_the_way() {
    for message in others() {
        assert_eq!(decode(encode(&message)).unwrap(), message);
    }
}

#[test]
fn an_unknown_kind_is_refused_not_skipped() {
    // Field 99 of the frame, as a newer build might send it.
    let frame = Bytes::from_static(&[0x9a, 0x06, 0x00]);
    assert!(matches!(decode(frame), Err(MessageError::UnknownKind)));
}

proptest! {
    #[test]
    fn consensus_messages_survive_the_way(message in raft()) {
        prop_assert_eq!(decode(encode(&message)).unwrap(), message);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(bytes.into());
    }
}
