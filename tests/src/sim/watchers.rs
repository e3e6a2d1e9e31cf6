//! Simulated watchers: the production walk through changes, on nodes that crash, and its judgement.

use super::network::Place;
use crate::random::Random;
use balsa_check::watch::{self, Changes, Wrong};
use balsa_node::watch::{Cursor, Fed, Feed, Filter, Interests, Keys, Next, Revision, Ring, What};
use balsa_store::command::Value;
use balsa_store::{PastError, View};
use bytes::Bytes;

/// A node's side: as its hub.
#[derive(Default)]
pub struct Hub {
    ring: Ring,
    feed: Feed,
    interests: Interests,
    watchers: usize,
}

/// Where a watcher has its watch.
#[derive(Debug)]
pub struct Standing {
    /// The node.
    pub place: Place,
    /// Its life.
    pub life: u64,
    cursor: Cursor,
}

/// A watcher.
#[derive(Debug)]
pub struct Watcher {
    /// What it wants.
    pub filter: Filter,
    /// Its watch, where it stands.
    pub at: Option<Standing>,
    /// It has watched before.
    pub has_begun: bool,
    checker: watch::Watcher<Bytes>,
    random: Random,
}

/// What a walk met.
#[derive(Default, Debug)]
pub struct Walked {
    /// Revisions that came.
    pub revisions: u64,
    /// Times that history was read.
    pub from_history: u64,
    /// The watch ended: what comes next is compacted.
    pub is_compacted: bool,
}

impl Watcher {
    /// One that has seen nothing yet.
    pub fn new(mut random: Random) -> Watcher {
        let keys = match random.below(3) {
            0 => Keys::One(Bytes::from_static(b"key/1")),
            1 => Keys::Prefix(Bytes::from_static(b"key/")),
            _ => Keys::Prefix(Bytes::new()),
        };
        let (puts, deletes) = *random.pick(&[(true, true), (true, true), (true, false), (false, true)]);
        let filter = Filter { keys, puts, deletes, prev: random.chance(300) };
        Watcher { filter, at: None, has_begun: false, checker: watch::Watcher::new(0), random }
    }

    /// Its own dice.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Begins, or goes on, at a node whose state this is; `false`: what it has not seen is compacted there, and it begins
    /// anew from now.
    pub fn begin(&mut self, hub: &mut Hub, view: &View, place: Place, life: u64) -> bool {
        let goes_on = self.has_begun && self.checker.complete() >= view.compacted_revision();
        if !goes_on {
            self.checker = watch::Watcher::new(view.revision());
        }
        if hub.watchers == 0 {
            hub.feed.restart(view);
        }
        hub.watchers += 1;
        let generation = hub.interests.add(&self.filter);
        let cursor = Cursor::new(self.filter.clone(), self.checker.complete(), generation);
        self.at = Some(Standing { place, life, cursor });
        goes_on || !std::mem::replace(&mut self.has_begun, true)
    }

    /// Its connection broke; the node's hub, if the node still runs.
    pub fn end(&mut self, hub: Option<&mut Hub>) {
        self.checker.broke();
        if self.at.take().is_some()
            && let Some(hub) = hub
        {
            hub.interests.remove(&self.filter);
            hub.watchers -= 1;
        }
    }

    /// Takes so many steps; each thing that comes is judged.
    pub fn walk(
        &mut self,
        hub: &Hub,
        view: &View,
        changes: &Changes<Bytes, Value>,
        steps: u64,
    ) -> Result<Walked, Wrong> {
        let mut walked = Walked::default();
        for _ in 0..steps {
            let Some(Standing { cursor, .. }) = &mut self.at else { break };
            match cursor.next(&hub.ring, hub.feed.head()) {
                Next::Wait => break,
                Next::Behind => match cursor.read_history(view) {
                    Ok(()) => walked.from_history += 1,
                    Err(PastError::Compacted { .. }) => {
                        walked.is_compacted = true;
                        break;
                    }
                    Err(error) => panic!("a node's history cannot be read: {error}"),
                },
                Next::Revision(revision) => {
                    walked.revisions += 1;
                    self.judge(&revision, changes)?;
                }
            }
        }
        Ok(walked)
    }

    fn judge(&mut self, revision: &Revision, changes: &Changes<Bytes, Value>) -> Result<(), Wrong> {
        let filter = &self.filter;
        let wants = |key: &Bytes, is_put: bool| wants(filter, key, is_put);
        for event in &revision.events {
            let value = match &event.what {
                What::Put(value) => Some(value),
                What::Delete => None,
            };
            self.checker.event(changes, wants, event.revision, &event.key, value)?;
            if let (true, Some(prev)) = (filter.prev, &event.prev) {
                let mut earlier = changes.range(..event.revision).rev();
                let before = earlier.find_map(|(_, changed)| changed.get(&event.key));
                assert_eq!(prev.as_ref(), before.and_then(Option::as_ref), "before {}", event.revision);
            }
            assert!(!filter.prev || event.prev.is_some(), "what was before {} is not told", event.revision);
        }
        match revision.is_last {
            true => self.checker.end(changes, wants, revision.revision),
            false => Ok(()),
        }
    }

    /// It is told that it has all there was in this state, and walks there first.
    pub fn progress(
        &mut self,
        hub: &mut Hub,
        view: &View,
        changes: &Changes<Bytes, Value>,
    ) -> Result<Walked, Wrong> {
        hub.follow_all(view);
        let walked = self.walk(hub, view, changes, u64::MAX)?;
        let Some(Standing { cursor, .. }) = self.at.as_ref().filter(|_| !walked.is_compacted) else {
            return Ok(walked);
        };
        let (after, filter) = (cursor.after(), &self.filter);
        assert!(
            after >= view.revision(),
            "a watcher at {after} has nothing to wait for at {}",
            view.revision()
        );
        self.checker.progress(changes, |key, is_put| wants(filter, key, is_put), after)?;
        Ok(walked)
    }
}

impl Hub {
    /// Makes one batch ready, if there is one.
    pub fn follow(&mut self, view: &View) -> bool {
        match self.feed.follow(&self.ring, view, &self.interests) {
            Ok(fed) => fed != Fed::Nothing,
            Err(error) => panic!("a node's changes cannot be read: {error}"),
        }
    }

    fn follow_all(&mut self, view: &View) {
        while self.follow(view) {}
    }
}

fn wants(filter: &Filter, key: &Bytes, is_put: bool) -> bool {
    filter.keys.contain(key) && if is_put { filter.puts } else { filter.deletes }
}
