//! A steady load of puts, and how long each took: measured from when it was due, so that a pause counts against every put
//! that it held up.

use super::load::{self, VALUE_BYTES};
use crate::failure::{Context, Outcome};
use crate::http::{Ask, Connection};
use crate::random::Random;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Longer than any put may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the load is.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Puts a second in all.
    pub per_second: u64,
    /// Connections, spread over the nodes.
    pub connections: u64,
    /// Any of so many keys, with the value that each has already.
    pub keys: u64,
}

/// The load, at work until told to finish.
#[derive(Debug)]
pub struct Paced {
    stop: Arc<AtomicBool>,
    /// In microseconds, since they were last taken.
    took_us: Arc<Mutex<Vec<u64>>>,
    tasks: JoinSet<Outcome<()>>,
}

impl Paced {
    /// Starts it.
    pub fn start(addresses: &[String], rate: Rate) -> Paced {
        let (stop, took_us, mut tasks) = (Arc::default(), Arc::default(), JoinSet::new());
        for (number, address) in (0..rate.connections).zip(addresses.iter().cycle()) {
            let (stop, took_us) = (Arc::clone(&stop), Arc::clone(&took_us));
            tasks.spawn(work(address.clone(), rate, number, stop, took_us));
        }
        Paced { stop, took_us, tasks }
    }

    /// What the puts took that were answered since this was last asked, in order of length.
    pub fn take(&self) -> Latencies {
        Latencies::of(std::mem::take(&mut *self.took_us.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Begins no more puts, waits for those under way.
    pub async fn finish(mut self) -> Outcome<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("run a client")??;
        }
        Ok(())
    }
}

async fn work(
    address: String,
    rate: Rate,
    number: u64,
    stop: Arc<AtomicBool>,
    took_us: Arc<Mutex<Vec<u64>>>,
) -> Outcome<()> {
    let mut connection = Connection::new(address);
    let mut random = Random::new(number);
    let interval = Duration::from_micros(1_000_000 * rate.connections / rate.per_second);
    let mut due = tokio::time::Instant::now() + interval.mul_f64(number as f64 / rate.connections as f64);
    let mut value = Vec::with_capacity(VALUE_BYTES);
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep_until(due).await;
        let key = random.below(rate.keys);
        load::value(key, 0, &mut value);
        let (path, body) = (format!("/v1/kv/{}", load::key(key)), String::from_utf8_lossy(&value));
        let ask = Ask { method: "PUT", path: &path, headers: &[("content-type", "text/plain")], body: &body };
        let what = format!("put {path}");
        connection.send(ask, PATIENCE).await.context(&what)?.well(&what)?;
        let took = Instant::now().saturating_duration_since(due.into());
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        took_us.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        due += interval;
    }
    Ok(())
}

/// How long puts took, in microseconds and in order.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    /// Of these, in microseconds.
    pub fn of(mut took_us: Vec<u64>) -> Latencies {
        took_us.sort_unstable();
        Latencies(took_us)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What so many of a hundred did not exceed.
    pub fn percentile(&self, percent: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let at = ((self.0.len() as f64 * percent / 100.0).ceil() as usize).saturating_sub(1).min(last);
        Duration::from_micros(self.0.get(at).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let latencies = Latencies((1..=200).collect());
        assert_eq!(latencies.percentile(50.0), Duration::from_micros(100));
        assert_eq!(latencies.percentile(99.0), Duration::from_micros(198));
        assert_eq!(latencies.percentile(100.0), Duration::from_micros(200));
        assert_eq!(Latencies::default().percentile(99.0), Duration::ZERO);
    }
}
