//! Breadth-first through all worlds: the first violation found is one of the shortest.
//!
//! Of a world that was seen only a fingerprint of 64 bits is kept, and from where it was reached; the worlds themselves
//! only while they wait. At 10^8 worlds two of them share a fingerprint with a chance of 3 in 10,000, and then one of the
//! two is not followed.

use crate::world::{Action, Broken, Model, World};
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::Xxh3Default;

/// When to stop before everything was seen.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Worlds; each takes about 30 bytes, those that wait 80 more.
    pub states: usize,
    /// Time.
    pub time: Duration,
}

/// How a search ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Every world within the bounds was seen.
    Fixpoint,
    /// A limit was reached.
    Limit,
    /// A property does not hold.
    Broken {
        /// Which, and how.
        why: String,
        /// The way there, for people.
        way: Vec<String>,
    },
}

/// What a search saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub end: End,
    /// Distinct worlds.
    pub states: usize,
    /// The longest way, in steps.
    pub depth: usize,
    /// Steps taken.
    pub steps: u64,
    /// How long it took.
    pub took: Duration,
}

/// A hasher for what is a hash already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = Xxh3Default::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Searches until all is seen, a limit is reached or a property is broken. `tell` hears now and then how far it is.
pub fn search(model: &mut Model, limits: Limits, mut tell: impl FnMut(&str)) -> Report {
    let began = Instant::now();
    let start = model.initial();
    let mut seen: HashSet<u64, BuildHasherDefault<Same>> = HashSet::default();
    seen.insert(fingerprint(&start));
    // From which world each was reached, and by which of its actions.
    let mut ways: Vec<(u32, u16)> = vec![(0, 0)];
    let mut waiting: VecDeque<(u32, World)> = VecDeque::from([(0, start)]);
    let (mut depth, mut depth_ends_at, mut steps) = (0, 1, 0_u64);
    let mut actions = Vec::new();
    let mut told = began;
    let report = |end, states, depth, steps| Report { end, states, depth, steps, took: began.elapsed() };
    while let Some((at, world)) = waiting.pop_front() {
        if at as usize >= depth_ends_at {
            depth += 1;
            depth_ends_at = ways.len();
        }
        actions.clear();
        model.actions(&world, &mut actions);
        for (which, &action) in actions.iter().enumerate() {
            steps += 1;
            match model.next(&world, action) {
                Ok(None) => {}
                Ok(Some(next)) => {
                    if seen.insert(fingerprint(&next)) {
                        ways.push((at, which as u16));
                        waiting.push_back((ways.len() as u32 - 1, next));
                    }
                }
                Err(Broken(why)) => {
                    let way = replay(model, &ways, at, action);
                    return report(End::Broken { why, way }, seen.len(), depth + 1, steps);
                }
            }
        }
        if at.is_multiple_of(1024) && told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            tell(&format!("{} states, depth {depth}, {} waiting", seen.len(), waiting.len()));
        }
        if seen.len() >= limits.states || (at.is_multiple_of(1024) && began.elapsed() >= limits.time) {
            return report(End::Limit, seen.len(), depth, steps);
        }
    }
    report(End::Fixpoint, seen.len(), depth, steps)
}

/// The way to a world, and one step further.
fn replay(model: &mut Model, ways: &[(u32, u16)], at: u32, last: Action) -> Vec<String> {
    let mut turns = Vec::new();
    let mut place = at;
    while place != 0 {
        let (before, which) = ways[place as usize];
        turns.push(which);
        place = before;
    }
    let mut world = model.initial();
    let mut way = Vec::new();
    for which in turns.into_iter().rev() {
        let mut actions = Vec::new();
        model.actions(&world, &mut actions);
        let action = actions[which as usize];
        way.push(model.describe(action));
        if let Ok(Some(next)) = model.next(&world, action) {
            world = next;
        }
    }
    way.push(model.describe(last));
    way.push(format!("before that step:\n{}", model.show(&world)));
    way
}
