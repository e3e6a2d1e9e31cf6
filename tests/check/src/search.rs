//! Finds an order, after Wing and Gong ("Testing and verifying concurrent objects", 1993): take any operation that
//! may come next, do it on the model, go on; where nothing fits, take the last one back. Lowe's memory ("Testing for
//! linearizability", 2017) makes that bearable: the same set of operations that led to the same state need not be
//! followed twice.
//!
//! What may come next is any operation that was called before the first answer of those that are left. Operations
//! without an answer are tried only where those with one are stuck, never where they change nothing, and never right
//! before an operation that overwrites all they did: then one might as well leave them out.
//!
//! Knows the model as [`Model`] only, and operations as numbers.

use crate::model::Model;
use std::collections::HashMap;

/// When an operation was under way.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// When it was called.
    pub call_ns: u64,
    /// When it was answered; `None`: never, and it may have taken place at any time after its call, or not at all.
    pub return_ns: Option<u64>,
}

/// What a search found.
#[derive(Debug)]
pub enum Found<S> {
    /// An order; operations without an answer that are not in it did not take place.
    Order(Vec<usize>),
    /// There is none.
    Stuck(Stuck<S>),
    /// There were more states than allowed.
    GaveUp,
}

/// As far as the search came.
#[derive(Debug)]
pub struct Stuck<S> {
    /// The longest order of a beginning.
    pub order: Vec<usize>,
    /// The state that it leaves.
    pub state: S,
    /// The operation whose answer nothing explains.
    pub misfit: usize,
}

/// The end of the list, and the place before its beginning.
const HEAD: usize = 0;

/// Calls and answers in order of time, as a list from which operations are lifted and put back.
struct Events {
    /// The operation, and whether this is its answer. Place 0 is the head.
    events: Vec<(usize, bool)>,
    times: Vec<u64>,
    next: Vec<usize>,
    before: Vec<usize>,
    /// Where an operation's answer is.
    answers: Vec<usize>,
}

impl Events {
    fn new(spans: &[Span]) -> Events {
        let mut order: Vec<(u64, bool, usize)> = Vec::new();
        for (operation, span) in spans.iter().enumerate() {
            if let Some(answered) = span.return_ns {
                order.push((span.call_ns, false, operation));
                order.push((answered, true, operation));
            }
        }
        // Where a call and an answer are at the same time, the two operations overlap.
        order.sort_unstable();
        let count = order.len() + 1;
        let mut events = Events {
            events: vec![(0, false)],
            times: vec![0],
            next: (1..=count).map(|at| at % count).collect(),
            before: (0..count).map(|at| (at + count - 1) % count).collect(),
            answers: vec![0; spans.len()],
        };
        for (time, is_answer, operation) in order {
            if is_answer {
                events.answers[operation] = events.events.len();
            }
            events.events.push((operation, is_answer));
            events.times.push(time);
        }
        events
    }

    fn unlink(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = next;
        self.before[next] = before;
    }

    fn relink(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = at;
        self.before[next] = at;
    }

    fn lift(&mut self, call: usize) {
        self.unlink(call);
        self.unlink(self.answers[self.events[call].0]);
    }

    fn put_back(&mut self, call: usize) {
        self.relink(self.answers[self.events[call].0]);
        self.relink(call);
    }
}

/// Where to go on looking for the next operation.
#[derive(Clone, Copy)]
enum Cursor {
    /// At this event.
    Answered(usize),
    /// At this one of those without an answer; the answer before which they must have been called.
    Open(usize, usize),
}

/// One operation of the order that is being tried.
struct Choice<S> {
    operation: usize,
    /// The state before it, and the other things to restore.
    state: S,
    top: usize,
    after_open: bool,
    cursor: Cursor,
}

/// A set of operations, a bit each.
type Set = Box<[u64]>;

struct Search<'a, M: Model> {
    model: &'a mut M,
    events: Events,
    /// Those without an answer, by time of call: time and operation.
    open: Vec<(u64, usize)>,
    /// For each of these, the one before it that is equal.
    equal_before: Vec<Option<usize>>,
    /// Where an operation is among those with an answer (by call), or in `open`.
    place: Vec<usize>,
    /// Sets of operations: those with an answer, those without.
    done: Vec<u64>,
    open_done: Vec<u64>,
    /// The greatest place in `done`.
    top: usize,
    state: M::State,
    after_open: bool,
    chosen: Vec<Choice<M::State>>,
    /// By the set of those with an answer, and the state: the least sets of those without that led there.
    seen: HashMap<(Set, M::State), Vec<Set>>,
    /// How many these are.
    states: usize,
}

/// Looks for an order of these operations; their numbers are those of `spans` and those the model knows. Holds at most
/// `max_states` states.
pub fn search<M: Model>(model: &mut M, spans: &[Span], max_states: usize) -> Found<M::State> {
    let events = Events::new(spans);
    let mut open: Vec<(u64, usize)> = Vec::new();
    let mut place = vec![0; spans.len()];
    let mut answered = 0;
    for &(operation, is_answer) in events.events.iter().skip(1) {
        if !is_answer {
            place[operation] = answered;
            answered += 1;
        }
    }
    for (operation, span) in spans.iter().enumerate().filter(|(_, span)| span.return_ns.is_none()) {
        open.push((span.call_ns, operation));
    }
    open.sort_unstable();
    for (at, &(_, operation)) in open.iter().enumerate() {
        place[operation] = at;
    }
    let equal_before = (0..open.len())
        .map(|at| (0..at).rev().find(|&before| model.is_same(open[at].1, open[before].1)))
        .collect();
    let state = model.initial();
    let search = Search {
        done: vec![0; answered / 64 + 1],
        open_done: vec![0; open.len() / 64 + 1],
        model,
        events,
        open,
        equal_before,
        place,
        top: 0,
        state,
        after_open: false,
        chosen: Vec::new(),
        seen: HashMap::new(),
        states: 0,
    };
    search.run(max_states)
}

impl<M: Model> Search<'_, M> {
    fn run(mut self, max_states: usize) -> Found<M::State> {
        let mut cursor = Cursor::Answered(self.events.next[HEAD]);
        let mut best: Option<Stuck<M::State>> = None;
        loop {
            if self.events.next[HEAD] == HEAD {
                return Found::Order(self.chosen.iter().map(|choice| choice.operation).collect());
            }
            if self.states >= max_states {
                return Found::GaveUp;
            }
            if self.advance(cursor) {
                cursor = Cursor::Answered(self.events.next[HEAD]);
                continue;
            }
            // Nothing fits: remember how far that was, and take one back.
            if best.as_ref().is_none_or(|best| self.chosen.len() > best.order.len()) {
                let order = self.chosen.iter().map(|choice| choice.operation).collect();
                let misfit = self.events.events[self.first_answer()].0;
                best = Some(Stuck { order, state: self.state.clone(), misfit });
            }
            match (self.take_back(), best.take()) {
                (Some(after), kept) => {
                    cursor = after;
                    best = kept;
                }
                (None, Some(best)) => return Found::Stuck(best),
                (None, None) => return Found::GaveUp,
            }
        }
    }

    fn first_answer(&self) -> usize {
        let mut at = self.events.next[HEAD];
        while at != HEAD && !self.events.events[at].1 {
            at = self.events.next[at];
        }
        at
    }

    /// Takes the first operation from the cursor on that fits.
    fn advance(&mut self, mut cursor: Cursor) -> bool {
        loop {
            match cursor {
                Cursor::Answered(at) => {
                    let (operation, is_answer) = self.events.events[at];
                    if is_answer || at == HEAD {
                        cursor = Cursor::Open(0, at);
                        continue;
                    }
                    if !(self.after_open && self.model.overwrites(operation))
                        && let Some(next) = self.model.step(&self.state, operation)
                    {
                        let place = self.place[operation];
                        self.done[place / 64] |= 1 << (place % 64);
                        self.events.lift(at);
                        if self.is_new(self.top.max(place), &next) {
                            self.choose(operation, next, cursor, place, false);
                            return true;
                        }
                        self.events.put_back(at);
                        self.done[place / 64] &= !(1 << (place % 64));
                    }
                    cursor = Cursor::Answered(self.events.next[at]);
                }
                Cursor::Open(at, deadline) => {
                    let Some(&(called, operation)) = self.open.get(at) else { return false };
                    if called > self.events.times[deadline] {
                        return false;
                    }
                    let bit = 1 << (at % 64);
                    let in_turn = self.equal_before[at]
                        .is_none_or(|before| self.open_done[before / 64] & (1 << (before % 64)) != 0);
                    if in_turn
                        && self.open_done[at / 64] & bit == 0
                        && !(self.after_open && self.model.overwrites(operation))
                        && let Some(next) = self.model.step(&self.state, operation)
                        && next != self.state
                    {
                        self.open_done[at / 64] |= bit;
                        if self.is_new(self.top, &next) {
                            self.choose(operation, next, cursor, 0, true);
                            return true;
                        }
                        self.open_done[at / 64] &= !bit;
                    }
                    cursor = Cursor::Open(at + 1, deadline);
                }
            }
        }
    }

    fn choose(&mut self, operation: usize, next: M::State, cursor: Cursor, place: usize, open: bool) {
        let state = std::mem::replace(&mut self.state, next);
        self.chosen.push(Choice { operation, state, top: self.top, after_open: self.after_open, cursor });
        self.top = self.top.max(place);
        self.after_open = open;
    }

    /// Undoes the last choice; gives where to go on behind it.
    fn take_back(&mut self) -> Option<Cursor> {
        let choice = self.chosen.pop()?;
        self.state = choice.state;
        self.top = choice.top;
        self.after_open = choice.after_open;
        let place = self.place[choice.operation];
        Some(match choice.cursor {
            Cursor::Answered(at) => {
                self.done[place / 64] &= !(1 << (place % 64));
                self.events.put_back(at);
                Cursor::Answered(self.events.next[at])
            }
            Cursor::Open(at, deadline) => {
                self.open_done[place / 64] &= !(1 << (place % 64));
                Cursor::Open(at + 1, deadline)
            }
        })
    }

    /// Whether this set of operations, or a better one, has not led to this state yet. All operations before the first that
    /// is left are in the set, so that only what lies between it and the greatest is remembered.
    fn is_new(&mut self, top: usize, state: &M::State) -> bool {
        let first = self.events.next[HEAD];
        let until = self.done.len().min(top / 64 + 1);
        let from = if first == HEAD { until } else { self.place[self.events.events[first].0] / 64 };
        let from = from.min(until);
        let mut set = Vec::with_capacity(1 + until - from);
        set.push(from as u64);
        set.extend_from_slice(&self.done[from..until]);
        let least = self.seen.entry((set.into(), state.clone())).or_default();
        let open = &self.open_done;
        let within = |one: &[u64], other: &[u64]| one.iter().zip(other).all(|(one, other)| one & !other == 0);
        if least.iter().any(|set| within(set, open)) {
            return false;
        }
        let before = least.len();
        least.retain(|set| !within(open, set));
        self.states = self.states + 1 + least.len() - before;
        least.push(open.clone().into());
        true
    }
}
