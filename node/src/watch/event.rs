//! What a watcher gets.

use balsa_store::command::Value;
use bytes::Bytes;
use std::sync::OnceLock;

/// A change of a key.
#[derive(Debug)]
pub struct Event {
    /// The store's revision after it.
    pub revision: u64,
    /// The key.
    pub key: Bytes,
    /// What became of it.
    pub what: What,
    /// What it had before (`Some(None)`: nothing); `None`: nobody asked.
    pub prev: Option<Option<Value>>,
    /// As it is sent, made by whoever is first: without and with what was before.
    written: [OnceLock<Bytes>; 2],
}

/// What became of a key.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// It was set.
    Put(Value),
    /// It was deleted.
    Delete,
}

impl Event {
    /// A change that is not written yet.
    pub fn new(revision: u64, key: Bytes, what: What, prev: Option<Option<Value>>) -> Event {
        Event { revision, key, what, prev, written: Default::default() }
    }

    /// As it is sent, with or without what was before: written once for all watchers.
    pub fn written(&self, with_prev: bool, write: impl FnOnce(&Event) -> Bytes) -> Bytes {
        self.written[usize::from(with_prev)].get_or_init(|| write(self)).clone()
    }

    /// Memory, about, once it is written.
    pub fn bytes(&self) -> usize {
        let of = |value: &Value| value.value.len();
        let value = match &self.what {
            What::Put(value) => of(value),
            What::Delete => 0,
        };
        let prev = self.prev.as_ref().and_then(Option::as_ref).map_or(0, of);
        256 + 3 * (self.key.len() + value + prev)
    }
}
