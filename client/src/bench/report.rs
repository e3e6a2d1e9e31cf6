//! What was measured, round by round, and its medians. Pure.

use super::Load;
use super::load::Measured;
use super::requests::{Kind, Op};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What is measured apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Case {
    /// What is done.
    #[serde(flatten)]
    pub load: Load,
    /// To whom.
    pub target: Kind,
}

/// One load, or the medians of several.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figures {
    /// What was measured.
    #[serde(flatten)]
    pub case: Case,
    /// Answers a second.
    pub per_second: f64,
    /// Latency, in microseconds, that half of the requests do not exceed.
    pub p50_us: u64,
    /// The same for 90%.
    pub p90_us: u64,
    /// The same for 99%.
    pub p99_us: u64,
    /// The same for 99.9%.
    pub p999_us: u64,
    /// The longest; over several loads, the longest of all.
    pub max_us: u64,
    /// Requests without a good answer; over several loads, all of them.
    pub errors: u64,
    /// The first of them, for a person.
    pub first_error: Option<String>,
    /// Processor seconds that the servers spent on 100,000 requests, all together; `None` where their processes are not
    /// known.
    pub server_cpu_s_per_100k: Option<f64>,
    /// Processor seconds that the generator spent on 100,000 requests.
    pub generator_cpu_s_per_100k: f64,
    /// Elections during the load; over several loads, all of them.
    pub leader_changes: u64,
}

impl Figures {
    pub(super) fn of(case: Case, measured: Measured, leader_changes: u64) -> Figures {
        let latency = |share: f64| measured.latencies.value_at_quantile(share);
        let answers = measured.latencies.len() as f64;
        let per_100k = |seconds: f64| seconds / answers.max(1.0) * 100_000.0;
        Figures {
            case,
            per_second: answers / measured.seconds,
            p50_us: latency(0.5),
            p90_us: latency(0.9),
            p99_us: latency(0.99),
            p999_us: latency(0.999),
            max_us: measured.latencies.max(),
            errors: measured.errors,
            first_error: measured.first_error,
            server_cpu_s_per_100k: measured.server_cpu.map(|used| per_100k(used.as_secs_f64())),
            generator_cpu_s_per_100k: per_100k(measured.generator_cpu.as_secs_f64()),
            leader_changes,
        }
    }

    /// Medians of `rounds`, all of one case; errors and elections are added up. `None` for no rounds.
    fn median(rounds: &[Figures]) -> Option<Figures> {
        let case = rounds.first()?.case;
        let us = |of: fn(&Figures) -> u64| median(rounds.iter().map(|round| of(round) as f64)) as u64;
        let cpu: Option<Vec<f64>> = rounds.iter().map(|round| round.server_cpu_s_per_100k).collect();
        Some(Figures {
            case,
            per_second: median(rounds.iter().map(|round| round.per_second)),
            p50_us: us(|round| round.p50_us),
            p90_us: us(|round| round.p90_us),
            p99_us: us(|round| round.p99_us),
            p999_us: us(|round| round.p999_us),
            max_us: rounds.iter().map(|round| round.max_us).max().unwrap_or(0),
            errors: rounds.iter().map(|round| round.errors).sum(),
            first_error: rounds.iter().find_map(|round| round.first_error.clone()),
            server_cpu_s_per_100k: cpu.map(|cpu| median(cpu.into_iter())),
            generator_cpu_s_per_100k: median(rounds.iter().map(|round| round.generator_cpu_s_per_100k)),
            leader_changes: rounds.iter().map(|round| round.leader_changes).sum(),
        })
    }
}

/// The middle one; of an even number, the mean of the middle two.
pub fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        length if length.is_multiple_of(2) => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
        length => sorted[length / 2],
    }
}

/// All rounds of all cases.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Medians over the rounds, by operation, connections and target.
    pub medians: Vec<Figures>,
    /// Each load, in the order in which they ran.
    pub rounds: Vec<Figures>,
}

impl Report {
    /// Sorts rounds by case.
    pub fn of(rounds: Vec<Figures>) -> Report {
        let mut by_case: BTreeMap<Case, Vec<Figures>> = BTreeMap::new();
        for round in &rounds {
            by_case.entry(round.case).or_default().push(round.clone());
        }
        let medians = by_case.values().filter_map(|rounds| Figures::median(rounds)).collect();
        Report { medians, rounds }
    }

    /// The medians of one case, if it was measured.
    pub fn find(&self, target: Kind, op: Op, connections: usize) -> Option<&Figures> {
        let case = Case { load: Load { op, connections }, target };
        self.medians.iter().find(|figures| figures.case == case)
    }

    /// Requests without a good answer, over all loads.
    pub fn errors(&self) -> u64 {
        self.rounds.iter().map(|round| round.errors).sum()
    }

    /// Throughput of one case as a share of the baseline's under the same load.
    pub fn ratio_to_baseline(&self, figures: &Figures) -> Option<f64> {
        let Case { load, target } = figures.case;
        let baseline = self.find(Kind::Baseline, load.op, load.connections);
        let baseline = baseline.filter(|_| target != Kind::Baseline)?;
        (baseline.per_second > 0.0).then(|| figures.per_second / baseline.per_second)
    }
}

/// The heading of [`Figures`]' line.
pub const HEADING: &str = "op   conns  target      req/s  p50 ms  p90 ms  p99 ms p99.9 ms  max ms  errors  elections  server cpu s/100k  generator";

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1_000.0;
        let op = match self.case.load.op {
            Op::Put => "put",
            Op::Get => "get",
        };
        let cpu = self.server_cpu_s_per_100k.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}"));
        write!(
            f,
            "{op:<4} {:>5}  {:<8} {:>8.0} {:>7.2} {:>7.2} {:>7.2} {:>8.2} {:>7.1} {:>7} {:>10} {cpu:>18} {:>10.2}",
            self.case.load.connections,
            self.case.target.name(),
            self.per_second,
            ms(self.p50_us),
            ms(self.p90_us),
            ms(self.p99_us),
            ms(self.p999_us),
            ms(self.max_us),
            self.errors,
            self.leader_changes,
            self.generator_cpu_s_per_100k,
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HEADING}")?;
        for figures in &self.medians {
            write!(f, "\n{figures}")?;
            if let Some(ratio) = self.ratio_to_baseline(figures) {
                write!(f, "  {ratio:.2} of the baseline")?;
            }
        }
        if let Some(error) = self.medians.iter().find_map(|figures| figures.first_error.as_ref()) {
            write!(f, "\nfirst error: {error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(target: Kind, per_second: f64, p50_us: u64, errors: u64) -> Figures {
        Figures {
            case: Case { load: Load { op: Op::Put, connections: 64 }, target },
            per_second,
            p50_us,
            p90_us: 2,
            p99_us: 3,
            p999_us: 4,
            max_us: p50_us,
            errors,
            first_error: (errors > 0).then(|| "why".to_owned()),
            server_cpu_s_per_100k: Some(per_second / 10.0),
            generator_cpu_s_per_100k: 1.0,
            leader_changes: errors,
        }
    }

    #[test]
    fn medians() {
        for (numbers, expected) in
            [(vec![], 0.0), (vec![3.0], 3.0), (vec![9.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 9.0], 3.0)]
        {
            assert_eq!(median(numbers.into_iter()), expected);
        }
    }

    #[test]
    fn a_report_has_medians_and_sums() {
        let rounds = vec![
            figures(Kind::Balsa, 10.0, 7, 0),
            figures(Kind::Baseline, 100.0, 1, 0),
            figures(Kind::Balsa, 30.0, 5, 2),
            figures(Kind::Baseline, 100.0, 1, 0),
            figures(Kind::Balsa, 20.0, 6, 0),
        ];
        let report = Report::of(rounds);
        let balsa = report.find(Kind::Balsa, Op::Put, 64).unwrap();
        assert_eq!((balsa.per_second, balsa.p50_us, balsa.max_us), (20.0, 6, 7));
        assert_eq!((balsa.errors, balsa.leader_changes, report.errors()), (2, 2, 2));
        assert_eq!(balsa.server_cpu_s_per_100k, Some(2.0));
        assert_eq!(report.ratio_to_baseline(balsa), Some(0.2));
        let baseline = report.find(Kind::Baseline, Op::Put, 64).unwrap();
        assert_eq!(report.ratio_to_baseline(baseline), None);
        assert!(report.find(Kind::Balsa, Op::Get, 64).is_none());
        let text = report.to_string();
        assert!(text.contains("0.20 of the baseline") && text.ends_with("first error: why"), "{text}");
    }
}
