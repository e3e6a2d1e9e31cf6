//! Stands in for the store's reader until the store has one.
#![allow(missing_docs, unreachable_pub)]

use arc_swap::ArcSwap;
use balsa_store::command::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
#[error("the store failed")]
pub struct StoreError;

#[derive(Default)]
pub struct Snapshot {
    pub keys: BTreeMap<Vec<u8>, Value>,
    pub revision: u64,
    pub applied_index: u64,
}

#[derive(Clone, Default)]
pub struct Reader(pub Arc<ArcSwap<Snapshot>>);

pub struct View(Arc<Snapshot>);

impl Reader {
    pub fn view(&self) -> View {
        View(self.0.load_full())
    }
}

impl View {
    pub fn revision(&self) -> u64 {
        self.0.revision
    }
    pub fn applied_index(&self) -> u64 {
        self.0.applied_index
    }
    pub fn digest(&self) -> u128 {
        0
    }
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        Ok(self.0.keys.get(key).cloned())
    }
}
