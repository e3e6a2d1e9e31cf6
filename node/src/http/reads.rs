//! Where values are read: on the thread that serves the connection for as long as the disk is quick, elsewhere when it is
//! not.
//!
//! Handing a read over costs more than the read, most of which find their rows in memory. But a disk that stalls must
//! not hold up whoever shares the thread, which may be the engine itself (hazard 45): once reads have waited for more than a
//! fifth of a window, those that may need the disk go to threads that may block, for a while.

use super::problem::Failure;
use balsa_store::View;
use balsa_store::command::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// In which reads are watched.
const WINDOW: Duration = Duration::from_millis(100);
/// How much of a window they may wait.
const WAITED_MAX: Duration = Duration::from_millis(20);
/// A read that takes no longer has not waited for the disk.
const QUICK: Duration = Duration::from_micros(500);
/// How long reads keep away from the thread afterwards.
const AWAY: Duration = Duration::from_secs(10);

/// How reads have fared. Threads race on it, and a lost update is harmless.
pub(super) struct Reads {
    epoch: Instant,
    /// The window that is watched, by number.
    window: AtomicU64,
    /// Waited in it, in µs.
    waited_us: AtomicU64,
    /// Until when reads keep away, in µs since `epoch`.
    away_until_us: AtomicU64,
}

impl Default for Reads {
    fn default() -> Reads {
        let (window, waited_us, away_until_us) = Default::default();
        Reads { epoch: Instant::now(), window, waited_us, away_until_us }
    }
}

impl Reads {
    /// The value of a key in `view`; `None`: it is not there.
    pub(super) async fn get(&self, view: &View, key: &str) -> Result<Option<Value>, Failure> {
        let begun = self.epoch.elapsed();
        if self.keeps_away(begun) {
            let (view, key) = (view.clone(), key.to_owned());
            let reading = tokio::task::spawn_blocking(move || view.get(key.as_bytes()));
            let found = reading.await.map_err(|panicked| Failure::Store(panicked.to_string()))?;
            return found.map_err(|error| Failure::Store(error.to_string()));
        }
        let found = view.get(key.as_bytes());
        self.note(begun, self.epoch.elapsed());
        found.map_err(|error| Failure::Store(error.to_string()))
    }

    fn keeps_away(&self, now: Duration) -> bool {
        micros(now) < self.away_until_us.load(Ordering::Relaxed)
    }

    /// A read took from `begun` to `ended`.
    fn note(&self, begun: Duration, ended: Duration) {
        let took = ended.saturating_sub(begun);
        if took <= QUICK {
            return;
        }
        let window = micros(ended) / micros(WINDOW);
        if self.window.swap(window, Ordering::Relaxed) != window {
            self.waited_us.store(0, Ordering::Relaxed);
        }
        let waited = self.waited_us.fetch_add(micros(took), Ordering::Relaxed) + micros(took);
        if waited > micros(WAITED_MAX) {
            self.away_until_us.store(micros(ended + AWAY), Ordering::Relaxed);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads of so many ms each, one after the other; gives the first after which reads keep away.
    fn first_away(reads: &Reads, each: Duration, pause: Duration) -> Option<usize> {
        let mut now = Duration::from_secs(1);
        (1..1_000).find(|_| {
            let begun = now;
            now += each;
            reads.note(begun, now);
            now += pause;
            reads.keeps_away(now)
        })
    }

    #[test]
    fn one_stall_or_many_short_waits_send_reads_away() {
        let ms = Duration::from_millis;
        assert_eq!(first_away(&Reads::default(), ms(150), ms(0)), Some(1));
        let many = first_away(&Reads::default(), ms(4), ms(1)).expect("away");
        assert!((6..=25).contains(&many), "{many}");
    }

    #[test]
    fn quick_reads_and_rare_waits_do_not() {
        let (us, ms) = (Duration::from_micros, Duration::from_millis);
        assert_eq!(first_away(&Reads::default(), us(400), us(1)), None);
        assert_eq!(first_away(&Reads::default(), ms(10), ms(200)), None);
    }

    #[test]
    fn they_come_back_after_a_while() {
        let reads = Reads::default();
        let (begun, ended) = (Duration::from_secs(1), Duration::from_secs(2));
        reads.note(begun, ended);
        assert!(reads.keeps_away(ended + AWAY - Duration::from_millis(1)));
        assert!(!reads.keeps_away(ended + AWAY));
    }
}
