//! Clients that put all operations to a cluster, on a few keys, and record what they asked and what they were told.
//!
//! Four kinds, side by side: plain HTTP that never sends anything twice; HTTP with idempotency keys, sent again to any node
//! until the outcome is known; the client crate with sessions; the client crate with idempotency keys. Where nothing tells a
//! repeated request from another, only puts are made: a put of unknown outcome is known by its value if it is ever seen.
//! Beside them some compete for a lock (`locks`), and some watch ([`watchers`]).

mod crate_client;
mod http_client;
mod locks;
mod txn;
pub mod watchers;

use crate::failure::{Context, Outcome};
use crate::random::Random;
use balsa_check::locks::{Fenced, Held};
use balsa_check::{Condition, Kind, Operation, Outcome as Known, Txn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

pub use http_client::read_at;
use locks::LockClient;
use watchers::Watchers;

/// Clients that compete for a lock, beside the others, and watchers.
const LOCKERS: usize = 4;
const WATCHERS: usize = 3;

/// Keys that all clients share. Few, so that they meet; more than one, so that a clear is more than a delete.
const KEYS: usize = 6;
/// One value in so many has so many bytes more, so that stores flush and logs are released.
const LARGE_EVERY: u64 = 40;
const LARGE_BYTES: usize = 8_000;
/// A client gives up on an operation after this time.
const DEADLINE: Duration = Duration::from_secs(10);

/// How many clients there are, and how much they ask.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Clients; a multiple of four.
    pub clients: usize,
    /// Operations a second that they begin, all together, while none is kept waiting.
    pub per_second: u32,
}

/// Clients at work until they are told to finish.
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    working: JoinSet<Outcome<Vec<Operation>>>,
    lockers: JoinSet<Outcome<locks::Told>>,
    watchers: Watchers,
}

/// What clients were told.
#[derive(Debug)]
pub struct Recorded {
    /// All operations.
    pub operations: Vec<Operation>,
    /// Who held the lock.
    pub held: Vec<Held>,
    /// What its holders wrote.
    pub fenced: Vec<Fenced>,
    /// They are not done until they have heard of all that was done.
    pub watchers: Watchers,
}

#[derive(Debug)]
struct Shared {
    /// Where nodes serve clients, those included that may come later.
    addresses: Vec<String>,
    began: Instant,
    stop: AtomicBool,
    /// One of them found what must not be.
    failed: AtomicBool,
    operations: AtomicU64,
    acknowledged: AtomicU64,
    /// When a write was acknowledged last, and the longest time without one since a mark was set.
    last_ns: AtomicU64,
    gap_ns: AtomicU64,
}

/// What an operation came to.
#[derive(Debug)]
struct Told {
    outcome: Known,
    /// With what was read or deleted.
    kind: Kind,
    revision: Option<u64>,
    key_revision: Option<u64>,
}

impl Told {
    /// It never took place.
    fn nothing(kind: Kind) -> Told {
        Told { outcome: Known::NotApplied, kind, revision: None, key_revision: None }
    }

    /// It may have taken place; of a read nobody need know.
    fn doubt(kind: Kind) -> Told {
        let outcome = match kind {
            Kind::Get { .. } => Known::NotApplied,
            _ => Known::Unknown,
        };
        Told { outcome, ..Told::nothing(kind) }
    }

    fn condition_failed(kind: Kind, current_revision: Option<u64>) -> Told {
        Told { outcome: Known::ConditionFailed, key_revision: current_revision, ..Told::nothing(kind) }
    }

    fn wrote(kind: Kind, revision: u64) -> Told {
        Told { outcome: Known::Ok, revision: Some(revision), ..Told::nothing(kind) }
    }

    /// `item`: value and revision.
    fn read(kind: Kind, item: Option<(String, u64)>) -> Told {
        let Kind::Get { key, .. } = kind else { return Told::nothing(kind) };
        let (value, revision) = item.unzip();
        let kind = Kind::Get { key, value: value.map(Into::into) };
        Told { outcome: Known::Ok, kind, revision: None, key_revision: Some(revision.unwrap_or(0)) }
    }
}

enum Way {
    Http(http_client::HttpClient),
    Crate(crate_client::CrateClient),
}

impl Clients {
    /// Sets them to work on nodes at these addresses.
    pub fn start(addresses: Vec<String>, rate: Rate, random: &mut Random) -> Outcome<Clients> {
        let shared = Arc::new(Shared {
            addresses,
            began: Instant::now(),
            stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            operations: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            last_ns: AtomicU64::new(0),
            gap_ns: AtomicU64::new(0),
        });
        let interval = Duration::from_secs(rate.clients as u64) / rate.per_second.max(1);
        let mut ways = Vec::new();
        for _ in 0..rate.clients / 4 {
            let addresses = &shared.addresses;
            ways.push(Way::Http(http_client::HttpClient::new(addresses, false, random.fork())));
            ways.push(Way::Http(http_client::HttpClient::new(addresses, true, random.fork())));
            ways.push(Way::Crate(crate_client::CrateClient::with_session(addresses)?));
            ways.push(Way::Crate(crate_client::CrateClient::with_keys(addresses)?));
        }
        let mut working = JoinSet::new();
        for (number, way) in ways.into_iter().enumerate() {
            let client = Client {
                number: number as u64,
                way,
                random: random.fork(),
                seen: [0; KEYS],
                asked: 0,
                shared: shared.clone(),
            };
            working.spawn(client.work(interval));
        }
        let mut lockers = JoinSet::new();
        for number in 0..LOCKERS {
            let http = http_client::HttpClient::new(&shared.addresses, true, random.fork());
            let number = (rate.clients + number) as u64;
            let locker = LockClient { number, http, random: random.fork(), shared: shared.clone() };
            lockers.spawn(locker.work());
        }
        let watchers = Watchers::start(WATCHERS, &shared, random);
        Ok(Clients { shared, working, lockers, watchers })
    }

    /// Operations so far whose outcome is known.
    pub fn operations(&self) -> u64 {
        self.shared.operations.load(Ordering::Relaxed)
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether one of them found what must not be; [`Clients::finish`] tells.
    pub fn failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Sets the mark from which on [`Clients::gap`] counts.
    pub fn mark(&self) {
        self.shared.last_ns.store(self.shared.now_ns(), Ordering::Relaxed);
        self.shared.gap_ns.store(0, Ordering::Relaxed);
    }

    /// The longest time without an acknowledged write since the mark.
    pub fn gap(&self) -> Duration {
        let open = self.shared.now_ns().saturating_sub(self.shared.last_ns.load(Ordering::Relaxed));
        Duration::from_nanos(open.max(self.shared.gap_ns.load(Ordering::Relaxed)))
    }

    /// What the time in histories counts from.
    pub fn began(&self) -> Instant {
        self.shared.began
    }

    /// Begins no more operations, waits for those under way; gives all.
    pub async fn finish(mut self) -> Outcome<Recorded> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Recorded {
            operations: Vec::new(),
            held: Vec::new(),
            fenced: Vec::new(),
            watchers: self.watchers,
        };
        while let Some(one) = self.working.join_next().await {
            all.operations.extend(one.context("gather what clients were told")??);
        }
        while let Some(one) = self.lockers.join_next().await {
            let locks::Told { held, fenced, operations } = one.context("gather what clients were told")??;
            all.held.extend(held);
            all.fenced.extend(fenced);
            all.operations.extend(operations);
        }
        Ok(all)
    }
}

impl Shared {
    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn count(&self, told: &Told) {
        if matches!(told.outcome, Known::Ok | Known::ConditionFailed) {
            self.operations.fetch_add(1, Ordering::Relaxed);
        }
        if told.outcome == Known::Ok && !matches!(told.kind, Kind::Get { .. }) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            let now = self.now_ns();
            let last = self.last_ns.swap(now, Ordering::Relaxed);
            self.gap_ns.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
        }
    }
}

/// One client; it has one operation under way at a time.
struct Client {
    number: u64,
    way: Way,
    random: Random,
    /// The revision of each key that it saw last; 0: absent.
    seen: [u64; KEYS],
    asked: u64,
    shared: Arc<Shared>,
}

impl Client {
    async fn work(mut self, interval: Duration) -> Outcome<Vec<Operation>> {
        let mut operations = Vec::new();
        let mut next = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            next = (next + interval).max(Instant::now());
            tokio::time::sleep_until(next.into()).await;
            match self.turn().await {
                Ok(operation) => operations.push(operation),
                Err(failure) => {
                    self.shared.failed.store(true, Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
        Ok(operations)
    }

    async fn turn(&mut self) -> Outcome<Operation> {
        let at = self.random.below(KEYS as u64) as usize;
        let (kind, condition) = self.draw(at);
        let call_ns = self.shared.now_ns();
        let told = match &mut self.way {
            Way::Http(http) => http.ask(kind, condition.as_ref()).await?,
            Way::Crate(client) => client.ask(kind, condition.as_ref()).await?,
        };
        let return_ns = self.shared.now_ns();
        self.shared.count(&told);
        if let Some(revision) = told.key_revision.or(told.revision) {
            self.seen[at] = revision;
        }
        Ok(Operation {
            client: self.number,
            kind: told.kind,
            condition,
            call_ns,
            return_ns: Some(return_ns),
            outcome: told.outcome,
            revision: told.revision,
            key_revision: told.key_revision,
        })
    }

    fn draw(&mut self, at: usize) -> (Kind, Option<Condition>) {
        let key = key(at);
        let puts_only = matches!(&self.way, Way::Http(http) if !http.sends_again());
        match self.random.below(1_000) {
            0..350 => (Kind::Get { key: key.into(), value: None }, None),
            350..440 if !puts_only => {
                let condition = if self.random.chance(300) { self.condition(at) } else { None };
                let condition = condition.filter(|condition| *condition != Condition::Absent);
                (Kind::Delete { key: key.into(), deleted: None }, condition)
            }
            440..445 if !puts_only => (Kind::Clear { deleted: None }, None),
            445..525 if !puts_only => (Kind::Txn(self.txn(at)), None),
            drawn => {
                let condition = if drawn < 700 { self.condition(at) } else { None };
                (Kind::Put { key: key.into(), value: self.value().into() }, condition)
            }
        }
    }

    fn txn(&mut self, at: usize) -> Txn {
        let keys = [0, 1, 2].map(|next| key((at + next) % KEYS).into());
        let condition = if self.random.chance(700) { self.condition(at) } else { None };
        let mut random = self.random.fork();
        txn::draw(keys, condition, &mut random, || self.value().into())
    }

    /// A condition that holds unless somebody was faster, and one that mostly does not.
    fn condition(&mut self, at: usize) -> Option<Condition> {
        Some(match (self.random.below(4), self.seen[at]) {
            (0, _) => Condition::Exists,
            (1, _) | (_, 0) => Condition::Absent,
            (_, revision) => Condition::Revision(revision),
        })
    }

    /// JSON that nobody else ever writes.
    fn value(&mut self) -> String {
        self.asked += 1;
        let filler = if self.random.below(LARGE_EVERY) == 0 { LARGE_BYTES } else { 0 };
        format!("\"{}-{}{}\"", self.number, self.asked, "x".repeat(filler))
    }
}

/// The names of the keys.
pub fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(key).chain([locks::FENCED.to_string()])
}

fn key(at: usize) -> String {
    format!("{}{at}", watchers::PREFIX)
}
