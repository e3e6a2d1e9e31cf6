//! `bench-ratio`: how fast puts and gets are, beside what HTTP alone costs on this machine and beside etcd.
//!
//! Three nodes of Balsa, three of etcd (its JSON gateway; fsync as etcd has it) and the client crate's baseline all run
//! at once, and only one of them is under load at a time: one run, interleaved in rounds, medians. Between the loads
//! fdatasync is measured on the same disk. What the bars are is in `judge`.

use super::disk;
use super::etcd::{self, Etcd};
use super::fdatasync::Probe;
use super::verdict::{Verdict, conclude};
use crate::binary;
use crate::cluster::Cluster;
use crate::failure::{Context, Failure, Outcome, ensure};
use balsa_client::bench::{self, Baseline, Case, Figures, HEADING, Kind, Load, Op, Plan, Report, Target};
use std::process::ExitCode;
use std::time::Duration;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shorter loads; etcd only where it is there; a verdict on errors and elections only.
    pub quick: bool,
    /// How often everything is measured.
    pub rounds: u32,
}

/// The exit code where the machine was too slow or too busy for a verdict.
pub const EXIT_VOID: u8 = 4;

const NODES: usize = 3;
const PUT_64: Load = Load { op: Op::Put, connections: 64 };
const GET_64: Load = Load { op: Op::Get, connections: 64 };
const PUT_1: Load = Load { op: Op::Put, connections: 1 };
/// Puts a second of the baseline by 64 connections; with fewer nothing can be said.
const BASELINE_MIN: f64 = 60_000.0;
/// How long fdatasync is measured in each round.
const SYNC_TIME: Duration = Duration::from_millis(500);

/// Runs the bar and prints its verdict.
pub fn run(options: &Options) -> ExitCode {
    match measure(options) {
        Err(failure) => conclude("bench-ratio", Err::<String, _>(failure)),
        Ok((report, sync)) => {
            println!("\nmedians of {} rounds\n{report}", options.rounds);
            println!("fdatasync of 4 KiB, median {:.3} ms\n", sync.as_secs_f64() * 1_000.0);
            verdict(options, &judge(&report, sync), &report)
        }
    }
}

fn measure(options: &Options) -> Outcome<(Report, Duration)> {
    let scratch = binary::scratch()?;
    disk::require_real()?;
    let etcd_binary = etcd::find();
    ensure(options.quick || etcd_binary.is_some(), || {
        "no etcd to compare with: BALSA_ETCD names no file, and there is none on the PATH".to_owned()
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("start a runtime")?;
    let mut cluster = runtime.block_on(Cluster::start(NODES, &[]))?;
    let etcd = match &etcd_binary {
        Some(binary) => {
            println!("beside {} ({})", etcd::version(binary)?, binary.display());
            Some(runtime.block_on(Etcd::start(binary))?)
        }
        None => {
            println!("without etcd: BALSA_ETCD names no file, and there is none on the PATH");
            None
        }
    };
    let baseline = Baseline::start(&binary::cli()?).context("start the baseline")?;
    let mut targets = vec![Target::from(&baseline), target(&mut cluster)];
    targets.extend(etcd.iter().map(|etcd| Target {
        kind: Kind::Etcd,
        endpoints: etcd.addresses(),
        pids: etcd.pids(),
    }));
    let (warmup_ms, duration_ms) = if options.quick { (500, 1_500) } else { (700, 3_500) };
    let plan = Plan {
        loads: vec![PUT_64, GET_64, PUT_1],
        rounds: options.rounds,
        warmup: Duration::from_millis(warmup_ms),
        duration: Duration::from_millis(duration_ms),
        ..Plan::new(targets)
    };
    let mut probe = Probe::new(&scratch)?;
    let mut probed = Ok(());
    println!("{HEADING}");
    let report = bench::run(&plan, |figures| {
        println!("{figures}");
        if figures.case == (Case { load: PUT_1, target: Kind::Baseline }) && probed.is_ok() {
            probed = probe.measure(SYNC_TIME).map(|median| println!("fdatasync {median:.0?}"));
        }
    });
    probed?;
    let report = report.map_err(|failure| Failure(format!("{failure}\n{}", cluster.last_words())))?;
    Ok((report, probe.median()))
}

fn target(cluster: &mut Cluster) -> Target {
    let nodes = 0..cluster.size();
    let endpoints = nodes.clone().map(|node| cluster.address(node).to_owned()).collect();
    let pids = nodes.filter_map(|node| cluster.process(node).pid()).collect();
    Target { kind: Kind::Balsa, endpoints, pids }
}

/// A figure and its bound.
#[derive(Debug, Clone, PartialEq)]
struct Bar {
    what: &'static str,
    figure: f64,
    bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    Min(f64),
    Max(f64),
}

impl Bar {
    fn holds(&self) -> bool {
        match self.bound {
            Bound::Min(least) => self.figure >= least,
            Bound::Max(most) => self.figure <= most,
        }
    }

    fn line(&self) -> String {
        let (sign, bound) = match self.bound {
            Bound::Min(least) => (">=", least),
            Bound::Max(most) => ("<=", most),
        };
        let mark = if self.holds() { "    " } else { "MISS" };
        format!("{mark} {:<58} {:>8.2} {sign} {bound:.2}", self.what, self.figure)
    }
}

/// The bars, for what was measured.
fn judge(report: &Report, sync: Duration) -> Vec<Bar> {
    let find = |target, load: Load| report.find(target, load.op, load.connections);
    let mut bars = Vec::new();
    let mut bar = |what, figure: Option<f64>, bound| {
        bars.extend(figure.map(|figure| Bar { what, figure, bound }));
    };
    let ratio = |of: Option<&Figures>, to: Option<&Figures>| Some(of?.per_second / to?.per_second.max(1.0));
    let (put, get) = (find(Kind::Balsa, PUT_64), find(Kind::Balsa, GET_64));
    let (etcd_put, etcd_get) = (find(Kind::Etcd, PUT_64), find(Kind::Etcd, GET_64));
    bar("puts by 64, of the baseline", ratio(put, find(Kind::Baseline, PUT_64)), Bound::Min(0.15));
    bar("gets by 64, of the baseline", ratio(get, find(Kind::Baseline, GET_64)), Bound::Min(0.45));
    bar("puts by 64, of etcd's", ratio(put, etcd_put), Bound::Min(2.5));
    bar("gets by 64, of etcd's", ratio(get, etcd_get), Bound::Min(2.5));
    let p99 = |figures: Option<&Figures>| Some(figures?.p99_us as f64 / 1_000.0);
    if let Some(etcd) = p99(etcd_put) {
        bar("p99 of puts by 64 beside etcd's, ms", p99(put), Bound::Max(etcd));
    }
    if let (Some(one), Some(baseline)) = (find(Kind::Balsa, PUT_1), find(Kind::Baseline, PUT_1)) {
        let floor = sync.as_secs_f64() * 1_000_000.0 + baseline.p50_us as f64;
        let figure = one.p50_us as f64 / floor;
        bar("p50 of a lone put, of fdatasync + baseline", Some(figure), Bound::Max(2.2));
    }
    bar("server cpu of 100k puts, s", put.and_then(|put| put.server_cpu_s_per_100k), Bound::Max(6.0));
    bar("server cpu of 100k gets, s", get.and_then(|get| get.server_cpu_s_per_100k), Bound::Max(2.5));
    bar("elections under load", Some(elections(report) as f64), Bound::Max(0.0));
    bar("failed requests", Some(errors(report) as f64), Bound::Max(0.0));
    bars
}

/// Only Balsa's: how etcd fares is not judged.
fn own(report: &Report) -> impl Iterator<Item = &Figures> {
    report.rounds.iter().filter(|round| round.case.target != Kind::Etcd)
}

fn elections(report: &Report) -> u64 {
    own(report).map(|round| round.leader_changes).sum()
}

fn errors(report: &Report) -> u64 {
    own(report).map(|round| round.errors).sum()
}

fn verdict(options: &Options, bars: &[Bar], report: &Report) -> ExitCode {
    for bar in bars {
        println!("{}", bar.line());
    }
    let baseline = report.find(Kind::Baseline, Op::Put, 64).map_or(0.0, |figures| figures.per_second);
    let missed: Vec<&Bar> = bars.iter().filter(|bar| !bar.holds()).collect();
    let put = report.find(Kind::Balsa, Op::Put, 64).map_or(0.0, |figures| figures.per_second);
    let get = report.find(Kind::Balsa, Op::Get, 64).map_or(0.0, |figures| figures.per_second);
    let figures = format!("{put:.0} puts/s, {get:.0} gets/s, baseline {baseline:.0}/s");
    let broken = elections(report) + errors(report) > 0;
    if options.quick && !broken {
        let outcome = format!(
            "{figures}; no failed request, no election; {} of {} bars hold, which a quick run does not judge",
            bars.len() - missed.len(),
            bars.len()
        );
        return conclude("bench-ratio", Ok(outcome));
    }
    if baseline < BASELINE_MIN && !broken {
        println!(
            "bench-ratio: VOID the baseline reached {baseline:.0}/s, below {BASELINE_MIN:.0}/s: the machine is too slow or too busy for a verdict; {figures}"
        );
        return ExitCode::from(EXIT_VOID);
    }
    match missed.as_slice() {
        [] => conclude("bench-ratio", Ok(format!("{figures}; all {} bars hold", bars.len()))),
        missed => {
            let names: Vec<String> =
                missed.iter().map(|bar| format!("{} {:.2}", bar.what, bar.figure)).collect();
            let said = format!("{figures}; missed: {}", names.join("; "));
            conclude("bench-ratio", if broken { Err(Failure(said)) } else { Ok(Verdict::Missed(said)) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(target: Kind, load: Load, per_second: f64, us: u64) -> Figures {
        Figures {
            case: Case { load, target },
            per_second,
            p50_us: us,
            p90_us: us,
            p99_us: us,
            p999_us: us,
            max_us: us,
            errors: 0,
            first_error: None,
            server_cpu_s_per_100k: Some(2.0),
            generator_cpu_s_per_100k: 1.0,
            leader_changes: 0,
        }
    }

    fn good() -> Vec<Figures> {
        vec![
            figures(Kind::Baseline, PUT_64, 70_000.0, 900),
            figures(Kind::Balsa, PUT_64, 14_000.0, 4_000),
            figures(Kind::Etcd, PUT_64, 4_000.0, 20_000),
            figures(Kind::Baseline, GET_64, 80_000.0, 800),
            figures(Kind::Balsa, GET_64, 40_000.0, 1_500),
            figures(Kind::Etcd, GET_64, 10_000.0, 6_000),
            figures(Kind::Baseline, PUT_1, 20_000.0, 50),
            figures(Kind::Balsa, PUT_1, 1_500.0, 600),
        ]
    }

    fn missed(rounds: Vec<Figures>) -> Vec<&'static str> {
        let bars = judge(&Report::of(rounds), Duration::from_micros(250));
        bars.iter().filter(|bar| !bar.holds()).map(|bar| bar.what).collect()
    }

    #[test]
    fn each_bar_can_be_missed() {
        assert_eq!(missed(good()), Vec::<&str>::new());
        assert_eq!(judge(&Report::of(good()), Duration::from_micros(250)).len(), 10);
        let slow = |at: usize, per_second: f64| {
            let mut rounds = good();
            rounds[at].per_second = per_second;
            missed(rounds)
        };
        assert_eq!(slow(1, 9_900.0), ["puts by 64, of the baseline", "puts by 64, of etcd's"]);
        assert_eq!(slow(4, 30_000.0), ["gets by 64, of the baseline"]);
        assert_eq!(slow(5, 20_000.0), ["gets by 64, of etcd's"]);
        let mut rounds = good();
        rounds[1].p99_us = 20_001;
        rounds[7].p50_us = 661;
        rounds[4].server_cpu_s_per_100k = Some(2.51);
        rounds[1].leader_changes = 1;
        rounds[4].errors = 1;
        rounds[5].errors = 1;
        let expected = [
            "p99 of puts by 64 beside etcd's, ms",
            "p50 of a lone put, of fdatasync + baseline",
            "server cpu of 100k gets, s",
            "elections under load",
            "failed requests",
        ];
        assert_eq!(missed(rounds), expected);
    }

    #[test]
    fn without_etcd_only_the_baseline_is_compared_with() {
        let rounds: Vec<Figures> =
            good().into_iter().filter(|round| round.case.target != Kind::Etcd).collect();
        assert_eq!(judge(&Report::of(rounds), Duration::from_micros(250)).len(), 7);
    }
}
