//! Who is fed: everything that reads bytes which someone else wrote.

use super::{Target, http, mutate};
use crate::random::Random;
use balsa_log::{Folder, Log, LogConfig, LogIdentity, LogStart, LogWrite, SimDisk};
use balsa_node::engine::handle::AdminRequest;
use balsa_node::engine::message::{self, BUILD, ForwardResult, MemberStanding, PeerMessage};
use balsa_node::engine::snapshot_frame::{self, Answer, Offer, SnapshotFrame};
use balsa_node::peer::LaneKind;
use balsa_node::peer::frame::{Decoder, FrameBatch, HEADER_BYTES};
use balsa_raft::{
    Body, Change, Entry, EntryKind, HardState, Index, Membership, Message, NodeId, SnapshotMeta, Term,
};
use balsa_store::command::{
    self, Clear, Command, Compact, Condition, ConditionKind, Delete, IdempotencyKey, Nothing, OpenSession,
    Operation, Put, Reply, RequestId, SessionRequest, SetFeatureLevel,
};
use balsa_store::{MemoryEngine, Store, StoreConfig};
use bytes::{Buf, Bytes};
use std::path::PathBuf;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Every target.
pub fn all() -> Vec<Target> {
    vec![
        Target {
            name: "messages",
            about: "what peers say, and the entries in it",
            bytes_max: 1 << 20,
            feed: messages(),
        },
        Target {
            name: "frames",
            about: "a peer's byte stream, in pieces",
            bytes_max: 4 << 20,
            feed: frames(),
        },
        Target {
            name: "snapshot-frames",
            about: "the talk about a snapshot",
            bytes_max: 1 << 20,
            feed: snapshot_frames(),
        },
        Target {
            name: "snapshot-chunks",
            about: "a snapshot's chunks, their checksums right, and the state that comes of them",
            bytes_max: 8 << 20,
            feed: snapshot_chunks(),
        },
        Target {
            name: "commands",
            about: "entries as the store applies them",
            bytes_max: 8 << 20,
            feed: commands(),
        },
        Target {
            name: "memberships",
            about: "memberships in entries and snapshots",
            bytes_max: 1 << 20,
            feed: memberships(),
        },
        Target {
            name: "log",
            about: "a log's files, their checksums right",
            bytes_max: 64 << 20,
            feed: log_files(),
        },
        Target {
            name: "requests",
            about: "clients' requests, whole",
            bytes_max: 8 << 20,
            feed: http::requests(),
        },
    ]
}

fn membership() -> Membership {
    let founders = Membership::of_voters([1, 2, 3].map(NodeId));
    let changes =
        [Change::AddVoter(NodeId(u64::MAX)), Change::Remove(NodeId(2)), Change::AddLearner(NodeId(9))];
    founders.change(&changes, Bytes::from_static(b"names")).unwrap_or(founders)
}

fn entries() -> Vec<Entry> {
    let of = |index: u64, kind, data: Bytes| Entry { index: Index(index), term: Term(4), kind, data };
    vec![
        of(8, EntryKind::Noop, Bytes::new()),
        of(9, EntryKind::Membership, membership().encode()),
        of(10, EntryKind::Command, command::stamp(command::encode(&command_of(put(b"key"))), 77)),
    ]
}

fn put(key: &'static [u8]) -> Operation {
    Operation::Put(Put {
        key: Bytes::from_static(key),
        value: Bytes::from_static(b"{\"a\":[1,2]}"),
        content_type: Some("text/plain".into()),
        condition: Some(Condition { kind: Some(ConditionKind::Absent(Nothing {})) }),
        want_previous: true,
        lease: 0,
        ttl_ms: 30_000,
    })
}

fn command_of(operation: Operation) -> Command {
    let id = IdempotencyKey { key: "order-17".into(), fingerprint: Bytes::from_static(b"0123456789abcdef") };
    Command { request: Some(RequestId::Key(id)), operation: Some(operation) }
}

fn messages() -> Box<dyn FnMut(&mut Random)> {
    let raft = |body| PeerMessage::Raft(Message { from: NodeId(1), to: NodeId(2), term: Term(4), body });
    let admin = |request| PeerMessage::Admin { id: 5, request };
    let all = [
        raft(Body::Append { prev_index: Index(7), prev_term: Term(3), entries: entries(), commit: Index(7) }),
        raft(Body::Vote { last_index: Index(7), last_term: Term(3), transfer: true }),
        raft(Body::Heartbeat { commit: Index(7), context: 99 }),
        raft(Body::AppendRejected { prev_index: Index(9), hint_index: Index(3), hint_term: Term(2) }),
        PeerMessage::Forward { id: 3, command: command::encode(&command_of(put(b"k"))) },
        PeerMessage::ForwardReply {
            id: 3,
            result: ForwardResult::Applied(Reply {
                answer: Some(command::Answer::SessionExpired(Nothing {})),
                replayed: true,
            }),
        },
        PeerMessage::ReadIndexReply { id: 4, index: Some(Index(12)) },
        PeerMessage::Introduce {
            peer_address: "node-1:3300".into(),
            build: BUILD.clone(),
            is_low_on_disk: false,
        },
        PeerMessage::Standing {
            members: vec![MemberStanding { id: NodeId(1), matched: Index(7), alive: true }; 3],
        },
        admin(AdminRequest::AddMember {
            id: NodeId(9),
            slot: Some(4),
            peer_address: "a:1".into(),
            client_address: "b:2".into(),
        }),
    ];
    let seeds: Vec<Vec<u8>> = all.iter().map(|message| message::encode(message).to_vec()).collect();
    Box::new(move |random| {
        let Ok(message) = message::decode(Bytes::from(mutate::bytes(random, &seeds))) else { return };
        // What was understood can be said again. (Some numbers have no place in a message, so not every byte comes back.)
        let again = message::decode(message::encode(&message)).expect("it was encoded here");
        assert_eq!(message, again);
        if let PeerMessage::Raft(Message { body: Body::Append { entries, .. }, .. }) = message {
            for entry in entries {
                let _ = (Membership::decode(&entry.data), command::decode(&entry.data));
            }
        }
    })
}

fn frames() -> Box<dyn FnMut(&mut Random)> {
    const FRAME_BYTES_MAX: usize = 64 << 10;
    let stream = |mut batch: FrameBatch| batch.copy_to_bytes(batch.remaining()).to_vec();
    let payloads = |sizes: &[usize]| sizes.iter().map(|size| Bytes::from(vec![7; *size])).collect::<Vec<_>>();
    let seeds = vec![
        stream(FrameBatch::new(LaneKind::Message, payloads(&[0, 1, 50]))),
        stream(FrameBatch::new(LaneKind::Message, payloads(&[5000, 3]))),
        stream(FrameBatch::keepalive()),
    ];
    Box::new(move |random| {
        let mut bytes = mutate::bytes(random, &seeds);
        if random.chance(500) && bytes.len() >= HEADER_BYTES {
            reseal_frame(&mut bytes);
        }
        let mut decoder = Decoder::new(LaneKind::Message, FRAME_BYTES_MAX);
        let (mut rest, mut out) = (Bytes::from(bytes), Vec::new());
        while !rest.is_empty() {
            let piece = rest.split_to(random.between(1, 1 + rest.len() as u64) as usize);
            if decoder.feed(piece, &mut out).is_err() {
                break;
            }
            let held = decoder.buffered_bytes();
            assert!(held <= 2 * (FRAME_BYTES_MAX + HEADER_BYTES), "{held} bytes are held");
        }
        assert!(out.iter().all(|payload| payload.len() <= FRAME_BYTES_MAX));
    })
}

/// Makes the first frame's checksum right, if its length is.
fn reseal_frame(bytes: &mut [u8]) {
    let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    if let Some(payload) = HEADER_BYTES.checked_add(length).and_then(|end| bytes.get(HEADER_BYTES..end)) {
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), payload);
        bytes[8..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn snapshot_frames() -> Box<dyn FnMut(&mut Random)> {
    let meta = SnapshotMeta { index: Index(70), term: Term(3), membership: Arc::new(membership()) };
    let all = [
        SnapshotFrame::Ask { term: Term(4), offer: Offer { id: 9, ask: 2, meta: meta.clone() } },
        SnapshotFrame::Chunk { id: 9, sequence: 5, data: Bytes::from_static(b"rows") },
        SnapshotFrame::Answer(Answer::Wanted { id: 9, ask: 2, sequence: 3 }),
    ];
    let mut seeds: Vec<Vec<u8>> = all.iter().map(|frame| frame.encode().to_vec()).collect();
    seeds.push(snapshot_frame::encode_meta(&meta).to_vec());
    Box::new(move |random| {
        let bytes = Bytes::from(mutate::bytes(random, &seeds));
        if let Ok(frame) = SnapshotFrame::decode(bytes.clone()) {
            assert_eq!(SnapshotFrame::decode(frame.encode()).expect("it was encoded here"), frame);
        }
        if let Ok(meta) = snapshot_frame::decode_meta(&bytes) {
            let encoded = snapshot_frame::encode_meta(&meta);
            assert_eq!(snapshot_frame::decode_meta(&encoded).expect("it was encoded here"), meta);
        }
    })
}

fn store() -> Store {
    Store::open(Arc::new(MemoryEngine::new()), StoreConfig::default()).expect("an empty engine")
}

/// A store in which everything is: keys, one of them deleted, replies, a session.
fn full_store() -> Store {
    let mut store = store();
    let plain = |operation| Command { request: None, operation: Some(operation) };
    let session = SessionRequest {
        session: 1,
        sequence: 3,
        lowest_unfinished: 2,
        fingerprint: Bytes::from_static(b"fingerprint"),
    };
    let commands = [
        plain(Operation::OpenSession(OpenSession {})),
        command_of(put(b"a")),
        Command { request: Some(RequestId::Session(session)), operation: Some(put(b"b/c")) },
        plain(Operation::Delete(Delete { key: Bytes::from_static(b"a"), ..Delete::default() })),
        plain(put(b"d")),
        plain(Operation::Compact(Compact { revision: 2 })),
    ];
    for (nth, command) in commands.iter().enumerate() {
        let entry = command::stamp(command::encode(command), 1000 + nth as u64);
        store.apply(nth as u64 + 1, &entry).expect("a valid command");
    }
    let job = store.force_rotate().expect("there is something to flush");
    let index = job.run().expect("memory does not fail");
    store.handle_flushed(index).expect("memory does not fail");
    store
}

fn snapshot_chunks() -> Box<dyn FnMut(&mut Random)> {
    let mut seeds = Vec::new();
    for bytes_max in [60, 4096] {
        let mut source = full_store().begin_snapshot();
        while let Some(chunk) = source.next_chunk(bytes_max).expect("memory does not fail") {
            seeds.push(chunk.to_vec());
        }
    }
    // The stream that is bent in one place, or has a chunk made up.
    let whole: Vec<Vec<u8>> = seeds.clone();
    let first = whole.iter().position(|chunk| chunk[9] == 1).expect("a last chunk") + 1;
    Box::new(move |random| {
        let mut target = store();
        let mut sink = target.begin_install().expect("memory does not fail");
        let stream = if random.chance(500) { &whole[..first] } else { &whole[first..] };
        let bent = random.below(stream.len() as u64) as usize;
        for (at, chunk) in stream.iter().enumerate() {
            let mut chunk = chunk.clone();
            if at == bent {
                chunk = mutate::bytes(random, &seeds);
                if chunk.len() >= 8 && random.chance(900) {
                    let checksum = xxh3_64(&chunk[8..]);
                    chunk[..8].copy_from_slice(&checksum.to_le_bytes());
                }
            }
            let _ = sink.add_chunk(&Bytes::from(chunk));
        }
        if sink.is_complete()
            && let Ok(staged) = sink.stage()
        {
            let _ = target.install_snapshot(staged);
        }
    })
}

fn commands() -> Box<dyn FnMut(&mut Random)> {
    let session = SessionRequest {
        session: 1,
        sequence: 9,
        lowest_unfinished: 4,
        fingerprint: Bytes::from_static(b"f"),
    };
    let plain = |operation| Command { request: None, operation: Some(operation) };
    let all = [
        command_of(put(b"a")),
        command_of(Operation::Delete(Delete { key: Bytes::from_static(b"d"), ..Delete::default() })),
        plain(Operation::Clear(Clear {})),
        plain(Operation::OpenSession(OpenSession {})),
        plain(Operation::Compact(Compact { revision: 2 })),
        plain(Operation::SetFeatureLevel(SetFeatureLevel { level: 1 })),
        Command { request: Some(RequestId::Session(session)), operation: Some(put(b"e")) },
    ];
    let seeds: Vec<Vec<u8>> =
        all.iter().map(|command| command::stamp(command::encode(command), 2000).to_vec()).collect();
    Box::new(move |random| {
        let mut store = full_store();
        for _ in 0..4 {
            let entry = Bytes::from(mutate::bytes(random, &seeds));
            // After an error a store must not be used any more: the node has stopped.
            if store.apply(store.applied_index() + 1, &entry).is_err() {
                return;
            }
        }
        store.publish();
        let job = store.force_rotate().expect("entries were applied");
        let index = job.run().expect("memory does not fail");
        store.handle_flushed(index).expect("memory does not fail");
    })
}

fn memberships() -> Box<dyn FnMut(&mut Random)> {
    let founders = Membership::of_voters([1, 2, 3].map(NodeId));
    let seeds = vec![membership().encode().to_vec(), founders.encode().to_vec()];
    Box::new(move |random| {
        let Ok(membership) = Membership::decode(&Bytes::from(mutate::bytes(random, &seeds))) else { return };
        assert!(membership.check(), "{membership:?}");
        assert_eq!(Membership::decode(&membership.encode()), Ok(membership.clone()));
        let id = NodeId(random.below(5));
        for change in [Change::AddVoter(id), Change::AddLearner(id), Change::Remove(id)] {
            if let Ok(next) = membership.change(&[change], Bytes::new()) {
                assert!(next.check(), "{next:?}");
            }
        }
    })
}

const IDENTITY: LogIdentity = LogIdentity { cluster: 0xc1, node: 0xa1 };
const SEGMENT_BYTES: u64 = 16 << 10;
/// Where batches begin in a segment, and how long a batch's header is (`node/log/src/segment.rs`, `batch.rs`).
const SEGMENT_HEADER_BYTES: usize = 4096;
const BATCH_HEADER_BYTES: usize = 64;

fn log_files() -> Box<dyn FnMut(&mut Random)> {
    let config =
        LogConfig { segment_bytes: SEGMENT_BYTES, max_record_bytes: 2000, recycle_segments: 1, salt: 5 };
    let disk = SimDisk::new();
    let folder = |disk: &SimDisk| Folder { disk: disk.shared(), path: PathBuf::from("/log") };
    let start = LogStart { index: Index(7), term: Term(3), membership: membership().encode() };
    let hard_state = HardState { term: Term(4), vote: Some(NodeId(1)) };
    let mut log = Log::create(folder(&disk), config.clone(), IDENTITY, start.clone(), hard_state, &entries())
        .expect("a sound disk");
    let write = |log: &mut Log, term: Term, first: u64, count: u64| {
        let entries: Vec<Entry> = (first..first + count)
            .map(|index| Entry {
                index: Index(index),
                term,
                kind: EntryKind::Command,
                data: Bytes::from(vec![index as u8; 300]),
            })
            .collect();
        log.append(&LogWrite { hard_state: None, reset: None, entries: &entries }).expect("a sound disk");
        log.sync().expect("a sound disk");
    };
    write(&mut log, Term(4), 11, 8);
    write(&mut log, Term(4), 15, 60); // overwrites some, and goes on in other segments
    log.release(&LogStart { index: Index(9), term: Term(4), ..start }).expect("a sound disk");
    log.mark().expect("a sound disk");
    drop(log);
    disk.crash();
    let paths: Vec<PathBuf> =
        disk.paths().into_iter().filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    Box::new(move |random| {
        let disk = disk.fork();
        let path = random.pick(&paths);
        let mut image = disk.contents(path).expect("a file of the log");
        let batches: Vec<usize> = (SEGMENT_HEADER_BYTES..image.len())
            .step_by(512)
            .filter(|at| image[*at..].starts_with(b"BaTc"))
            .collect();
        if batches.is_empty() {
            return;
        }
        let at = *random.pick(&batches);
        bend_batch(random, &mut image, at);
        disk.edit(path, &image);
        if let Ok((mut log, recovered)) = Log::open(folder(&disk), config.clone(), IDENTITY) {
            // What opened goes on.
            let start = (recovered.start.index, recovered.start.term);
            let (last, term) = recovered.entries.last().map_or(start, |entry| (entry.index, entry.term));
            if last.0 < u64::MAX - 1000 {
                write(&mut log, term, last.0 + 1, 2);
            }
        }
    })
}

/// Changes the header or the payload of a batch, and makes its checksums right.
fn bend_batch(random: &mut Random, image: &mut [u8], at: usize) {
    let length = |image: &[u8]| {
        let bytes = &image[at + 24..at + 28];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
    };
    let begin = at + BATCH_HEADER_BYTES;
    if random.chance(300) {
        let field = at + *random.pick(&[16, 24, 40, 48]);
        let bent = mutate::bytes(random, &[image[field..field + 8].to_vec()]);
        let count = bent.len().min(8);
        image[field..field + count].copy_from_slice(&bent[..count]);
    } else {
        let payload = image[begin..begin + length(image)].to_vec();
        let bent = mutate::bytes(random, &[payload]);
        let count = bent.len().min(image.len() - begin);
        image[begin..begin + count].copy_from_slice(&bent[..count]);
        image[at + 24..at + 28].copy_from_slice(&(count as u32).to_le_bytes());
    }
    if let Some(payload) = begin.checked_add(length(image)).and_then(|end| image.get(begin..end)) {
        let crc = crc32c::crc32c(payload);
        image[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32c::crc32c(&image[at..at + 60]);
    image[at + 60..at + 64].copy_from_slice(&crc.to_le_bytes());
}
