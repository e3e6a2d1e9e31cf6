//! What a run found, and its table.

use super::Failure;
use super::record::{Found, Records, Wrote};
use super::verify::Findings;
use balsa_wire::problem::Outcome;
use serde::Serialize;
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a failover test measured and found. As JSON, its times are in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The load's writes.
    pub writes: Counts,
    /// The load's reads.
    pub reads: Counts,
    /// For each strike, the longest time between two acknowledged writes from then until the next strike.
    #[serde(rename = "gaps_ms", serialize_with = "all_ms")]
    pub gaps: Vec<Duration>,
    /// The longest time between two acknowledged writes, of the whole load.
    #[serde(rename = "gap_longest_ms", serialize_with = "ms")]
    pub gap_longest: Duration,
    /// Every time without an acknowledged write that was worth the word, in order.
    pub pauses: Vec<Pause>,
    /// The longest operation.
    #[serde(rename = "operation_longest_ms", serialize_with = "ms")]
    pub operation_longest: Duration,
    /// Acknowledged writes that are not there, a sentence each.
    pub lost: Vec<String>,
    /// Writes that are there otherwise than written once.
    pub twice: Vec<String>,
    /// Other untruths: a write there that was said not to be applied, a read during the load that missed a write.
    pub untrue: Vec<String>,
    /// Writes of unknown outcome that turned out to be applied.
    pub unknown_applied: u64,
    /// The first errors, a sentence each: no violations.
    pub first_errors: Vec<String>,
}

/// A time without an acknowledged write, of 50 ms or more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Pause {
    /// When it began, by this machine's clock, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// How long it was, in milliseconds.
    pub ms: u64,
}

/// Operations by outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// With success.
    pub ok: u64,
    /// Surely not applied; reads that failed.
    pub not_applied: u64,
    /// Applied, with the answer lost.
    pub applied: u64,
    /// Of unknown outcome.
    pub unknown: u64,
}

impl Counts {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.ok + self.errors()
    }

    /// Those without success.
    pub fn errors(&self) -> u64 {
        self.not_applied + self.applied + self.unknown
    }
}

/// From where on a time without an acknowledged write is a [`Pause`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// How many errors are told word by word.
const ERRORS_TOLD: usize = 5;

impl Report {
    pub(super) fn of(records: Records, findings: Findings, strikes: &[Instant]) -> Report {
        let mut report = Report {
            writes: Counts::default(),
            reads: Counts::default(),
            gaps: Vec::new(),
            gap_longest: Duration::ZERO,
            pauses: Vec::new(),
            operation_longest: Duration::ZERO,
            lost: findings.lost,
            twice: findings.twice,
            untrue: findings.undead,
            unknown_applied: findings.unknown_applied,
            first_errors: Vec::new(),
        };
        let mut acknowledged = Vec::new();
        for write in records.writes {
            report.operation_longest = report.operation_longest.max(write.took);
            match write.wrote {
                Wrote::Acknowledged { .. } => {
                    report.writes.ok += 1;
                    acknowledged.push(write.ended);
                }
                Wrote::Failed { outcome, why } => {
                    match outcome {
                        Outcome::NotApplied => report.writes.not_applied += 1,
                        Outcome::Applied => report.writes.applied += 1,
                        Outcome::Unknown => report.writes.unknown += 1,
                    }
                    report.tell(format!("{}: {why}", write.key));
                }
            }
        }
        for read in records.reads {
            report.operation_longest = report.operation_longest.max(read.took);
            match read.found {
                Found::Right => report.reads.ok += 1,
                Found::Wrong(why) => {
                    report.reads.ok += 1;
                    report.untrue.push(format!("read under load: {why}"));
                }
                Found::Failed(why) => {
                    report.reads.not_applied += 1;
                    report.tell(why);
                }
            }
        }
        acknowledged.sort_unstable();
        (report.gap_longest, report.gaps) = gaps(&acknowledged, strikes);
        report.pauses = pauses(&acknowledged, Instant::now(), SystemTime::now());
        report
    }

    /// Everything that must not be, a sentence each. Errors are none: see [`Report::errors`].
    pub fn violations(&self) -> Vec<&str> {
        let all = self.lost.iter().chain(&self.twice).chain(&self.untrue);
        all.map(String::as_str).collect()
    }

    /// Operations of the load without success.
    pub fn errors(&self) -> u64 {
        self.writes.errors() + self.reads.errors()
    }

    /// Whether all went as promised; if not, what a person should read of it.
    pub fn judge(&self) -> Result<(), Failure> {
        match (self.violations().len(), self.errors()) {
            (0, 0) => Ok(()),
            (0, errors) => Err(Failure(format!("{errors} operations failed before their deadline was over"))),
            (violations, _) => Err(Failure(format!("{violations} violations of what was promised"))),
        }
    }

    /// The middle one of [`Report::gaps`].
    pub fn gap_median(&self) -> Duration {
        let mut gaps = self.gaps.clone();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).copied().unwrap_or_default()
    }

    fn tell(&mut self, error: String) {
        if self.first_errors.len() < ERRORS_TOLD {
            self.first_errors.push(error);
        }
    }
}

/// The longest gap of all, and the longest after each strike. `acknowledged`: in order of time.
fn gaps(acknowledged: &[Instant], strikes: &[Instant]) -> (Duration, Vec<Duration>) {
    let pairs = || acknowledged.windows(2).map(|pair| (pair[0], pair[1]));
    let longest = |from: Option<Instant>, to: Option<Instant>| {
        let meets = pairs().filter(|(before, after)| {
            from.is_none_or(|from| *after >= from) && to.is_none_or(|to| *before < to)
        });
        meets.map(|(before, after)| after - before).max().unwrap_or_default()
    };
    let after_each = strikes.iter().enumerate();
    let after_each = after_each.map(|(at, strike)| longest(Some(*strike), strikes.get(at + 1).copied()));
    (longest(None, None), after_each.collect())
}

/// `now` is one moment by both clocks.
fn pauses(acknowledged: &[Instant], now: Instant, now_by_calendar: SystemTime) -> Vec<Pause> {
    let pause = |before: Instant, after: Instant| {
        let began = now_by_calendar.checked_sub(now.saturating_duration_since(before))?;
        let began = began.duration_since(UNIX_EPOCH).ok()?;
        Some(Pause { began_unix_ms: began.as_millis() as u64, ms: (after - before).as_millis() as u64 })
    };
    let pairs = acknowledged.windows(2).filter(|pair| pair[1] - pair[0] >= PAUSE_MIN);
    pairs.filter_map(|pair| pause(pair[0], pair[1])).collect()
}

fn ms<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_millis() as u64)
}

fn all_ms<S: serde::Serializer>(times: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(times.iter().map(|time| time.as_millis() as u64))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "            all       ok   not applied   applied   unknown")?;
        for (name, counts) in [("writes", &self.writes), ("reads", &self.reads)] {
            let Counts { ok, not_applied, applied, unknown } = counts;
            writeln!(f, "{name:<8}{:>7}{ok:>9}{not_applied:>14}{applied:>10}{unknown:>10}", counts.all())?;
        }
        writeln!(f, "strikes                            {:>8}", self.gaps.len())?;
        writeln!(f, "gap after a strike, median         {:>8} ms", self.gap_median().as_millis())?;
        let after_strikes = self.gaps.iter().max().copied().unwrap_or_default();
        writeln!(f, "gap after a strike, longest        {:>8} ms", after_strikes.as_millis())?;
        writeln!(f, "longest gap without a write        {:>8} ms", self.gap_longest.as_millis())?;
        writeln!(f, "longest operation                  {:>8} ms", self.operation_longest.as_millis())?;
        writeln!(f, "acknowledged writes lost           {:>8}", self.lost.len())?;
        writeln!(f, "writes applied twice or otherwise  {:>8}", self.twice.len())?;
        write!(f, "other untruths                     {:>8}", self.untrue.len())?;
        for (name, sentences) in [("violation", self.violations()), ("error", self.first_errors())] {
            for sentence in sentences.iter().take(ERRORS_TOLD) {
                write!(f, "\n{name}: {sentence}")?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn first_errors(&self) -> Vec<&str> {
        self.first_errors.iter().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_has_its_place_in_the_calendar() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let now = UNIX_EPOCH + Duration::from_millis(10_000);
        let found = pauses(&[0, 10, 59, 109, 400].map(at), at(1_000), now);
        let right = [Pause { began_unix_ms: 9_059, ms: 50 }, Pause { began_unix_ms: 9_109, ms: 291 }];
        assert_eq!(found, right);
    }

    #[test]
    fn gaps_are_of_the_strike_that_they_follow() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let acknowledged = [0, 10, 20, 320, 330, 500, 600].map(at);
        let (longest, each) = gaps(&acknowledged, &[at(22), at(400)]);
        assert_eq!(longest.as_millis(), 300);
        assert_eq!(each.iter().map(Duration::as_millis).collect::<Vec<_>>(), [300, 170]);
        assert_eq!(gaps(&[], &[zero]), (Duration::ZERO, vec![Duration::ZERO]));
    }
}
