//! Watches: how soon a change is heard, and what thousands of watchers cost.
//!
//! Each value holds its number and when its PUT was sent, so a watcher knows what it missed and how late it heard.

use super::connections::raise_file_limit;
use super::verdict::{Verdict, mib, miss, thousands};
use crate::cluster::Cluster;
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::http::{Ask, Connection};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// What the machine's best must be, from a PUT being sent to its event being received.
const ALONE_P50_MAX: Duration = Duration::from_millis(1);
const ALONE_P99_MAX: Duration = Duration::from_millis(4);
const CROWD_P99_MAX: Duration = Duration::from_millis(500);
/// The memory of a node with ten thousand watchers.
const MEMORY_MAX: u64 = 250 << 20;
/// How long a watcher may take to stand, and to hear the last change.
const PATIENCE: Duration = Duration::from_secs(30);
/// Watchers that are dialled side by side.
const DIALLED_AT_ONCE: usize = 64;
/// Sorts of lateness, in tenths of milliseconds; the last one is for all that is later.
const BUCKETS: usize = 100_000;

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Watchers of the large crowd; the small one has a tenth of them.
    pub watchers: usize,
    /// How long each part lasts.
    pub time: Duration,
    /// Whether the lone watcher's times are judged: they are hardly more than those of two disks, which differ from hour to
    /// hour.
    pub judges_alone: bool,
}

/// Runs the bar; gives its figures.
pub async fn run(options: &Options) -> Outcome<Verdict> {
    raise_file_limit(options.watchers as u64 + 2_000)?;
    let mut cluster = Cluster::start(3, &[]).await?;
    let leader = cluster.wait_for_leader(&cluster.running()).await?;
    let alone = crowd(&mut cluster, leader, 1, 100, options.time).await?;
    let small = crowd(&mut cluster, leader, options.watchers / 10, 50, options.time).await?;
    let large = crowd(&mut cluster, leader, options.watchers, 5, options.time).await?;
    let misses = [
        alone.late("a lone watcher", ALONE_P50_MAX, ALONE_P99_MAX).filter(|_| options.judges_alone),
        small.late("the small crowd", CROWD_P99_MAX, CROWD_P99_MAX),
        large.late("the large crowd", CROWD_P99_MAX, CROWD_P99_MAX),
        miss(large.memory <= MEMORY_MAX, || format!("the large crowd takes more than {}", mib(MEMORY_MAX))),
    ];
    Ok(Verdict::of(format!("alone {alone}; {small}; {large}"), misses))
}

/// What a crowd heard.
struct Heard {
    watchers: usize,
    events: u64,
    p50: Duration,
    p99: Duration,
    memory: u64,
}

impl Heard {
    fn late(&self, who: &str, p50_max: Duration, p99_max: Duration) -> Option<String> {
        miss(self.p50 <= p50_max && self.p99 <= p99_max, || {
            format!("{who} hears later than p50 {p50_max:?}, p99 {p99_max:?}")
        })
    }
}

impl std::fmt::Display for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "{} watchers heard {} changes: p50 {:.2} ms, p99 {:.2} ms, {}",
            thousands(self.watchers as u64),
            thousands(self.events),
            ms(self.p50),
            ms(self.p99),
            mib(self.memory)
        )
    }
}

/// What all watchers share.
struct Crowd {
    epoch: Instant,
    prefix: String,
    changes: u64,
    lateness: Vec<AtomicU64>,
}

/// So many watchers of one prefix on one node, while it takes so many PUTs a second.
async fn crowd(
    cluster: &mut Cluster,
    node: usize,
    watchers: usize,
    per_second: u32,
    time: Duration,
) -> Outcome<Heard> {
    let address = cluster.address(node).to_string();
    let changes = time.as_secs() * u64::from(per_second);
    let shared = Arc::new(Crowd {
        epoch: Instant::now(),
        prefix: format!("watch-{watchers}/"),
        changes,
        lateness: (0..=BUCKETS).map(|_| AtomicU64::new(0)).collect(),
    });
    println!(
        "{} watchers, {per_second} changes a second for {} s",
        thousands(watchers as u64),
        time.as_secs()
    );
    let mut standing = Vec::with_capacity(watchers);
    let mut dialling = JoinSet::new();
    for started in 0..watchers {
        if started >= DIALLED_AT_ONCE {
            standing.push(joined(dialling.join_next().await)?);
        }
        dialling.spawn(Watcher::begin(address.clone(), shared.prefix.clone()));
    }
    while let Some(begun) = dialling.join_next().await {
        standing.push(joined(Some(begun))?);
    }
    let mut listening = JoinSet::new();
    for watcher in standing {
        listening.spawn(watcher.listen(Arc::clone(&shared)));
    }
    let mut connection = Connection::new(&address);
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut memory = 0;
    for number in 0..changes {
        ticks.tick().await;
        let path = format!("/v1/kv/{}{}", shared.prefix, number % 100);
        let body = format!("{{\"value\":\"{number} {}\"}}", shared.epoch.elapsed().as_micros());
        let answer = connection.send(Ask::put(&path, &body), PATIENCE).await;
        let answer =
            answer.map_err(|error| Failure(format!("PUT number {number} had no answer: {error:?}")))?;
        ensure(answer.is_success(), || format!("PUT number {number} was answered {}", answer.text()))?;
        if number % u64::from(per_second) == 0 {
            memory = memory.max(cluster.process(node).resident_bytes()?);
        }
    }
    while let Some(heard) = listening.join_next().await {
        heard.context("gather watchers")??;
    }
    memory = memory.max(cluster.process(node).resident_bytes()?);
    let counts: Vec<u64> = shared.lateness.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let events: u64 = counts.iter().sum();
    let quantile = |hundredths: u64| {
        let rank = (events * hundredths).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        Duration::from_micros(100 * (bucket.unwrap_or(BUCKETS) as u64 + 1))
    };
    let heard = Heard { watchers, events, p50: quantile(50), p99: quantile(99), memory };
    println!("  {heard}");
    Ok(heard)
}

fn joined(begun: Option<Result<Outcome<Watcher>, tokio::task::JoinError>>) -> Outcome<Watcher> {
    match begun {
        Some(begun) => begun.context("gather watchers")?,
        None => Err(Failure("a watcher is lost".to_string())),
    }
}

/// One watcher, with what it has read and not yet understood.
struct Watcher {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Watcher {
    /// Asks, and waits for the first event: progress.
    async fn begin(address: String, prefix: String) -> Outcome<Watcher> {
        let stream = TcpStream::connect(&address).await.context("connect a watcher")?;
        let mut watcher = Watcher { stream, unread: Vec::new() };
        let ask = format!("GET /v1/watch?prefix={prefix} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        watcher.stream.write_all(ask.as_bytes()).await.context("ask for a watch")?;
        let standing = async {
            while !String::from_utf8_lossy(&watcher.unread).contains("event: progress") {
                watcher.read().await?;
            }
            Outcome::Ok(())
        };
        timeout(PATIENCE, standing).await.context("wait for a watch to stand")??;
        let head = String::from_utf8_lossy(&watcher.unread);
        ensure(head.starts_with("HTTP/1.1 200"), || format!("a watch was answered {head}"))?;
        watcher.unread.clear();
        Ok(watcher)
    }

    /// Hears every change once and in order.
    async fn listen(mut self, crowd: Arc<Crowd>) -> Outcome<()> {
        let mut next = 0;
        while next < crowd.changes {
            // The first change may be long in coming; between two there is less than that.
            timeout(2 * PATIENCE, self.read()).await.context("wait for the next change")??;
            let now = crowd.epoch.elapsed();
            while let Some((number, sent)) = self.take()? {
                ensure(number == next, || format!("a watcher heard change {number}, the next was {next}"))?;
                next += 1;
                let late = now.saturating_sub(Duration::from_micros(sent)).as_micros() as usize / 100;
                crowd.lateness[late.min(BUCKETS)].fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Outcome<()> {
        let mut piece = [0; 4_096];
        let length = self.stream.read(&mut piece).await.context("read a watch")?;
        ensure(length > 0, || format!("a watch ended: {}", String::from_utf8_lossy(&self.unread)))?;
        self.unread.extend_from_slice(&piece[..length]);
        Ok(())
    }

    /// The next change that was read whole: its number, and when it was sent.
    fn take(&mut self) -> Outcome<Option<(u64, u64)>> {
        const BEFORE: &[u8] = b"\"value\":\"";
        let Some(at) = find(&self.unread, BEFORE) else {
            // What was read whole and is no change is passed over; the start of one may be in the rest.
            let keep = self.unread.len().min(BEFORE.len() - 1);
            self.unread.drain(..self.unread.len() - keep);
            return Ok(None);
        };
        let from = at + BEFORE.len();
        let Some(length) = find(&self.unread[from..], b"\"") else {
            self.unread.drain(..at);
            return Ok(None);
        };
        let value = String::from_utf8_lossy(&self.unread[from..from + length]).into_owned();
        self.unread.drain(..from + length + 1);
        let numbers =
            value.split_once(' ').and_then(|(number, sent)| Some((number.parse().ok()?, sent.parse().ok()?)));
        numbers.map(Some).ok_or_else(|| Failure(format!("a watcher heard the value `{value}`")))
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
