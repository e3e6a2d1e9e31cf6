//! A load as light as it can be: raw HTTP/1.1 in a closed loop on many connections, requests written from one buffer.
//!
//! Keys are numbered, and a value follows from its key, so that any number of them can be checked without a list of what
//! was written. It does not retry: an answer that is not the expected one ends the load.

use crate::failure::{Context, Failure, Outcome, ensure};
use crate::random::Random;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 256;
/// How long one answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The name of a key.
pub fn key(number: u64) -> String {
    format!("key-{number:010}")
}

/// The value of a key in a round of writes.
pub fn value(number: u64, round: u64, into: &mut Vec<u8>) {
    into.clear();
    let mut random = Random::new(number ^ (round << 48));
    while into.len() < VALUE_BYTES {
        // Sixteen printable digits a draw: nothing that a disk could compress to nothing.
        let _ = write!(into, "{:016x}", random.draw());
    }
}

/// What is done with each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Put the value of this round.
    Put {
        /// The round.
        round: u64,
    },
    /// Get it from the node that is asked, and compare it with the value of this round.
    GetStale {
        /// The round.
        round: u64,
    },
}

/// Which keys a load takes.
#[derive(Clone, Debug)]
pub enum Keys {
    /// Each of these once, in order.
    Each(std::ops::Range<u64>),
    /// Any below this number, again and again, until the time is over.
    Random {
        /// How many keys there are.
        below: u64,
        /// How long.
        lasts: Duration,
    },
}

/// What a load came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Requests answered as they should be.
    pub requests: u64,
    /// How long they took in all.
    pub took: Duration,
    /// How long the longest took.
    pub longest: Duration,
}

impl Done {
    /// Requests a second.
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Both loads as one.
    #[must_use]
    pub fn and(self, other: Done) -> Done {
        Done {
            requests: self.requests + other.requests,
            took: self.took + other.took,
            longest: self.longest.max(other.longest),
        }
    }
}

/// Runs a load on `connections` connections, spread over the nodes at `addresses`.
pub async fn run(addresses: &[String], connections: usize, work: Work, keys: Keys) -> Outcome<Done> {
    let started = Instant::now();
    let next = Arc::new(AtomicU64::new(match &keys {
        Keys::Each(range) => range.start,
        Keys::Random { .. } => 0,
    }));
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let address = addresses[number % addresses.len()].clone();
        let (next, keys) = (Arc::clone(&next), keys.clone());
        tasks.spawn(async move {
            let mut connection = Raw::open(&address).await?;
            let mut random = Random::new(number as u64);
            let (mut requests, mut longest) = (0, Duration::ZERO);
            loop {
                let key = match &keys {
                    Keys::Each(range) => {
                        Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < range.end)
                    }
                    Keys::Random { below, lasts } => {
                        (started.elapsed() < *lasts).then(|| random.below(*below))
                    }
                };
                let Some(key) = key else { return Ok::<_, Failure>((requests, longest)) };
                let asked = Instant::now();
                connection.carry_out(work, key).await?;
                longest = longest.max(asked.elapsed());
                requests += 1;
            }
        });
    }
    let mut done = Done::default();
    while let Some(ended) = tasks.join_next().await {
        let (requests, longest) = ended.context("run a load's connection")??;
        done = done.and(Done { requests, took: Duration::ZERO, longest });
    }
    Ok(Done { took: started.elapsed(), ..done })
}

/// One connection, and its buffers.
pub(super) struct Raw {
    address: String,
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    value: Vec<u8>,
}

impl Raw {
    pub(super) async fn open(address: &str) -> Outcome<Raw> {
        let stream = TcpStream::connect(address).await.context(format!("connect to {address}"))?;
        let _ = stream.set_nodelay(true); // only slower without
        Ok(Raw {
            address: address.to_string(),
            stream,
            request: Vec::new(),
            answer: Vec::with_capacity(4 << 10),
            value: Vec::with_capacity(VALUE_BYTES),
        })
    }

    async fn carry_out(&mut self, work: Work, number: u64) -> Outcome<()> {
        let (status, body) = self.ask(work, number).await?;
        let said = &self.answer[body];
        ensure(status == 200, || {
            let said = String::from_utf8_lossy(said);
            format!("{work:?} of {} at {} was answered {status} {said}", key(number), self.address)
        })?;
        ensure(matches!(work, Work::Put { .. }) || *said == self.value[..], || {
            let said = String::from_utf8_lossy(said);
            format!("{work:?} of {} at {} gave another value: {said}", key(number), self.address)
        })
    }

    /// Asks, whatever the answer; gives its status and where its body lies in `answer`.
    pub(super) async fn ask(&mut self, work: Work, number: u64) -> Outcome<(u16, std::ops::Range<usize>)> {
        let key = key(number);
        self.request.clear();
        let round = match work {
            Work::Put { round } | Work::GetStale { round } => round,
        };
        value(number, round, &mut self.value);
        let written = match work {
            Work::Put { .. } => write!(
                self.request,
                "PUT /v1/kv/{key} HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ncontent-length: {VALUE_BYTES}\r\n\r\n"
            ),
            Work::GetStale { .. } => {
                write!(self.request, "GET /v1/kv/{key}?consistency=stale&raw HTTP/1.1\r\nhost: h\r\n\r\n")
            }
        };
        written.context("write a request")?;
        if matches!(work, Work::Put { .. }) {
            self.request.extend_from_slice(&self.value);
        }
        let exchanged = tokio::time::timeout(PATIENCE, self.exchange()).await;
        let what = format!("{work:?} of {key} at {}", self.address);
        exchanged.context(format!("have an answer to {what}"))?.context(&what)
    }

    /// Sends the request; gives the answer's status and where its body lies in `answer`.
    async fn exchange(&mut self) -> std::io::Result<(u16, std::ops::Range<usize>)> {
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        let end = loop {
            self.read_more().await?;
            if let Some(at) = self.answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if self.answer.len() > HEAD_BYTES_MAX {
                return Err(std::io::Error::other("an answer with an endless head"));
            }
        };
        let head = String::from_utf8_lossy(&self.answer[..end]).into_owned();
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok()).flatten()
        });
        let (Some(status), Some(length)) = (status, length) else {
            return Err(std::io::Error::other(format!("an answer without status or length: {head}")));
        };
        while self.answer.len() < end + length {
            self.read_more().await?;
        }
        Ok((status, end..end + length))
    }

    async fn read_more(&mut self) -> std::io::Result<()> {
        match self.stream.read_buf(&mut self.answer).await? {
            0 => Err(std::io::Error::other("the connection ended")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_follows_from_its_key_and_round() {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        value(7, 0, &mut one);
        value(7, 0, &mut other);
        assert_eq!((one.len(), &one), (VALUE_BYTES, &other));
        value(7, 1, &mut other);
        assert_ne!(one, other);
    }
}
