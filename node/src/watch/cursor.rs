//! One watcher's walk through the changes: from the ring where that has them, else from history.
//!
//! Pure: who holds the cursor reads history for it when it says so, on a thread that may read the disk.

use super::event::{Event, What};
use super::filter::Filter;
use super::ring::{Item, Ring};
use balsa_store::{Change, Changed, PastError, Scan, Values, View};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

/// Changes that one look into history walks, at most.
const ROWS_MAX: usize = 1_000;
/// Events of a revision that deleted very many keys, in one piece.
const PIECE_MAX: usize = 256;
/// Bytes of keys and values that one look into history takes, about.
const BYTES_MAX: usize = 32 << 10;

/// Where a watcher is.
#[derive(Debug)]
pub struct Cursor {
    filter: Filter,
    /// It has all up to here.
    after: u64,
    /// From this generation on the ring has what it wants.
    generation: u64,
    /// The batch that it looks at next.
    seq: u64,
    /// What was read from history, and up to where that and `unfinished` reach.
    page: VecDeque<Revision>,
    page_through: u64,
    /// What comes behind that page; what was there before has yet to be read.
    unfinished: VecDeque<Event>,
    /// It is in the middle of a revision that deleted all keys: that, and the last key it has got.
    clearing: Option<(u64, Option<Bytes>)>,
}

/// The events of a revision, or a piece of very many.
#[derive(Debug)]
pub struct Revision {
    /// Which.
    pub revision: u64,
    /// Its events; never empty.
    pub events: Vec<Arc<Event>>,
    /// The last of them is the revision's last.
    pub is_last: bool,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// This.
    Revision(Revision),
    /// Nothing yet.
    Wait,
    /// The ring does not have it: [`Cursor::read_history`] does.
    Behind,
}

impl Cursor {
    /// A watcher that has all up to `after`; `generation` is what registering the filter gave.
    pub fn new(filter: Filter, after: u64, generation: u64) -> Cursor {
        let (page, page_through, unfinished) = (VecDeque::new(), after, VecDeque::new());
        Cursor { filter, after, generation, seq: 0, page, page_through, unfinished, clearing: None }
    }

    /// It has all up to this revision.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// What it wants.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The next events. The ring's newest batch is `newest`, which reaches up to `through`.
    pub fn next(&mut self, ring: &Ring, (newest, through): (u64, u64)) -> Next {
        if let Some(revision) = self.page.pop_front() {
            if revision.is_last {
                self.after = revision.revision;
            }
            self.finish_page();
            return Next::Revision(revision);
        }
        if self.clearing.is_some() || !self.unfinished.is_empty() {
            return Next::Behind;
        }
        while self.after < through {
            let batch = ring.get(self.seq).filter(|batch| batch.after <= self.after);
            let Some(batch) = batch else {
                match ring.seek(newest, self.after) {
                    Some(seq) if seq != self.seq => self.seq = seq,
                    _ => return Next::Behind,
                }
                continue;
            };
            if batch.through <= self.after {
                self.seq += 1;
                continue;
            }
            if batch.generation < self.generation {
                return Next::Behind;
            }
            let from = batch.items.partition_point(|item| item.revision() <= self.after);
            if let Some(next) = self.take(&batch.items[from..]) {
                return next;
            }
            self.after = batch.through;
            self.seq += 1;
        }
        Next::Wait
    }

    /// The first revision of these that it wants.
    fn take(&mut self, items: &[Item]) -> Option<Next> {
        let mut events: Vec<Arc<Event>> = Vec::new();
        for item in items {
            if events.first().is_some_and(|first| first.revision != item.revision()) {
                break;
            }
            match item {
                Item::Event(event) if self.wants(event) => events.push(Arc::clone(event)),
                Item::Event(_) => {}
                Item::Clear(revision) if self.filter.deletes => {
                    self.begin_clear(*revision);
                    return Some(Next::Behind);
                }
                Item::Clear(_) => {}
                Item::Large(revision) => {
                    self.after = revision - 1;
                    return Some(Next::Behind);
                }
            }
        }
        let revision = events.first()?.revision;
        self.after = revision;
        Some(Next::Revision(Revision { revision, events, is_last: true }))
    }

    fn wants(&self, event: &Event) -> bool {
        let kind = match event.what {
            What::Put(_) => self.filter.puts,
            What::Delete => self.filter.deletes,
        };
        kind && self.filter.keys.contain(&event.key)
    }

    fn begin_clear(&mut self, revision: u64) {
        self.after = revision - 1;
        self.clearing = Some((revision, None));
    }

    /// Reads on in history. May read the disk.
    pub fn read_history(&mut self, view: &View) -> Result<(), PastError> {
        if self.unfinished.is_empty() {
            match self.clearing.take() {
                Some((revision, last_key)) => self.read_clear(view, revision, last_key)?,
                None => self.read_changes(view)?,
            }
        }
        self.finish_events(view)?;
        self.finish_page();
        Ok(())
    }

    fn read_changes(&mut self, view: &View) -> Result<(), PastError> {
        let keys = self.filter.keys.clone();
        let changes = view.changes(self.after, |key| keys.contain(key), ROWS_MAX, BYTES_MAX)?;
        self.page_through = changes.through;
        for Change { revision, what } in changes.items {
            let (key, what) = match what {
                Changed::Put { key, value } => (key, What::Put(value)),
                Changed::Delete { key } => (key, What::Delete),
                Changed::Clear if self.filter.deletes => {
                    self.page_through = revision - 1;
                    self.clearing = Some((revision, None));
                    break;
                }
                Changed::Clear => continue,
            };
            let event = Event::new(revision, key, what, None);
            if self.wants(&event) {
                self.unfinished.push_back(event);
            }
        }
        Ok(())
    }

    /// Adds what was there before to what has been read, and makes pages of that: a page's worth of it.
    fn finish_events(&mut self, view: &View) -> Result<(), PastError> {
        let mut bytes = 0;
        while bytes < BYTES_MAX {
            let Some(mut event) = self.unfinished.pop_front() else { break };
            let revision = event.revision;
            if self.filter.prev {
                event.prev = Some(view.get_at(&event.key, revision - 1)?);
                bytes += event.bytes();
            }
            let is_last = self.unfinished.front().is_none_or(|next| next.revision != revision);
            let event = Arc::new(event);
            match self.page.back_mut() {
                Some(last) if last.revision == revision => {
                    last.events.push(event);
                    last.is_last = is_last;
                }
                _ => self.page.push_back(Revision { revision, events: vec![event], is_last }),
            }
        }
        Ok(())
    }

    /// The keys that were there before all were deleted.
    fn read_clear(&mut self, view: &View, revision: u64, last_key: Option<Bytes>) -> Result<(), PastError> {
        let (start, end) = self.filter.keys.bounds();
        let start = last_key.map_or(start, Bound::Excluded);
        let (start, end) = (start.as_ref().map(|key| &key[..]), end.as_ref().map(|key| &key[..]));
        let values = if self.filter.prev { Values::Wanted } else { Values::LeftOut };
        let scan = Scan { values, ..Scan::new(start, end) };
        let there = view.page_at(revision - 1, scan, PIECE_MAX, BYTES_MAX)?;
        let is_last = !there.more;
        if let (false, Some((key, _))) = (is_last, there.items.last()) {
            self.clearing = Some((revision, Some(key.clone())));
        }
        let with_prev = self.filter.prev;
        let events = there.items.into_iter().map(|(key, value)| {
            Arc::new(Event::new(revision, key, What::Delete, with_prev.then_some(Some(value))))
        });
        let events: Vec<Arc<Event>> = events.collect();
        self.page_through = if is_last { revision } else { revision - 1 };
        if !events.is_empty() {
            self.page.push_back(Revision { revision, events, is_last });
        }
        Ok(())
    }

    /// Once nothing is left of what was read, all that it reached over is behind the cursor.
    fn finish_page(&mut self) {
        if self.page.is_empty() && self.unfinished.is_empty() {
            self.after = self.after.max(self.page_through);
        }
    }
}
