//! Is what a watcher got right? Judged as it comes, against all changes that there were.
//!
//! - *Ordered*: revisions only rise. *Unique*: no change comes twice, but for those of a revision whose end was not heard
//!   when the connection broke. *Atomic*: a revision's changes come together, and its number only with the last of them.
//! - *Complete*: nothing that is wanted is left out below what has come; *bookmarkable*: nor below what progress tells.
//! - *Resumable*: whoever goes on behind the last number it has heard misses nothing.
//!
//! What a change is, and a value, is the caller's affair.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// By revision and key: what the key has had since; `None`: it was deleted.
pub type Changes<K, V> = BTreeMap<u64, BTreeMap<K, Option<V>>>;

/// What is wrong, in words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub(crate) String);

macro_rules! wrong {
    ($($what:tt)*) => { return Err(Wrong(format!($($what)*))) };
}

/// One watcher, over all its connections.
#[derive(Debug)]
pub struct Watcher<K> {
    /// It has heard of all up to here, and of the end of that.
    complete: u64,
    /// What has come of the revision that it is in the middle of.
    open: Option<(u64, BTreeSet<K>)>,
}

impl<K: Ord + Clone + Debug> Watcher<K> {
    /// One that asked for all above a revision.
    pub fn new(after: u64) -> Watcher<K> {
        Watcher { complete: after, open: None }
    }

    /// Behind this it goes on after its connection broke.
    pub fn complete(&self) -> u64 {
        self.complete
    }

    /// A change came. `wants` says what the watcher asked for: the key, and whether it was set.
    pub fn event<V: PartialEq + Debug>(
        &mut self,
        changes: &Changes<K, V>,
        wants: impl Fn(&K, bool) -> bool,
        revision: u64,
        key: &K,
        value: Option<&V>,
    ) -> Result<(), Wrong> {
        if revision <= self.complete {
            wrong!("revision {revision} comes after all up to {} had come", self.complete);
        }
        let open = self.open.as_ref().map_or(revision, |(open, _)| *open);
        if open != revision {
            wrong!("revision {revision} comes before the end of {open} was told");
        }
        self.misses_nothing(changes, &wants, revision - 1)?;
        match changes.get(&revision).and_then(|changed| changed.get(key)) {
            None => wrong!("key {key:?} did not change at {revision}"),
            Some(changed) if changed.as_ref() != value => {
                wrong!("key {key:?} is told to be {value:?} since {revision}, and is {changed:?}")
            }
            Some(_) if !wants(key, value.is_some()) => {
                wrong!("nobody asked for key {key:?} at {revision}, which is now {value:?}")
            }
            Some(_) => {}
        }
        let (_, keys) = self.open.get_or_insert_with(|| (revision, BTreeSet::new()));
        if !keys.insert(key.clone()) {
            wrong!("key {key:?} at {revision} comes twice");
        }
        Ok(())
    }

    /// The last change that came carried its number: its revision has ended.
    pub fn end<V>(
        &mut self,
        changes: &Changes<K, V>,
        wants: impl Fn(&K, bool) -> bool,
        revision: u64,
    ) -> Result<(), Wrong> {
        let Some((open, keys)) = self.open.take().filter(|(open, _)| *open == revision) else {
            wrong!("the end of {revision} is told, of which nothing came")
        };
        for (key, value) in changes.get(&open).into_iter().flatten() {
            if wants(key, value.is_some()) && !keys.contains(key) {
                wrong!("revision {revision} ends without key {key:?}");
            }
        }
        self.complete = revision;
        Ok(())
    }

    /// The watcher was told that it has all up to a revision.
    pub fn progress<V>(
        &mut self,
        changes: &Changes<K, V>,
        wants: impl Fn(&K, bool) -> bool,
        revision: u64,
    ) -> Result<(), Wrong> {
        if let Some((open, _)) = self.open {
            wrong!("progress up to {revision} is told in the middle of {open}");
        }
        if revision < self.complete {
            wrong!("progress up to {revision} is told after all up to {} had come", self.complete);
        }
        self.misses_nothing(changes, wants, revision)?;
        self.complete = revision;
        Ok(())
    }

    /// Its connection broke; what came of a revision whose end it did not hear comes again.
    pub fn broke(&mut self) {
        self.open = None;
    }

    fn misses_nothing<V>(
        &self,
        changes: &Changes<K, V>,
        wants: impl Fn(&K, bool) -> bool,
        through: u64,
    ) -> Result<(), Wrong> {
        if through <= self.complete {
            return Ok(());
        }
        for (revision, changed) in changes.range(self.complete + 1..=through) {
            if let Some((key, _)) = changed.iter().find(|&(key, value)| wants(key, value.is_some())) {
                wrong!("key {key:?} at {revision} is missing below {}", through + 1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two keys at 2, one of them deleted at 3, another at 5.
    fn changes() -> Changes<&'static str, u32> {
        BTreeMap::from([
            (1, BTreeMap::from([("a", Some(1))])),
            (2, BTreeMap::from([("a", Some(2)), ("b", Some(2))])),
            (3, BTreeMap::from([("a", None)])),
            (5, BTreeMap::from([("c", Some(5))])),
        ])
    }

    fn all(_: &&'static str, _: bool) -> bool {
        true
    }

    fn event(
        watcher: &mut Watcher<&'static str>,
        revision: u64,
        key: &'static str,
        value: Option<u32>,
    ) -> Result<(), Wrong> {
        watcher.event(&changes(), all, revision, &key, value.as_ref())
    }

    #[test]
    fn what_is_right_is_right() {
        let (changes, mut watcher) = (changes(), Watcher::new(1));
        event(&mut watcher, 2, "a", Some(2)).unwrap();
        watcher.broke();
        for key in ["b", "a"] {
            event(&mut watcher, 2, key, Some(2)).unwrap();
        }
        watcher.end(&changes, all, 2).unwrap();
        event(&mut watcher, 3, "a", None).unwrap();
        watcher.end(&changes, all, 3).unwrap();
        watcher.progress(&changes, all, 4).unwrap();
        watcher.progress(&changes, all, 4).unwrap();
        assert_eq!(watcher.complete(), 4);
        event(&mut watcher, 5, "c", Some(5)).unwrap();
        watcher.end(&changes, all, 5).unwrap();
    }

    #[test]
    fn each_promise_can_be_broken() {
        type Story = fn(&mut Watcher<&'static str>) -> Result<(), Wrong>;
        let broken: [(&str, Story); 10] = [
            ("missing below 3", |w| event(w, 3, "a", None)),
            ("missing below 6", |w| w.progress(&changes(), all, 5)),
            ("comes twice", |w| event(w, 2, "a", Some(2)).and_then(|()| event(w, 2, "a", Some(2)))),
            ("before the end of 2", |w| event(w, 2, "a", Some(2)).and_then(|()| event(w, 3, "a", None))),
            ("ends without", |w| event(w, 2, "a", Some(2)).and_then(|()| w.end(&changes(), all, 2))),
            ("in the middle of 2", |w| {
                event(w, 2, "a", Some(2)).and_then(|()| w.progress(&changes(), all, 2))
            }),
            ("after all up to 1", |w| event(w, 1, "a", Some(1))),
            ("after all up to 1", |w| w.progress(&changes(), all, 0)),
            ("is told to be", |w| event(w, 2, "a", Some(3))),
            ("did not change", |w| event(w, 2, "c", Some(3))),
        ];
        for (says, story) in broken {
            let wrong = story(&mut Watcher::new(1)).unwrap_err();
            assert!(wrong.to_string().contains(says), "{wrong}");
        }
        let only_b = |key: &&'static str, _: bool| *key == "b";
        let unasked = Watcher::new(1).event(&changes(), only_b, 2, &"a", Some(&2));
        assert!(unasked.unwrap_err().to_string().contains("nobody asked"));
        assert!(Watcher::<&str>::new(1).end(&changes(), all, 2).is_err());
    }
}
