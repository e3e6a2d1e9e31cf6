//! A member's disk, recovered: whole, and cut off after each step.

use super::*;
use crate::config::Settings;
use crate::engine::directory;
use crate::life::identity::Identity;
use crate::repair::under_way;
use balsa_raft::{Entry, HardState, Raft};
use balsa_store::command::{Command, Operation, Put, encode, stamp};
use balsa_store::{FjallEngine, MemoryEngine, SUCCESSION_STEP, Store, StoreConfig, Succession};
use bytes::Bytes;
use std::path::Path;

const OLD: LogIdentity = LogIdentity { cluster: 7, node: 0xa };

fn config(home: &Path) -> Config {
    Config::from_settings(Settings { data: Some(home.into()), ..Settings::default() })
}

fn folder(home: &Path) -> Folder {
    Folder { disk: Arc::new(RealDisk), path: home.into() }
}

fn put(key: &'static str) -> Bytes {
    let put = Put { key: Bytes::from(key), value: Bytes::from("1"), ..Put::default() };
    stamp(encode(&Command { request: None, operation: Some(Operation::Put(put)) }), 5)
}

/// A member of three whose store lags behind its log: five entries, of which the store has three durably.
fn member(home: &Path) {
    let mut directory = Directory::default();
    for (id, slot) in [(0xa, 0), (0xb, 1), (0xc, 2)] {
        let (peer_address, client_address) = (format!("kv-{slot}:3300"), format!("kv-{slot}:3000"));
        directory.put(directory::Member { id, slot, peer_address, client_address, promote: false });
    }
    let voters = [0xa, 0xb, 0xc].map(NodeId).into();
    let membership = Membership { voters, context: directory.to_context(), ..Membership::default() };
    let mut entries = vec![Raft::bootstrap_entry(&membership)];
    for (index, key) in [(2, "a"), (3, "b"), (4, "c"), (5, "d")] {
        entries.push(Entry { index: Index(index), term: Term(4), kind: EntryKind::Command, data: put(key) });
    }
    let own = Identity {
        cluster: Some(ClusterId(OLD.cluster)),
        node: NodeId(OLD.node),
        slot: Some(0),
        founders: Vec::new(),
        proposer: true,
        founded: true,
        begun: true,
        removed: false,
    };
    let (folder, config) = (folder(home), config(home));
    boot::create(&folder, config.log(), OLD, entries[..1].to_vec()).unwrap();
    let (mut log, _) = Log::open(boot::log_folder(&folder), config.log(), OLD).unwrap();
    let hard_state = Some(HardState { term: Term(4), vote: Some(NodeId(0xa)) });
    log.append(&balsa_log::LogWrite { hard_state, reset: None, entries: &entries[1..] }).unwrap();
    log.mark().unwrap();
    identity::save(&folder, &own).unwrap();
    let engine = FjallEngine::open(&home.join("state")).unwrap();
    let mut store = Store::open(Arc::new(engine), config.store()).unwrap();
    store.apply_empty(1);
    store.apply(2, &entries[1].data).unwrap();
    store.apply(3, &entries[2].data).unwrap();
    store.flush().unwrap();
}

/// A recovery of the member in `config`'s folder, begun and no further.
fn begun(config: &Config) -> Work<'_> {
    let work = Work(Place { config, folder: folder(&config.data), file: FILE });
    let (found, member) = work.look().unwrap();
    work.begin(&found, member, None).unwrap();
    work
}

/// That the folder holds a bootable cluster of one with all that the log held.
fn check(home: &Path) -> Identity {
    let folder = folder(home);
    let config = config(home);
    assert_eq!(under_way(&folder).unwrap(), None);
    let own = identity::load(&folder).unwrap().unwrap();
    assert!(own.begun && own.node != NodeId(OLD.node) && own.cluster != Some(ClusterId(OLD.cluster)));
    assert_eq!(own.slot, Some(0));
    let member = crate::life::Member {
        cluster: own.cluster.unwrap(),
        node: own.node,
        slot: 0,
        peers: Vec::new(),
        to_begin: Vec::new(),
    };
    let engine = FjallEngine::open(&home.join("state")).unwrap();
    let booted = boot::open(&folder, Arc::new(engine), &config.boot(&member, 1)).unwrap();
    assert_eq!(booted.raft.membership().voters, [own.node].into());
    let store = booted.apply.store();
    assert_eq!(store.position().revision, 4 + SUCCESSION_STEP);
    assert_eq!(store.applied_index(), 5 + SUCCESSION_STEP);
    let view = store.reader().view();
    for key in ["a", "b", "c", "d"] {
        assert!(view.get(key.as_bytes()).unwrap().is_some(), "{key}");
    }
    let kept = Folder { path: home.join("recovered-000000000000000a"), ..folder };
    assert_eq!(identity::load(&kept).unwrap().map(|own| own.node), Some(NodeId(OLD.node)));
    assert!(Log::exists(&boot::log_folder(&kept)).unwrap());
    own
}

#[test]
fn it_says_what_it_would_do_and_does_it_once() {
    let home = tempfile::tempdir().unwrap();
    member(home.path());
    let config = config(home.path());
    let told = recover(&config, false, None).unwrap();
    assert_eq!((told.old_cluster, told.slot, told.new), (ClusterId(7), 0, None));
    assert_eq!((told.last, told.revision), ((Term(4), Index(5)), 2));
    assert_eq!(told.voters, [0xa, 0xb, 0xc].map(NodeId));
    assert_eq!(told.to_answer().generation, 0);
    assert_eq!(told.others, [(1, "kv-1:3300".to_owned()), (2, "kv-2:3300".to_owned())]);
    let text = told.to_string();
    assert!(text.contains("term 4, index 5") && text.contains("Say --yes"), "{text}");

    let done = recover(&config, true, Some(0xfeed)).unwrap();
    let own = check(home.path());
    assert_eq!(own.cluster, Some(ClusterId(0xfeed)));
    assert_eq!(done.new, Some((own.cluster.unwrap(), own.node)));
    assert_eq!(done.revision, 4 + SUCCESSION_STEP);
    let again = recover(&config, false, None).unwrap().to_answer();
    assert_eq!(
        (again.generation, again.voters.len()),
        (1, 1),
        "its end is in the next generation: {again:?}"
    );
}

#[test]
fn a_recovery_that_was_cut_off_can_be_set_aside_and_leaves_a_blank_folder() {
    for cut in 0..5 {
        let home = tempfile::tempdir().unwrap();
        member(home.path());
        let config = config(home.path());
        let work = begun(&config);
        for _ in 0..cut {
            let begun = work.begun().unwrap().unwrap();
            work.take_step(&begun).unwrap();
        }
        assert!(crate::repair::set_aside(home.path(), true).unwrap().is_some());
        assert_eq!(under_way(&work.0.folder).unwrap(), None, "after {cut} steps");
        assert_eq!(identity::load(&work.0.folder).unwrap(), None);
        assert!(!work.0.has_log().unwrap() && !home.path().join("state").exists(), "after {cut} steps");
        assert!(matches!(recover(&config, false, None), Err(RepairError::Nothing(_))));
    }
}

#[test]
fn cut_off_after_any_step_the_next_run_ends_it_under_the_same_identity() {
    let steps = [Step::ApplyLog, Step::Leap, Step::MoveLog, Step::MakeLog, Step::Rename, Step::End];
    for cut in 0..steps.len() {
        let home = tempfile::tempdir().unwrap();
        member(home.path());
        let config = config(home.path());
        let work = begun(&config);
        for step in &steps[..cut] {
            let begun = work.begun().unwrap().unwrap();
            assert_eq!(work.take_step(&begun).unwrap(), *step);
        }
        let begun = work.begun().unwrap().unwrap();
        assert!(under_way(&work.0.folder).unwrap().is_some(), "no node may start on it after {cut} steps");
        let told = recover(&config, false, None).unwrap_err();
        assert!(told.to_string().contains("was begun"), "{told}");
        assert!(
            matches!(&told, RepairError::Begun(left) if left.last == (Term(4), Index(5)) && left.voters.len() == 3),
            "{told:?}"
        );
        let done = recover(&config, true, None).unwrap();
        assert_eq!(done.new, Some(begun.heir.names()));
        assert_eq!(check(home.path()).node.0, begun.heir.new_node, "after {cut} steps");
    }
}

#[test]
fn what_must_not_be_recovered_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let refusal = |home: &Path| recover(&config(home), true, None).unwrap_err().to_string();
    assert!(refusal(home.path()).contains("no identity"));
    member(home.path());
    {
        let _node = FolderLock::try_take(home.path()).unwrap();
        assert!(refusal(home.path()).contains("stop the node first"));
    }
    let own = identity::load(&folder(home.path())).unwrap().unwrap();
    std::fs::rename(home.path().join("identity.json"), home.path().join("i")).unwrap();
    let unnamed = recover(&config(home.path()), false, None).unwrap_err();
    assert!(
        matches!(&unnamed, RepairError::Refused(why) if why.contains("a log but no identity")),
        "{unnamed}"
    );
    identity::save(&folder(home.path()), &Identity { removed: true, ..own.clone() }).unwrap();
    assert!(refusal(home.path()).contains("was removed from its cluster"));
    identity::save(&folder(home.path()), &Identity { begun: false, ..own }).unwrap();
    assert!(refusal(home.path()).contains("never a member"));
    std::fs::write(home.path().join("restoring.json"), "{}").unwrap();
    assert!(refusal(home.path()).contains("a restore into this data folder"));
}

#[test]
fn a_state_that_must_not_leap_again_is_refused() {
    let mut store = Store::open(Arc::new(MemoryEngine::new()), StoreConfig::default()).unwrap();
    store.apply(1, &put("a")).unwrap();
    let to = Succession { applied_index: (1 << 53) - 2, revision: 1 << 52 };
    store.succeed(to).unwrap();
    assert_eq!(store.succession(), None);
}
