//! Connections that say nothing, or not all: half requests, idle ones by the thousand, more than a node takes.

use super::verdict::{mib, thousands};
use crate::cluster::{Cluster, PATIENCE, eventually};
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::http::{Ask, Connection};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long a node may take to end a request that does not end: its longest timeout (10 s for a head) and half as much
/// again, and some.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// What a connection may cost a node, in bytes: one that never said anything, and one that asked once and keeps its
/// buffers; and what a node may grow beside.
const SILENT_BYTES_MAX: u64 = 4 << 10;
const SPOKEN_BYTES_MAX: u64 = 32 << 10;
const BESIDE_BYTES_MAX: u64 = 16 << 20;
/// How often all connections are opened and closed again. The allocator keeps what it was given, in pieces and spread
/// over its arenas, so that the first rounds grow to about 25 KiB a connection; what leaks would cross the bound.
const IDLE_ROUNDS: usize = 6;
/// How much more the later rounds may take than the earlier ones, in hundredths: a leak of a third of what a connection
/// costs would show.
const GROWTH_MAX_PERCENT: u64 = 15;
/// A node with so many connections still answers a request within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(1);
/// Connections that are dialled side by side.
const DIALLED_AT_ONCE: usize = 64;

/// Lets this process, and those that it starts, hold so many files.
pub fn raise_file_limit(needed: u64) -> Outcome<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    ensure(limit.maximum.is_none_or(|maximum| maximum >= needed), || {
        format!(
            "{needed} open files are needed, but the system's hard limit is {:?}: raise it (ulimit -Hn)",
            limit.maximum
        )
    })?;
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context(format!("raise the limit of open files to {:?}", limit.maximum))
}

/// A request that does not end, and how it must be answered.
struct Half {
    name: &'static str,
    bytes: &'static [u8],
    /// The sender closes its side.
    closes: bool,
    says: &'static [&'static str],
}

const HALVES: [Half; 7] = [
    Half {
        name: "half a head, then silence",
        bytes: b"PUT /half HTTP/1.1\r\nhost: h\r\ncontent-le",
        closes: false,
        says: &["HTTP/1.1 408", "request_timeout", "head"],
    },
    Half {
        name: "one byte, then silence",
        bytes: b"P",
        closes: false,
        says: &["HTTP/1.1 408", "request_timeout"],
    },
    Half {
        name: "half a body, then silence",
        bytes: b"PUT /half HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\n{\"value\":",
        closes: false,
        says: &["HTTP/1.1 408", "request_timeout", "body", "not_applied"],
    },
    Half {
        name: "half a body, then the end",
        bytes: b"PUT /half HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\n{\"value\":",
        closes: true,
        says: &["HTTP/1.1 400", "incomplete_body", "not_applied"],
    },
    Half {
        name: "half a chunked body, then the end",
        bytes: b"PUT /half HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"val",
        closes: true,
        says: &["HTTP/1.1 400", "incomplete_body", "not_applied"],
    },
    Half {
        name: "not HTTP",
        bytes: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        closes: false,
        says: &["HTTP/1.1 400"],
    },
    Half {
        name: "a head without a host's end",
        bytes: b"GET / HTTP/9.9\r\n\r\n",
        closes: false,
        says: &["HTTP/1.1 "],
    },
];

/// Sends requests that do not end, all at once; gives a line about each.
pub async fn halves(address: &str) -> Outcome<Vec<String>> {
    let mut asking = JoinSet::new();
    for (at, half) in HALVES.iter().enumerate() {
        let address = address.to_string();
        asking.spawn(async move {
            let started = Instant::now();
            let answer =
                exchange(&address, half.bytes, half.closes).await.context(format!("send `{}`", half.name))?;
            for word in half.says {
                ensure(answer.contains(word), || {
                    format!("`{}` must be answered with `{word}`: {answer}", half.name)
                })?;
            }
            let status = answer.lines().next().unwrap_or_default();
            Ok((at, format!("{}: {status}, after {:.1} s", half.name, started.elapsed().as_secs_f64())))
        });
    }
    let mut lines = Vec::new();
    while let Some(line) = asking.join_next().await {
        lines.push(line.context("gather answers")??);
    }
    lines.push((HALVES.len(), large_head(address).await?));
    lines.sort();
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

/// A head that never ends and comes fast.
async fn large_head(address: &str) -> Outcome<String> {
    let mut head = b"GET /half HTTP/1.1\r\nhost: h\r\n".to_vec();
    while head.len() < 1 << 20 {
        head.extend_from_slice(b"x-filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n");
    }
    let mut stream = TcpStream::connect(address).await.context("connect")?;
    // The node may close before it has read all of it; its answer, or the end, comes all the same.
    let _ = stream.write_all(&head).await;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(END_PATIENCE, stream.read_to_end(&mut answer)).await;
    ensure(ended.is_ok(), || "a head of 1 MiB keeps a connection open".to_string())?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.lines().next().unwrap_or("the connection ended");
    ensure(text.is_empty() || status.starts_with("HTTP/1.1 431"), || {
        format!("a head of 1 MiB was answered {text}")
    })?;
    Ok(format!("a head of 1 MiB: {status}"))
}

async fn exchange(address: &str, bytes: &[u8], closes: bool) -> Outcome<String> {
    let mut stream = TcpStream::connect(address).await.context("connect")?;
    stream.write_all(bytes).await.context("write")?;
    if closes {
        stream.shutdown().await.context("close")?;
    }
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(END_PATIENCE, stream.read_to_end(&mut answer)).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    ensure(ended.is_ok(), || {
        format!("after {END_PATIENCE:?} the connection is still open; it said: {text}")
    })?;
    Ok(text)
}

/// Holds `count` idle connections to node 0, again and again; gives a figure.
pub async fn idle(cluster: &mut Cluster, count: usize) -> Outcome<String> {
    let address = cluster.address(0).to_string();
    let before = cluster.process(0).resident_bytes()?;
    println!("{} idle connections, on a node of {}:", thousands(count as u64), mib(before));
    let bound = |each: u64| before + count as u64 * each + BESIDE_BYTES_MAX;
    let mut peaks = Vec::new();
    for round in 1..=IDLE_ROUNDS {
        let started = Instant::now();
        let mut connections = open(&address, count).await?;
        let opened = started.elapsed();
        let mut slowest = serves(cluster).await?;
        let silent = cluster.process(0).resident_bytes()?;
        // Each is a connection that the node holds: it answers, and is idle again.
        ask_each(&mut connections).await?;
        slowest = slowest.max(serves(cluster).await?);
        let spoken = cluster.process(0).resident_bytes()?;
        drop(connections);
        settles(cluster).await?;
        let after = cluster.process(0).resident_bytes()?;
        println!(
            "  {round}: open after {:.1} s with {}; each has asked once: {}; closed: {}; the slowest of others' requests {} ms",
            opened.as_secs_f64(),
            mib(silent),
            mib(spoken),
            mib(after),
            slowest.as_millis()
        );
        ensure(slowest < SERVES_WITHIN, || format!("beside idle connections, a request took {slowest:?}"))?;
        let silent_max = bound(if round == 1 { SILENT_BYTES_MAX } else { SPOKEN_BYTES_MAX });
        for (what, bytes, most) in [("silent", silent, silent_max), ("idle", spoken, bound(SPOKEN_BYTES_MAX))]
        {
            ensure(bytes <= most, || {
                format!("{count} {what} connections grew the node to {}, beyond {}", mib(bytes), mib(most))
            })?;
        }
        peaks.push(spoken);
    }
    stops_growing(&peaks)?;
    let last = peaks.iter().copied().max().unwrap_or_default();
    Ok(format!("{} idle connections held in {} and answered", thousands(count as u64), mib(last)))
}

/// What a node holds in later rounds must be what it held in earlier ones: the same connections, again and again.
fn stops_growing(peaks: &[u64]) -> Outcome<()> {
    let peak = |of: &[u64]| of.iter().copied().max().unwrap_or_default();
    let (early, late) = peaks.split_at(peaks.len() / 2);
    let (early, late) = (peak(early), peak(late));
    ensure(late <= early + early * GROWTH_MAX_PERCENT / 100, || {
        format!(
            "idle connections, opened again and again, grew the node from {} to {}",
            mib(early),
            mib(late)
        )
    })
}

async fn open(address: &str, count: usize) -> Outcome<Vec<TcpStream>> {
    let mut dialling = JoinSet::new();
    let mut open = Vec::with_capacity(count);
    for started in 0..count {
        if started >= DIALLED_AT_ONCE {
            open.extend(next_open(&mut dialling).await?);
        }
        let address = address.to_string();
        dialling.spawn(async move { TcpStream::connect(address).await });
    }
    while let Some(stream) = next_open(&mut dialling).await? {
        open.push(stream);
    }
    Ok(open)
}

async fn next_open(dialling: &mut JoinSet<std::io::Result<TcpStream>>) -> Outcome<Option<TcpStream>> {
    let Some(dialled) = dialling.join_next().await else { return Ok(None) };
    dialled.context("gather connections")?.context("open an idle connection").map(Some)
}

async fn ask_each(connections: &mut [TcpStream]) -> Outcome<()> {
    for (at, stream) in connections.iter_mut().enumerate() {
        let ask = async {
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n").await?;
            let mut answer = [0; 1_024];
            let length = stream.read(&mut answer).await?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer[..length]).into_owned())
        };
        let answer = tokio::time::timeout(PATIENCE, ask)
            .await
            .context(format!("have an answer on idle connection {at}"))?;
        let answer = answer.context(format!("ask on idle connection {at}"))?;
        ensure(answer.starts_with("HTTP/1.1 200"), || {
            format!("idle connection {at} was answered: {answer}")
        })?;
    }
    Ok(())
}

/// Requests of others, while the node holds all those connections; gives the slowest.
async fn serves(cluster: &Cluster) -> Outcome<Duration> {
    let mut slowest = Duration::ZERO;
    for node in 0..cluster.size() {
        let started = Instant::now();
        cluster.ask_well(node, Ask::get("/sentinel")).await?;
        slowest = slowest.max(started.elapsed());
    }
    Ok(slowest)
}

/// Waits until node 0 has noticed that the connections are gone.
async fn settles(cluster: &Cluster) -> Outcome<()> {
    eventually("the node to let closed connections go", PATIENCE, async || {
        let metrics = cluster.ask_well(0, Ask::get("/metrics")).await?.text();
        let open = metrics.lines().find_map(|line| line.strip_prefix("balsa_http_connections "));
        let open =
            open.ok_or_else(|| Failure(format!("no balsa_http_connections among the metrics:\n{metrics}")))?;
        Ok(open.trim().parse::<f64>().is_ok_and(|open| open < 50.0).then_some(()))
    })
    .await
}

/// More connections than a node takes: those beyond are told so at once, and it serves again when some have gone.
pub async fn too_many() -> Outcome<String> {
    const PLACES: usize = 64;
    const BEYOND: usize = 40;
    let cluster = Cluster::start(1, &["--connections-max", &PLACES.to_string()]).await?;
    let address = cluster.address(0).to_string();
    let mut held = open(&address, PLACES).await?;
    // Connections that were used for the start may hold places for a moment longer; each place must be taken.
    let mut refused = 0;
    let mut beyond = Vec::new();
    eventually("connections beyond the limit to be refused", PATIENCE, async || {
        let mut stream = TcpStream::connect(&address).await.context("connect beyond the limit")?;
        let mut answer = Vec::new();
        let told = tokio::time::timeout(Duration::from_millis(500), stream.read_to_end(&mut answer)).await;
        if told.is_err() {
            beyond.push(stream); // it has a place
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        let clear =
            text.starts_with("HTTP/1.1 503") && text.contains("overloaded") && text.contains("retry-after");
        ensure(clear, || format!("a connection beyond the limit was told: {text}"))?;
        refused += 1;
        Ok((refused >= BEYOND).then_some(()))
    })
    .await?;
    beyond.clear();
    held.clear();
    eventually("the node to serve again", PATIENCE, async || {
        let answer = Connection::new(&address).send(Ask::put("/a", "{\"value\":1}"), PATIENCE).await;
        Ok(answer.is_ok_and(|answer| answer.is_success()).then_some(()))
    })
    .await?;
    let line = format!("{refused} connections beyond a limit of {PLACES} told so");
    println!("{line}");
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaks_a_little_each_round_is_found() {
        let mib_each = |each: [u64; 6]| stops_growing(&each.map(|mib| mib << 20));
        assert!(mib_each([240, 255, 260, 262, 259, 264]).is_ok());
        assert!(mib_each([240, 255, 260, 275, 290, 305]).is_err());
    }
}
