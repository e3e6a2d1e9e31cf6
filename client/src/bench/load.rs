//! A closed loop: each connection sends its next request when it has its answer.
//!
//! All connections run on one thread, so that the generator takes as little as possible from the servers that it shares
//! a machine with.

use super::connection::{Connection, NoAnswer};
use super::cpu;
use super::requests::{Kind, Op, Prepared, prepare};
use super::{Failure, Load, Plan, Target};
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the histogram tells apart: three digits, from a microsecond to a minute.
const LATENCY_US_MAX: u64 = 60_000_000;
const DIGITS: u8 = 3;
/// How long one answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection that failed waits before it is made anew.
const PAUSE: Duration = Duration::from_millis(20);

/// What one load gave.
#[derive(Debug)]
pub(super) struct Measured {
    /// Latencies of the answers of the measured time, in microseconds.
    pub(super) latencies: Histogram<u64>,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) seconds: f64,
    /// Processor time of the servers, where their processes are known.
    pub(super) server_cpu: Option<Duration>,
    pub(super) generator_cpu: Duration,
}

/// What all connections write down; on one thread, so the lock is never waited for.
struct Tally {
    from: Instant,
    until: Instant,
    latencies: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

/// Puts `load` on `target`, whose endpoint number `leader` leads: as clients that know their leader do, the first connection
/// goes there.
pub(super) async fn run(
    plan: &Plan,
    target: &Target,
    load: Load,
    leader: usize,
) -> Result<Measured, Failure> {
    let latencies = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS);
    let latencies = latencies.map_err(|error| Failure(error.to_string()))?;
    let requests = requests_to_each(plan, target, load.op)?;
    let from = Instant::now() + plan.warmup;
    let until = from + plan.duration;
    let tally = Arc::new(Mutex::new(Tally { from, until, latencies, errors: 0, first_error: None }));
    let mut loops = Vec::new();
    for (number, at) in spread(load.connections, target.endpoints.len(), leader).enumerate() {
        let (address, requests) = (target.endpoints[at].clone(), requests[at].clone());
        let keys = Keys::new(number as u64, requests.len());
        loops.push(tokio::spawn(close_loop(address, requests, keys, tally.clone())));
    }
    tokio::time::sleep_until(from.into()).await;
    let (began, servers, own) =
        (Instant::now(), cpu::used_by_all(&target.pids)?, cpu::used(std::process::id())?);
    tokio::time::sleep_until(until.into()).await;
    let seconds = began.elapsed().as_secs_f64();
    let (servers, own) = (cpu::used_by_all(&target.pids)? - servers, cpu::used(std::process::id())? - own);
    for ended in loops {
        ended.await.map_err(|error| Failure(format!("a connection's task failed: {error}")))?;
    }
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Measured {
        latencies: tally.latencies.clone(),
        errors: tally.errors,
        first_error: tally.first_error.take(),
        seconds,
        server_cpu: (!target.pids.is_empty()).then_some(servers),
        generator_cpu: own,
    })
}

/// Writes every key once, so that gets find them and puts overwrite.
pub(super) async fn fill(plan: &Plan, target: &Target) -> Result<(), Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let requests = requests_to_each(plan, target, Op::Put)?;
    let mut loops = Vec::new();
    for at in spread(FILLING_CONNECTIONS, target.endpoints.len(), 0) {
        let address = target.endpoints[at].clone();
        loops.push(tokio::spawn(fill_some(address, requests[at].clone(), next.clone())));
    }
    for ended in loops {
        ended.await.map_err(|error| Failure(format!("a connection's task failed: {error}")))??;
    }
    Ok(())
}

/// Connections that fill.
const FILLING_CONNECTIONS: usize = 32;

async fn fill_some(
    address: String,
    requests: Arc<[Prepared]>,
    next: Arc<AtomicUsize>,
) -> Result<(), Failure> {
    let failed = |why: String| Failure(format!("cannot fill {address}: {why}"));
    let mut connection = Connection::open(&address).await.map_err(|error| failed(error.to_string()))?;
    loop {
        let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(()) };
        ask(&mut connection, request).await.map_err(|why| failed(why.0))?;
    }
}

/// Which endpoint each connection goes to: in turn from `first` on, so that none has more than one more than another.
fn spread(connections: usize, endpoints: usize, first: usize) -> impl Iterator<Item = usize> {
    (0..connections).map(move |connection| (first + connection) % endpoints)
}

/// For each endpoint one request a key, which all connections to it share: made once, before the clock runs.
fn requests_to_each(plan: &Plan, target: &Target, op: Op) -> Result<Vec<Arc<[Prepared]>>, Failure> {
    target.endpoints.iter().map(|address| requests(plan, target.kind, op, address)).collect()
}

/// One request a key.
fn requests(plan: &Plan, kind: Kind, op: Op, host: &str) -> Result<Arc<[Prepared]>, Failure> {
    let prepared = (0..plan.keys).map(|key| prepare(kind, op, host, key, plan.value_bytes));
    prepared.collect::<Result<_, _>>().map_err(|error| Failure(format!("`{host}` cannot be asked: {error}")))
}

/// An answer that was refused or is none, for a person; and whether the connection is of no use any more.
struct Refused(String, bool);

async fn ask(connection: &mut Connection, request: &Prepared) -> Result<(), Refused> {
    let answer = match tokio::time::timeout(PATIENCE, connection.exchange(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(Refused(error.to_string(), true)),
        Err(_) => return Err(Refused(format!("no answer within {PATIENCE:?}"), true)),
    };
    if answer.status == 200 && answer.body.len() >= request.answer_bytes_min {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]).into_owned();
    Err(Refused(format!("{} {} was answered {} {text}", request.method, request.uri, answer.status), false))
}

async fn close_loop(address: String, requests: Arc<[Prepared]>, mut keys: Keys, tally: Arc<Mutex<Tally>>) {
    let mut standing: Option<Connection> = None;
    let mut began = Instant::now();
    loop {
        let outcome = match &mut standing {
            Some(connection) => ask(connection, &requests[keys.next()]).await,
            None => match Connection::open(&address).await {
                Ok(connection) => {
                    standing = Some(connection);
                    began = Instant::now();
                    continue;
                }
                Err(error) => Err(Refused(NoAnswer::to_string(&error), true)),
            },
        };
        let ended = Instant::now();
        let broken = matches!(outcome, Err(Refused(_, true)));
        if !tally.lock().unwrap_or_else(PoisonError::into_inner).note(began, ended, outcome) {
            return;
        }
        began = ended;
        if broken {
            standing = None;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Tally {
    /// Writes down what was done from `began` to `ended`; says whether to go on. An answer counts where it came in the
    /// measured time, an error whenever it came.
    fn note(&mut self, began: Instant, ended: Instant, outcome: Result<(), Refused>) -> bool {
        match outcome {
            Ok(()) if ended >= self.from && ended < self.until => {
                let us = u64::try_from((ended - began).as_micros()).unwrap_or(u64::MAX);
                self.latencies.saturating_record(us);
            }
            Ok(()) => {}
            Err(Refused(why, _)) => {
                self.errors += 1;
                self.first_error.get_or_insert(why);
            }
        }
        ended < self.until
    }
}

/// Chooses keys, each as often as another (xorshift64, Marsaglia 2003).
struct Keys {
    state: u64,
    count: usize,
}

impl Keys {
    fn new(seed: u64, count: usize) -> Keys {
        Keys { state: (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15), count }
    }

    fn next(&mut self) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % self.count as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_evenly() {
        for (connections, endpoints, first, expected) in [
            (1, 3, 0, vec![1, 0, 0]),
            (1, 3, 2, vec![0, 0, 1]),
            (64, 3, 1, vec![21, 22, 21]),
            (6, 3, 0, vec![2, 2, 2]),
            (2, 1, 0, vec![2]),
        ] {
            let mut each = vec![0; endpoints];
            spread(connections, endpoints, first).for_each(|at| each[at] += 1);
            assert_eq!(each, expected);
        }
    }

    #[test]
    fn keys_are_chosen_evenly_and_not_alike() {
        let mut each = [0_u32; 10];
        let mut keys = Keys::new(0, 10);
        (0..10_000).for_each(|_| each[keys.next()] += 1);
        assert!(each.iter().all(|times| (800..1_200).contains(times)), "{each:?}");
        let first: Vec<usize> = (0..8).map(|seed| Keys::new(seed, 1_000_000).next()).collect();
        assert!(first.windows(2).all(|pair| pair[0] != pair[1]), "{first:?}");
    }

    #[test]
    fn only_answers_of_the_measured_time_count() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let latencies = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).unwrap();
        let mut tally = Tally { from: at(100), until: at(200), latencies, errors: 0, first_error: None };
        assert!(tally.note(at(0), at(99), Ok(())));
        assert!(tally.note(at(99), at(110), Ok(())));
        assert!(tally.note(at(110), at(111), Err(Refused("first".to_owned(), false))));
        assert!(tally.note(at(111), at(112), Err(Refused("second".to_owned(), false))));
        assert!(!tally.note(at(199), at(200), Ok(())));
        assert_eq!((tally.latencies.len(), tally.latencies.max() / 1_000), (1, 11));
        assert_eq!((tally.errors, tally.first_error.as_deref()), (2, Some("first")));
    }
}
