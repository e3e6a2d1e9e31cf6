//! One walk through all places in their order: the state, the earliest instant, and what contradicts them.
//!
//! Where unknown writes must be chosen the walk may go back ([`super::fill`]), so that every change is noted and undone.

use super::MAX_STEPS;
use super::fill::Choice;
use super::plan::Plan;
use crate::history::{Condition, Kind, Operation, Outcome, Text};
use crate::verdict::{Verdict, Violation};
use crate::watch::Changes;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Something does not fit.
#[derive(Debug)]
pub(super) struct Contradiction {
    pub(super) why: String,
    pub(super) misfit: usize,
    /// Whatever the unknown writes did, it would not fit.
    pub(super) certain: bool,
    /// An operation that saw a key absent, and waited for too late a place.
    waited: Option<usize>,
}

/// A key's state: its value and the place that made it.
type KeyState = Option<(Text, usize)>;

/// How to take back a change.
#[derive(Debug)]
enum Undo {
    Key(usize, KeyState, u64),
    /// How many of a key's absent ones were settled.
    Settled(usize, usize),
    Early(usize),
    Used(usize),
}

#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) plan: &'a Plan<'a>,
    /// The next place.
    pub(super) place: usize,
    /// The earliest instant of all so far.
    pub(super) now_ns: u64,
    pub(super) state: Vec<KeyState>,
    /// By key: the instant since which it has been as it is.
    since_ns: Vec<u64>,
    present: u64,
    /// All changes so far: place, key, and what it has had since.
    changed: Vec<(usize, usize, Option<Text>)>,
    /// By key: how many of [`Plan::absent`] have their place.
    settled: Vec<usize>,
    /// Those beyond, which have theirs all the same.
    early: HashSet<usize>,
    /// Where each of them could have had its place at the latest.
    chance: HashMap<usize, usize>,
    /// Those that must take their place at this creation of their key.
    forced: HashSet<(usize, usize)>,
    /// Unknown writes that have been given a place.
    pub(super) used: HashSet<usize>,
    pub(super) order: Vec<usize>,
    pub(super) choices: Vec<Choice>,
    undo: Vec<Undo>,
    steps: usize,
}

/// Walks, again wherever that helps; gives what changed at each revision.
pub(super) fn run(plan: &Plan<'_>) -> Result<Changes<Text, Text>, Box<Verdict>> {
    let mut walk = Walk::new(plan);
    let mut furthest: Option<(usize, Contradiction, Vec<usize>, String)> = None;
    let mut outcome = walk.step_all();
    loop {
        let Err(contradiction) = outcome else { return Ok(walk.changes_made()) };
        if let Some(waited) = contradiction.waited
            && let Some(&chance) = walk.chance.get(&waited)
            && walk.steps <= MAX_STEPS
            && walk.forced.insert((waited, chance))
        {
            let (forced, steps) = (std::mem::take(&mut walk.forced), walk.steps);
            walk = Walk { forced, steps, ..Walk::new(plan) };
            outcome = walk.step_all();
            continue;
        }
        let certain = contradiction.certain || walk.choices.is_empty();
        if certain || furthest.as_ref().is_none_or(|(place, ..)| walk.place > *place) {
            let shown = walk.show(contradiction.misfit);
            furthest = Some((walk.place, contradiction, walk.order.clone(), shown));
        }
        let gave_up = walk.steps > MAX_STEPS + plan.writes.len();
        let again = if certain || gave_up { None } else { walk.choose_again() };
        if let Some(fits) = again {
            outcome = fits.and_then(|()| walk.step_all());
            continue;
        }
        let Some((_, contradiction, order, state)) = furthest else { return Ok(walk.changes_made()) };
        if gave_up && !certain {
            let why = format!(
                "too many ways in which unknown writes may have made the missing revisions; the furthest ends with: {}",
                contradiction.why
            );
            return Err(Box::new(Verdict::Undecided(why)));
        }
        let operation = plan.operation(contradiction.misfit);
        return Err(Box::new(Verdict::Violation(Box::new(Violation {
            why: format!("`{}`: {}", operation.describe(), contradiction.why),
            key: operation.key().cloned(),
            order,
            state,
            misfit: contradiction.misfit,
        }))));
    }
}

impl<'a> Walk<'a> {
    fn new(plan: &'a Plan<'a>) -> Walk<'a> {
        Walk {
            plan,
            place: 0,
            now_ns: 0,
            state: vec![None; plan.keys.len()],
            since_ns: vec![0; plan.keys.len()],
            present: 0,
            changed: Vec::new(),
            settled: vec![0; plan.keys.len()],
            early: HashSet::new(),
            chance: HashMap::new(),
            forced: HashSet::new(),
            used: HashSet::new(),
            order: Vec::new(),
            choices: Vec::new(),
            undo: Vec::new(),
            steps: 0,
        }
    }

    fn step_all(&mut self) -> Result<(), Contradiction> {
        while self.place < self.plan.writes.len() {
            self.steps += 1;
            if self.place > 0 {
                match self.plan.writes[self.place] {
                    Some(at) => self.write(at)?,
                    None => self.fill()?,
                }
            }
            self.look()?;
            self.place += 1;
        }
        // What is absent in the end stays so.
        for key in 0..self.state.len() {
            let left = self.left_absent(key).find(|&at| {
                self.state[key].is_some() || self.plan.operation(at).return_ns < Some(self.since_ns[key])
            });
            if let Some(at) = left {
                return Err(self.not_absent(key, at));
            }
        }
        Ok(())
    }

    /// What tells to have looked exactly here.
    pub(super) fn look(&mut self) -> Result<(), Contradiction> {
        let plan = self.plan;
        for &at in &plan.exact[self.place] {
            let operation = plan.operation(at);
            match &operation.kind {
                Kind::Clear { .. } if self.present > 0 => {
                    return Err(self.no(at, None, format!("{} keys were there to clear", self.present)));
                }
                Kind::Clear { .. } => {}
                Kind::Txn(txn) => self.txn_agrees(at, txn)?,
                _ => self.agrees(at, plan.key_of[at])?,
            }
            self.not_before(at, operation.call_ns)?;
            self.order.push(at);
        }
        Ok(())
    }

    /// Whether what the operation tells of its key is what the key is now.
    fn agrees(&self, at: usize, key: usize) -> Result<(), Contradiction> {
        let operation = self.plan.operation(at);
        let state = &self.state[key];
        let value = state.as_ref().map(|(value, _)| value);
        let wrong = match (&operation.kind, operation.outcome) {
            (_, Outcome::ConditionFailed) => self.holds(operation, key),
            (Kind::Get { value: seen, .. }, _) => seen.as_ref() != value,
            (Kind::Delete { .. }, _) => value.is_some(),
            _ => false,
        };
        let revision = state.as_ref().map_or(0, |(_, place)| self.plan.revision(*place));
        if wrong || operation.key_revision.is_some_and(|seen| seen != revision) {
            let now = self.plan.revision(self.place);
            let text = value.map_or("absent", |value| value);
            return Err(self.no(
                at,
                Some(key),
                format!("at revision {now}, {} was {text}", self.plan.keys[key]),
            ));
        }
        Ok(())
    }

    /// Whether the operation's condition holds of the key now.
    pub(super) fn holds(&self, operation: &Operation, key: usize) -> bool {
        operation.condition.as_ref().is_none_or(|condition| self.holds_of(condition, key))
    }

    pub(super) fn holds_of(&self, condition: &Condition, key: usize) -> bool {
        let state = &self.state[key];
        match condition {
            Condition::Absent => state.is_none(),
            Condition::Exists => state.is_some(),
            Condition::Value(value) => state.as_ref().is_some_and(|(is, _)| is == value),
            Condition::Revision(revision) => {
                state.as_ref().map_or(0, |(_, place)| self.plan.revision(*place)) == *revision
            }
        }
    }

    /// The write that makes this place.
    pub(super) fn write(&mut self, at: usize) -> Result<(), Contradiction> {
        let operation = self.plan.operation(at);
        let key = self.plan.key_of[at];
        if let Kind::Clear { deleted } = operation.kind {
            if operation.outcome == Outcome::Ok && deleted.is_some_and(|told| told != self.present) {
                return Err(self.no(at, None, format!("{} keys were there to clear", self.present)));
            }
            self.not_before(at, operation.call_ns)?;
            let there = (0..self.state.len()).filter(|key| self.state[*key].is_some());
            let changes: Vec<_> = there.map(|key| (key, None)).collect();
            self.change(at, &changes)?;
        } else if let Kind::Txn(txn) = &operation.kind {
            self.write_txn(at, txn)?;
        } else {
            if !self.holds(operation, key) {
                let state = self.state[key].as_ref().map_or("absent", |(value, _)| value);
                return Err(self.no(at, Some(key), format!("its condition does not hold of {state}")));
            }
            self.not_before(at, operation.call_ns)?;
            match &operation.kind {
                Kind::Put { value, .. } => self.change(at, &[(key, Some(Text::clone(value)))])?,
                _ if self.state[key].is_none() => {
                    return Err(self.no(at, Some(key), "there was nothing to delete".to_owned()));
                }
                _ => self.change(at, &[(key, None)])?,
            }
        }
        self.order.push(at);
        for &seen in &self.plan.seen_keys[self.place] {
            self.see(seen)?;
        }
        Ok(())
    }

    /// The keys become this, all in one instant: it is known when all have been looked at.
    pub(super) fn change(
        &mut self,
        at: usize,
        changes: &[(usize, Option<Text>)],
    ) -> Result<(), Contradiction> {
        let plan = self.plan;
        for (key, value) in changes {
            // Whoever looked at the key as it was did so before.
            if let Some((_, made)) = &self.state[*key]
                && let Some(lookers) = plan.lookers.get(&(*key, *made))
            {
                self.not_before(at, lookers.max_call_ns)?;
            }
            if self.state[*key].is_none() && value.is_some() {
                self.settle_absent(at, *key)?;
            }
        }
        for (key, value) in changes {
            self.set(*key, value.clone())?;
        }
        Ok(())
    }

    fn set(&mut self, key: usize, value: Option<Text>) -> Result<(), Contradiction> {
        let plan = self.plan;
        if let (Some(_), None) = (&self.state[key], &value)
            && let Some(late) =
                self.left_absent(key).find(|&other| plan.operation(other).return_ns < Some(self.now_ns))
        {
            return Err(self.not_absent(key, late));
        }
        let (was, is) = (self.state[key].is_some(), value.is_some());
        self.present = self.present + u64::from(is) - u64::from(was);
        self.changed.push((self.place, key, value.clone()));
        let before = std::mem::replace(&mut self.state[key], value.map(|value| (value, self.place)));
        self.note(Undo::Key(key, before, self.since_ns[key]));
        self.since_ns[key] = self.now_ns;
        Ok(())
    }

    /// Those that saw the state which this place has made.
    fn see(&mut self, key: usize) -> Result<(), Contradiction> {
        let plan = self.plan;
        let Some(lookers) = plan.lookers.get(&(key, self.place)) else { return Ok(()) };
        for &at in &lookers.operations {
            // Those with an exact place are judged there.
            if plan.operation(at).revision.is_none() {
                self.agrees(at, key)?;
                self.order.push(at);
            }
            self.in_time(at)?;
        }
        Ok(())
    }

    /// The operations that saw the key absent and have no place yet, by call.
    pub(super) fn left_absent(&self, key: usize) -> impl Iterator<Item = usize> {
        let absent = self.plan.absent[key][self.settled[key]..].iter().copied();
        absent.filter(|at| !self.early.contains(at))
    }

    /// The key is about to be created: who saw it absent before, and cannot wait until it is so again?
    fn settle_absent(&mut self, creator: usize, key: usize) -> Result<(), Contradiction> {
        let plan = self.plan;
        let mut push_ns = self.now_ns;
        let mut settled = self.settled[key];
        let absent = &plan.absent[key];
        while let Some(&at) = absent.get(settled)
            && (plan.operation(at).call_ns <= self.now_ns || self.early.contains(&at))
        {
            if !self.early.contains(&at) {
                self.order.push(at);
            }
            settled += 1;
        }
        if settled != self.settled[key] {
            self.note(Undo::Settled(key, self.settled[key]));
            self.settled[key] = settled;
        }
        for &at in &absent[settled..] {
            let operation = plan.operation(at);
            let (call_ns, return_ns) = (operation.call_ns, operation.return_ns.unwrap_or(u64::MAX));
            if call_ns > plan.due_ns[self.place] && plan.may_be_deleted(key, self.place, return_ns) {
                // Later calls can only be later.
                break;
            }
            if self.early.contains(&at) {
                continue;
            }
            let forced = self.forced.contains(&(at, self.place));
            if !forced && plan.may_be_deleted(key, self.place, return_ns) {
                self.chance.insert(at, self.place);
                continue;
            }
            self.early.insert(at);
            self.note(Undo::Early(at));
            self.order.push(at);
            push_ns = push_ns.max(call_ns);
            if push_ns > plan.due_ns[self.place] {
                // It saw nothing where by then there was something.
                let made = plan.operation(creator).describe();
                let why =
                    format!("`{made}` and all up to an answer before its call say that the key was there");
                return Err(self.no(at, Some(key), why));
            }
        }
        self.not_before(creator, push_ns)
    }

    fn not_absent(&self, key: usize, at: usize) -> Contradiction {
        let why = "the key was never absent while it was under way".to_owned();
        Contradiction { waited: Some(at), ..self.no(at, Some(key), why) }
    }

    /// The operation comes after all so far, and after this instant.
    pub(super) fn not_before(&mut self, at: usize, instant_ns: u64) -> Result<(), Contradiction> {
        self.now_ns = self.now_ns.max(instant_ns);
        self.in_time(at)
    }

    fn in_time(&self, at: usize) -> Result<(), Contradiction> {
        let Some(returned) =
            self.plan.operation(at).return_ns.filter(|_| self.plan.operation(at).is_decided())
        else {
            return Ok(());
        };
        if self.now_ns <= returned {
            return Ok(());
        }
        let why = format!(
            "it was answered at {returned} ns, but stands behind something that was called at {} ns or later",
            self.now_ns
        );
        let certain = self.plan.known_ns[self.place] > returned;
        Err(Contradiction { certain, ..self.no(at, None, why) })
    }

    /// A contradiction about a key (or, without one, about what the unknown writes have to do with).
    pub(super) fn no(&self, misfit: usize, key: Option<usize>, why: String) -> Contradiction {
        let certain = key.is_some_and(|key| !self.plan.is_open[key]);
        Contradiction { why, misfit, certain, waited: None }
    }

    /// No unknown write can have made this place.
    pub(super) fn nobody(&self) -> Contradiction {
        let plan = self.plan;
        let seen = plan.seen_keys[self.place].first();
        let witness = seen.and_then(|key| plan.lookers.get(&(*key, self.place)));
        let after = plan.writes[self.place..].iter().flatten().next().copied();
        let misfit = witness.and_then(|lookers| lookers.operations.first().copied()).or(after);
        let misfit = misfit.or_else(|| self.order.last().copied()).unwrap_or_default();
        let why = format!("no write of unknown outcome can have made revision {}", plan.revision(self.place));
        self.no(misfit, None, why)
    }

    /// What the store holds, of the operation's key or in all.
    fn show(&self, at: usize) -> String {
        match self.state.get(self.plan.key_of[at]) {
            Some(Some((value, place))) => format!("{value} @{}", self.plan.revision(*place)),
            Some(None) => "absent".to_owned(),
            None => format!("{} keys", self.present),
        }
    }

    /// All changes by revision and key.
    fn changes_made(&self) -> Changes<Text, Text> {
        let mut changes = Changes::new();
        for (place, key, value) in &self.changed {
            let of_revision: &mut BTreeMap<_, _> = changes.entry(self.plan.revision(*place)).or_default();
            of_revision.insert(Text::clone(&self.plan.keys[*key]), value.clone());
        }
        changes
    }

    fn note(&mut self, undo: Undo) {
        if !self.choices.is_empty() {
            self.undo.push(undo);
        }
    }

    /// How much there is to take back.
    pub(super) fn notes(&self) -> usize {
        self.undo.len()
    }

    /// Gives an unknown write a place.
    pub(super) fn make_used(&mut self, at: usize) {
        self.used.insert(at);
        self.note(Undo::Used(at));
    }

    /// Takes changes back until this many are left.
    pub(super) fn take_back(&mut self, notes: usize) {
        while self.undo.len() > notes {
            match self.undo.pop() {
                Some(Undo::Key(key, before, since_ns)) => {
                    let (was, is) = (before.is_some(), self.state[key].is_some());
                    self.present = self.present + u64::from(was) - u64::from(is);
                    self.state[key] = before;
                    self.changed.pop();
                    self.since_ns[key] = since_ns;
                }
                Some(Undo::Settled(key, settled)) => self.settled[key] = settled,
                Some(Undo::Early(at)) => {
                    self.early.remove(&at);
                }
                Some(Undo::Used(at)) => {
                    self.used.remove(&at);
                }
                None => {}
            }
        }
    }
}
