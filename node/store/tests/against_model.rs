//! Random histories of entries, flushes, crashes and transfers: the store against the model.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use balsa_store::engine::StateEngine;
use balsa_store::{FjallEngine, MemoryEngine};
use common::{Disk, MemoryDisk, Rig, any_step, small_config};
use proptest::prelude::*;

/// A folder for each node. A crash is the process ending: what fjall had not synced it had still written.
struct FolderDisk {
    base: Arc<tempfile::TempDir>,
    node: u32,
}

impl FolderDisk {
    fn new() -> Self {
        Self { base: Arc::new(tempfile::tempdir().unwrap()), node: 0 }
    }

    fn folder(&self) -> PathBuf {
        self.base.path().join(self.node.to_string())
    }
}

impl Disk for FolderDisk {
    fn open(&mut self) -> Arc<dyn StateEngine> {
        Arc::new(FjallEngine::open(&self.folder()).unwrap())
    }

    fn crash(&mut self) {}

    fn blank(&mut self) -> Self {
        FolderDisk { base: Arc::clone(&self.base), node: self.node + 1 }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_in_memory_does_as_the_model(steps in prop::collection::vec(any_step(), 1..160)) {
        let mut rig = Rig::new(small_config(), MemoryDisk(MemoryEngine::new()));
        for step in steps {
            rig.step(step);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_on_a_disk_does_as_the_model(steps in prop::collection::vec(any_step(), 1..160)) {
        let mut rig = Rig::new(small_config(), FolderDisk::new());
        for step in steps {
            rig.step(step);
        }
    }
}
