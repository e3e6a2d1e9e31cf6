//! `failover` and `handover`: the client crate's failover test, many strikes on the leader under its load.
//!
//! No acknowledged write is lost, none is applied twice, no operation fails within its deadline, and the time without a
//! write after a strike stays within the bar.

use super::disk;
use super::verdict::{Verdict, miss};
use crate::cluster::Cluster;
use crate::failure::{Context, Outcome, ensure};
use crate::strike::{How, Strikes, plan};
use balsa_client::failover::{self, Plan, Report};
use std::time::Duration;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How the leader is struck.
    pub how: How,
    /// How often.
    pub strikes: u32,
}

const NODES: usize = 3;
/// Bounds of the time without a write after kill -9: of the median, and of each.
const KILL_GAP_MEDIAN_MAX: Duration = Duration::from_millis(400);
const KILL_GAP_MAX: Duration = Duration::from_millis(1_500);
/// The same after SIGTERM.
const TERMINATE_GAP_MAX: Duration = Duration::from_millis(100);

/// Runs the bar; gives its figures.
pub async fn run(options: &Options) -> Outcome<Verdict> {
    disk::require_real()?;
    let mut cluster = Cluster::start(NODES, &[]).await?;
    let plan = Plan { strikes: options.strikes, ..plan(&cluster) };
    let outcome = strike_and_judge(&mut cluster, &plan, options.how).await;
    cluster.explain(outcome)
}

async fn strike_and_judge(cluster: &mut Cluster, plan: &Plan, how: How) -> Outcome<Verdict> {
    println!(
        "{NODES} nodes, {} writes/s and {} reads/s by {} clients, {} strikes",
        plan.writes_per_second, plan.reads_per_second, plan.clients, plan.strikes
    );
    let report = failover::run(plan, &mut Strikes::new(cluster, how)).await;
    let report = report.context("finish the failover test")?;
    println!("{report}");
    let each: Vec<String> = report.gaps.iter().map(|gap| gap.as_millis().to_string()).collect();
    println!("gaps after each strike, in ms: {}", each.join(" "));
    let (index, digest) = cluster.wait_until_digests_agree().await?;
    println!("all nodes are at index {index} with digest {digest}");
    ensure_unharmed(&report)?;
    Ok(judge(&report, how))
}

/// Nothing was lost, nothing applied twice, and no operation failed within its deadline.
pub(super) fn ensure_unharmed(report: &Report) -> Outcome<()> {
    let violations = report.violations();
    ensure(violations.is_empty(), || {
        let first = violations.first().copied().unwrap_or_default();
        format!("{} violations; the first: {first}", violations.len())
    })?;
    ensure(report.errors() == 0, || {
        let first = report.first_errors.first().map_or("", String::as_str);
        format!("{} operations failed; the first: {first}", report.errors())
    })
}

fn judge(report: &Report, how: How) -> Verdict {
    let (median_max, longest_max) = match how {
        How::Kill => (KILL_GAP_MEDIAN_MAX, KILL_GAP_MAX),
        How::Terminate => (TERMINATE_GAP_MAX, TERMINATE_GAP_MAX),
    };
    let (median, longest) = (report.gap_median(), report.gap_longest);
    let figures = format!(
        "{} strikes, {} writes, 0 lost, 0 twice, 0 errors, gap median {} ms, longest {} ms, longest operation {} ms",
        report.gaps.len(),
        report.writes.ok,
        median.as_millis(),
        longest.as_millis(),
        report.operation_longest.as_millis()
    );
    Verdict::of(
        figures,
        [
            miss(median <= median_max, || format!("the median gap is beyond {} ms", median_max.as_millis())),
            miss(longest <= longest_max, || {
                format!("the longest gap is beyond {} ms", longest_max.as_millis())
            }),
        ],
    )
}
