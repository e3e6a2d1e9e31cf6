//! What watchers want: of which keys, and which kinds of changes.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Distinct prefixes that are compared with each change; with more, every change is made ready.
const PREFIXES_MAX: usize = 64;

/// Keys that are watched.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Keys {
    /// One.
    One(Bytes),
    /// All that begin so; all, where this is empty.
    Prefix(Bytes),
}

impl Keys {
    /// Whether `key` is among them.
    pub fn contain(&self, key: &[u8]) -> bool {
        match self {
            Keys::One(one) => one == key,
            Keys::Prefix(prefix) => key.starts_with(prefix),
        }
    }

    /// Where they lie in the order of keys.
    pub fn bounds(&self) -> (Bound<Bytes>, Bound<Bytes>) {
        match self {
            Keys::One(one) => (Bound::Included(one.clone()), Bound::Included(one.clone())),
            Keys::Prefix(prefix) => {
                let end = match prefix.iter().rposition(|byte| *byte < u8::MAX) {
                    None => Bound::Unbounded,
                    Some(at) => {
                        let mut end = prefix[..=at].to_vec();
                        end[at] += 1;
                        Bound::Excluded(Bytes::from(end))
                    }
                };
                (Bound::Included(prefix.clone()), end)
            }
        }
    }
}

/// What one watcher wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// Of which keys.
    pub keys: Keys,
    /// That a key was set.
    pub puts: bool,
    /// That a key was deleted.
    pub deletes: bool,
    /// With what the key had before.
    pub prev: bool,
}

/// What all watchers together want. Changes of other keys need not be made ready.
#[derive(Clone, Default, Debug)]
pub struct Interests {
    /// How many watch these keys: all, and those that want previous values.
    counts: BTreeMap<Keys, (usize, usize)>,
    prefixes: usize,
    /// Rises whenever something else is wanted.
    generation: u64,
}

/// Whether a change is wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wanted {
    /// By nobody.
    No,
    /// By somebody.
    Plain,
    /// With the previous value.
    WithPrev,
}

impl Interests {
    /// One watcher more; from the generation that comes back its changes are made ready.
    pub fn add(&mut self, filter: &Filter) -> u64 {
        let is_prefix = matches!(filter.keys, Keys::Prefix(_));
        let (all, prev) = self.counts.entry(filter.keys.clone()).or_default();
        let is_new = *all == 0 || (filter.prev && *prev == 0);
        self.prefixes += usize::from(*all == 0 && is_prefix);
        *all += 1;
        *prev += usize::from(filter.prev);
        self.generation += u64::from(is_new);
        self.generation
    }

    /// One less.
    pub fn remove(&mut self, filter: &Filter) {
        let Some((all, prev)) = self.counts.get_mut(&filter.keys) else { return };
        *all -= 1;
        *prev -= usize::from(filter.prev);
        let (is_last, is_last_prev) = (*all == 0, filter.prev && *prev == 0);
        if is_last {
            self.counts.remove(&filter.keys);
            self.prefixes -= usize::from(matches!(filter.keys, Keys::Prefix(_)));
        }
        self.generation += u64::from(is_last || is_last_prev);
    }

    /// See [`Interests::add`].
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a change of `key` is wanted.
    pub fn wanted(&self, key: &[u8]) -> Wanted {
        let of = |(all, prev): &(usize, usize)| match (all, prev) {
            (0, _) => Wanted::No,
            (_, 0) => Wanted::Plain,
            _ => Wanted::WithPrev,
        };
        if self.prefixes > PREFIXES_MAX {
            return self.counts.values().map(of).max().unwrap_or(Wanted::No);
        }
        let one = self.counts.get(&Keys::One(Bytes::copy_from_slice(key))).map_or(Wanted::No, of);
        // In the order of the enum, prefixes come behind single keys.
        let prefixes = self.counts.range(Keys::Prefix(Bytes::new())..);
        prefixes.filter(|(keys, _)| keys.contain(key)).map(|(_, counts)| of(counts)).fold(one, Ord::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(keys: Keys, prev: bool) -> Filter {
        Filter { keys, puts: true, deletes: true, prev }
    }

    fn prefix(prefix: &'static [u8]) -> Keys {
        Keys::Prefix(Bytes::from_static(prefix))
    }

    #[test]
    fn a_prefix_ends_before_the_first_key_that_has_it_not() {
        for (of, end) in [
            (&b"a"[..], Bound::Excluded(&b"b"[..])),
            (b"a\xff", Bound::Excluded(b"b")),
            (b"a\xfe\xff\xff", Bound::Excluded(b"a\xff")),
            (b"\xff\xff", Bound::Unbounded),
            (b"", Bound::Unbounded),
        ] {
            let (from, to) = Keys::Prefix(Bytes::copy_from_slice(of)).bounds();
            assert_eq!(from, Bound::Included(Bytes::copy_from_slice(of)));
            assert_eq!(to, end.map(Bytes::copy_from_slice), "{of:?}");
        }
    }

    #[test]
    fn what_is_wanted_is_what_somebody_wants() {
        let mut interests = Interests::default();
        let one = filter(Keys::One(Bytes::from_static(b"a/x")), false);
        let (some, with_prev) = (filter(prefix(b"a/"), false), filter(prefix(b"a/"), true));
        assert_eq!(interests.wanted(b"a/x"), Wanted::No);
        assert_eq!(interests.add(&one), 1);
        assert_eq!(interests.add(&one), 1, "nothing else is wanted than before");
        assert_eq!((interests.wanted(b"a/x"), interests.wanted(b"a/y")), (Wanted::Plain, Wanted::No));
        assert_eq!(interests.add(&some), 2);
        assert_eq!(interests.add(&with_prev), 3);
        assert_eq!((interests.wanted(b"a/x"), interests.wanted(b"b")), (Wanted::WithPrev, Wanted::No));
        interests.remove(&with_prev);
        assert_eq!((interests.wanted(b"a/y"), interests.generation()), (Wanted::Plain, 4));
        for _ in 0..2 {
            interests.remove(&one);
        }
        interests.remove(&some);
        assert_eq!(interests.wanted(b"a/x"), Wanted::No);
    }

    #[test]
    fn with_very_many_prefixes_all_is_wanted() {
        let mut interests = Interests::default();
        let filters = (0..=PREFIXES_MAX).map(|n| filter(Keys::Prefix(Bytes::from(format!("{n}/"))), n == 3));
        let filters: Vec<Filter> = filters.collect();
        for of in &filters {
            interests.add(of);
        }
        assert_eq!(interests.wanted(b"never"), Wanted::WithPrev);
        interests.remove(&filters[0]);
        assert_eq!(interests.wanted(b"never"), Wanted::No);
        assert_eq!((interests.wanted(b"3/a"), interests.wanted(b"4/a")), (Wanted::WithPrev, Wanted::Plain));
    }
}
