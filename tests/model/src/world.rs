//! All nodes, all messages, and what was ever true: one state of the search, in a few numbers.
//!
//! The network is a set that only grows: a message that was sent may arrive at any time, in any order, again and again,
//! or never. What is sent twice is there once. Left out are only answers that nobody can hear any more, of a term that their
//! receiver has durably left, and pre-votes that can only be refused.
//!
//! A whole core is kilobytes, and there are few different ones; worlds are combinations of them. So each site, each
//! message, each set of messages and each truth is kept once in [`Tables`] and named by a number, and what an input does
//! to a site is worked out once. A world is 40 bytes, a step a few look-ups.

use crate::properties::{Step, Truth, check_log_matching};
use crate::site::{Facts, Input, Site};
use balsa_raft::{Body, Change, Membership, Message, NodeId, Role};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash};
use std::panic::{AssertUnwindSafe, catch_unwind};
use xxhash_rust::xxh3::Xxh3Default;

type Hashed<K, V> = HashMap<K, V, BuildHasherDefault<Xxh3Default>>;

/// The most nodes in a world.
pub const MAX_NODES: usize = 4;

/// What may happen, and how often.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How the bounds are called.
    pub name: &'static str,
    /// What is in them, for people.
    pub about: &'static str,
    /// Nodes at first voters.
    pub voters: u64,
    /// Nodes at first outside, blank.
    pub blank: u64,
    /// No node campaigns beyond this term. The cluster is founded in term 1.
    pub max_term: u64,
    /// Election timers that run out, in all.
    pub timeouts: u8,
    /// Heartbeats that a leader sends, in all.
    pub heartbeats: u8,
    /// Proposals in all.
    pub proposals: u8,
    /// Crashes in all.
    pub crashes: u8,
    /// Membership changes in all; [`Bounds::change`] says to what.
    pub changes: u8,
    /// Leadership transfers in all.
    pub transfers: u8,
    /// Times that a leader checks its quorum, or a node loses patience with its leader.
    pub patience: u8,
    /// What is changed.
    pub change: Vec<Change>,
    /// Writes complete at once.
    pub fast_disks: bool,
}

/// What may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Budget {
    timeouts: u8,
    heartbeats: u8,
    proposals: u8,
    crashes: u8,
    changes: u8,
    transfers: u8,
    patience: u8,
}

/// One state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct World {
    sites: [u32; MAX_NODES],
    /// The messages that may arrive at each.
    inboxes: [u32; MAX_NODES],
    truth: u32,
    budget: Budget,
}

/// What happens: to which node (from 0), and what.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Action {
    /// To whom.
    pub node: u8,
    /// What.
    pub input: Input,
}

/// Something that must not be: the property and how it broke.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken(pub String);

/// What an input does to a site.
#[derive(Clone, Debug)]
struct Outcome {
    site: u32,
    sent: Box<[u32]>,
}

/// Everything that worlds name by numbers.
#[derive(Debug, Default)]
pub struct Tables {
    sites: Vec<Site>,
    facts: Vec<Facts>,
    site_numbers: Hashed<u128, u32>,
    messages: Vec<Message>,
    message_numbers: Hashed<String, u32>,
    sets: Vec<Box<[u32]>>,
    set_numbers: Hashed<Box<[u32]>, u32>,
    truths: Vec<Truth>,
    truth_numbers: Hashed<Truth, u32>,
    outcomes: Hashed<(u32, Input), Result<Outcome, String>>,
    /// What was added to a set, and the term that its receiver has durably reached.
    deliveries: Hashed<(u32, Box<[u32]>, u64), u32>,
    matching: HashSet<(u32, u32), BuildHasherDefault<Xxh3Default>>,
    buffer: String,
}

/// The model: bounds and tables.
#[derive(Debug)]
pub struct Model {
    bounds: Bounds,
    tables: Tables,
    start: Option<World>,
}

impl Model {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Model {
        let nodes = bounds.voters + bounds.blank;
        assert!(nodes as usize <= MAX_NODES, "{nodes} nodes; worlds have room for {MAX_NODES}");
        Model { bounds, tables: Tables::default(), start: None }
    }

    /// The bounds.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// The beginning: a founded cluster in which nothing has happened.
    pub fn initial(&mut self) -> World {
        let membership = Membership::of_voters((1..=self.bounds.voters).map(NodeId));
        let nobody = self.tables.set(Vec::new());
        let mut world = World {
            sites: [u32::MAX; MAX_NODES],
            inboxes: [nobody; MAX_NODES],
            truth: self.tables.truth(&Truth::default()),
            budget: Budget {
                timeouts: self.bounds.timeouts,
                heartbeats: self.bounds.heartbeats,
                proposals: self.bounds.proposals,
                crashes: self.bounds.crashes,
                changes: self.bounds.changes,
                transfers: self.bounds.transfers,
                patience: self.bounds.patience,
            },
        };
        for at in 0..self.nodes() {
            let id = NodeId(at as u64 + 1);
            let founder = id.0 <= self.bounds.voters;
            let site = if founder { Site::founder(id, &membership) } else { Site::blank(id) };
            world.sites[at] = self.tables.site(site);
        }
        self.start = Some(world);
        world
    }

    fn nodes(&self) -> usize {
        (self.bounds.voters + self.bounds.blank) as usize
    }

    /// All that may happen next.
    pub fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let budget = world.budget;
        // The founders are alike, so let the first be the first whose timer runs out: it is the same for the others.
        let untouched = self.start == Some(*world);
        for at in 0..self.nodes() {
            let facts = &self.tables.facts[world.sites[at] as usize];
            let mut may = |allowed: bool, input: Input| {
                if allowed {
                    actions.push(Action { node: at as u8, input });
                }
            };
            if untouched {
                may(at == 0, Input::Timeout);
                continue;
            }
            for &message in &self.tables.sets[world.inboxes[at] as usize] {
                may(true, Input::Deliver(message));
            }
            let leads = facts.role == Role::Leader;
            may(facts.is_writing, Input::Persist);
            may(!leads && budget.timeouts > 0 && facts.term.0 < self.bounds.max_term, Input::Timeout);
            may(leads && budget.heartbeats > 0, Input::Heartbeat);
            may(leads && budget.patience > 0, Input::Timeout);
            let follows = !leads && facts.leader.is_some() && facts.role == Role::Follower;
            may(follows && budget.patience > 0, Input::Patience);
            may(leads && budget.proposals > 0, Input::Propose);
            may(leads && budget.changes > 0, Input::Change);
            if leads && budget.transfers > 0 && facts.term.0 < self.bounds.max_term {
                for &to in facts.membership.voters.iter().filter(|to| to.0 != at as u64 + 1) {
                    may(true, Input::Transfer(to.0));
                }
            }
            may(budget.crashes > 0, Input::Crash);
        }
    }

    /// What follows from it; `None`: nothing changes.
    pub fn next(&mut self, world: &World, action: Action) -> Result<Option<World>, Broken> {
        let mut next = *world;
        let leads = |facts: &Facts| facts.role == Role::Leader;
        match action.input {
            Input::Heartbeat => next.budget.heartbeats -= 1,
            Input::Propose => next.budget.proposals -= 1,
            Input::Change => next.budget.changes -= 1,
            Input::Transfer(_) => next.budget.transfers -= 1,
            Input::Crash => next.budget.crashes -= 1,
            Input::Patience => next.budget.patience -= 1,
            Input::Timeout if leads(&self.tables.facts[world.sites[action.node as usize] as usize]) => {
                next.budget.patience -= 1;
            }
            Input::Timeout => next.budget.timeouts -= 1,
            Input::Deliver(_) | Input::Persist => {}
        }
        self.apply(&mut next, action)?;
        if self.bounds.fast_disks {
            let persist = Action { input: Input::Persist, ..action };
            while self.tables.facts[next.sites[action.node as usize] as usize].is_writing {
                self.apply(&mut next, persist)?;
            }
        }
        let same = (next.sites, next.inboxes, next.truth) == (world.sites, world.inboxes, world.truth);
        Ok((!same).then_some(next))
    }

    fn apply(&mut self, world: &mut World, action: Action) -> Result<(), Broken> {
        let at = action.node as usize;
        let before = world.sites[at];
        let outcome = self.tables.outcome(before, action.input, &self.bounds.change);
        let Outcome { site, sent } = outcome.map_err(Broken)?;
        world.sites[at] = site;
        if site == before && sent.is_empty() {
            return Ok(());
        }
        let tables = &mut self.tables;
        let nodes = (self.bounds.voters + self.bounds.blank) as usize;
        let changed = tables.observe(world, at, before, &sent, action.input == Input::Crash, nodes)?;
        if let Some(truth) = changed {
            world.truth = tables.truth(&truth);
        }
        // What was sent reaches the inboxes; what nobody can hear any more leaves the own one.
        for to in 0..nodes {
            let added: Vec<u32> = sent
                .iter()
                .copied()
                .filter(|message| tables.messages[*message as usize].to.0 == to as u64 + 1)
                .collect();
            if !added.is_empty() || to == at {
                world.inboxes[to] = tables.deliver(world.inboxes[to], added, world.sites[to]);
            }
        }
        Ok(())
    }

    /// The world, for people.
    pub fn show(&self, world: &World) -> String {
        let mut text = String::new();
        for at in 0..self.nodes() {
            let facts = &self.tables.facts[world.sites[at] as usize];
            let terms: Vec<String> = facts.log.iter().map(|(term, _)| term.to_string()).collect();
            text += &format!(
                "  {}: {:?} in term {}, log of terms [{}], {} durable, commit {}\n",
                at + 1,
                facts.role,
                facts.term,
                terms.join(" "),
                facts.durable.len(),
                facts.commit
            );
        }
        text
    }

    /// An action, for people.
    pub fn describe(&self, action: Action) -> String {
        match action.input {
            Input::Deliver(message) => {
                let message = &self.tables.messages[message as usize];
                format!("{} -> {}: {:?} (term {})", message.from, message.to, message.body, message.term)
            }
            input => format!("{}: {input:?}", action.node + 1),
        }
    }

    /// How many different sites, messages, sets of messages and truths there were.
    pub fn sizes(&self) -> [usize; 4] {
        let tables = &self.tables;
        [tables.sites.len(), tables.messages.len(), tables.sets.len(), tables.truths.len()]
    }
}

/// Keeps one of each; gives its number.
fn number_of<T, K: Hash + Eq>(
    numbers: &mut Hashed<K, u32>,
    table: &mut Vec<T>,
    key: K,
    value: impl FnOnce() -> T,
) -> u32 {
    *numbers.entry(key).or_insert_with(|| {
        table.push(value());
        table.len() as u32 - 1
    })
}

impl Tables {
    fn site(&mut self, site: Site) -> u32 {
        let fingerprint = site.fingerprint(&mut self.buffer);
        let facts = &mut self.facts;
        number_of(&mut self.site_numbers, &mut self.sites, fingerprint, || {
            facts.push(site.facts());
            site
        })
    }

    fn message(&mut self, message: Message) -> u32 {
        number_of(&mut self.message_numbers, &mut self.messages, format!("{message:?}"), || message)
    }

    /// The set of these, which must be in order.
    fn set(&mut self, messages: Vec<u32>) -> u32 {
        let key: Box<[u32]> = messages.into();
        number_of(&mut self.set_numbers, &mut self.sets, key.clone(), || key)
    }

    fn truth(&mut self, truth: &Truth) -> u32 {
        number_of(&mut self.truth_numbers, &mut self.truths, truth.clone(), || truth.clone())
    }

    fn outcome(&mut self, site: u32, input: Input, change: &[Change]) -> Result<Outcome, String> {
        if let Some(outcome) = self.outcomes.get(&(site, input)) {
            return outcome.clone();
        }
        let mut next = self.sites[site as usize].clone();
        let message = match input {
            Input::Deliver(message) => Some(&self.messages[message as usize]),
            _ => None,
        };
        // The core and the disk assert what must hold of them.
        let result = catch_unwind(AssertUnwindSafe(|| {
            let sent = next.input(input, message, change);
            let _ = next.facts();
            (next, sent)
        }));
        let outcome = match result {
            Ok((next, sent)) => {
                let mut sent: Vec<u32> = sent.into_iter().map(|message| self.message(message)).collect();
                sent.sort_unstable();
                sent.dedup();
                Ok(Outcome { site: self.site(next), sent: sent.into() })
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Err(format!("assertion of the core: {}", text.unwrap_or_default()))
            }
        };
        self.outcomes.insert((site, input), outcome.clone());
        outcome
    }

    /// Checks every property of a step; gives the new truth if there is one.
    fn observe(
        &mut self,
        world: &World,
        at: usize,
        before: u32,
        sent: &[u32],
        crashed: bool,
        nodes: usize,
    ) -> Result<Option<Truth>, Broken> {
        let after = world.sites[at];
        let all: Vec<&Facts> = world.sites[..nodes].iter().map(|site| &self.facts[*site as usize]).collect();
        let sent: Vec<&Message> = sent.iter().map(|message| &self.messages[*message as usize]).collect();
        let truth = &self.truths[world.truth as usize];
        let mut new = truth.clone();
        let id = NodeId(at as u64 + 1);
        let step = Step { id, before: &self.facts[before as usize], after: all[at], crashed };
        new.observe(step, &all, &sent).map_err(Broken)?;
        if after != before {
            for other in 0..nodes {
                let site = world.sites[other];
                let pair = (site.min(after), site.max(after));
                if other != at && !self.matching.contains(&pair) {
                    check_log_matching(all[other], all[at]).map_err(Broken)?;
                    self.matching.insert(pair);
                }
            }
        }
        Ok((new != *truth).then_some(new))
    }

    /// Adds messages to a receiver's set, without those that it cannot hear any more.
    fn deliver(&mut self, set: u32, added: Vec<u32>, receiver: u32) -> u32 {
        let left = self.facts[receiver as usize].hard_state.term;
        let key = (set, added.into_boxed_slice(), left.0);
        if let Some(&set) = self.deliveries.get(&key) {
            return set;
        }
        let mut messages: Vec<u32> = self.sets[set as usize].to_vec();
        messages.extend_from_slice(&key.1);
        messages.sort_unstable();
        messages.dedup();
        messages.retain(|message| {
            let message = &self.messages[*message as usize];
            match message.body {
                // A question about a term that the asked has reached gets no yes.
                Body::PreVote { .. } => message.term > left,
                // Answered even when they are old.
                Body::Vote { .. } | Body::Append { .. } | Body::Heartbeat { .. } => true,
                // A yes to a pre-vote is of the term after the asker's.
                Body::PreVoteReply { granted: true } => message.term > left,
                _ => message.term >= left,
            }
        });
        let number = self.set(messages);
        self.deliveries.insert(key, number);
        number
    }
}
