//! The bench: a closed loop of puts and gets against a cluster, beside what HTTP alone costs on this machine, and beside
//! etcd.
//!
//! Every target gets the same load (so many connections, spread evenly over its endpoints from the leader on, one request at a
//! time on each), and all are measured in one run, interleaved in rounds: what disturbs the machine disturbs all of them. What
//! counts are ratios between targets, by medians over the rounds.
//!
//! - `requests`: what is asked of each kind of server; `report`: figures, medians; both pure
//! - `connection`, `load`: the generator; on one thread, since it often shares its processors with the servers
//! - `cpu`, `leader`: what the servers spend meanwhile, who leads them, and whether that stays
//! - [`baseline`]: the server that does nothing
//!
//! Deliberately not here: a verdict. What is fast enough, the caller says.

pub mod baseline;
mod connection;
mod cpu;
mod leader;
mod load;
mod report;
mod requests;

pub use baseline::Baseline;
pub use report::{Case, Figures, HEADING, Report, median};
pub use requests::{Kind, Op};

use serde::Serialize;
use std::time::Duration;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom, in turn.
    pub targets: Vec<Target>,
    /// With what, in turn.
    pub loads: Vec<Load>,
    /// How often all of that.
    pub rounds: u32,
    /// How long each load runs before it counts.
    pub warmup: Duration,
    /// How long it counts.
    pub duration: Duration,
    /// How many keys there are.
    pub keys: usize,
    /// The size of values, in bytes of JSON.
    pub value_bytes: usize,
}

impl Plan {
    /// The load of the contract: puts and gets of 256 bytes on 10,000 keys by 64 connections.
    pub fn new(targets: Vec<Target>) -> Plan {
        Plan {
            targets,
            loads: vec![Load { op: Op::Put, connections: 64 }, Load { op: Op::Get, connections: 64 }],
            rounds: 1,
            warmup: Duration::from_secs(1),
            duration: Duration::from_secs(5),
            keys: 10_000,
            value_bytes: 256,
        }
    }
}

/// A load.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Load {
    /// What is done.
    pub op: Op,
    /// By how many connections at once.
    pub connections: usize,
}

/// Servers that are measured as one.
#[derive(Clone, Debug)]
pub struct Target {
    /// What they are.
    pub kind: Kind,
    /// Where they are, `host:port` each.
    pub endpoints: Vec<String>,
    /// Their processes, if those are on this machine and known.
    pub pids: Vec<u32>,
}

/// Why nothing was measured.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// Measures everything in `plan`, and tells each load's figures as soon as they are there. It blocks, and is not to be
/// called from within a runtime's worker: the generator has a runtime of its own, on this thread.
pub fn run(plan: &Plan, mut tell: impl FnMut(&Figures)) -> Result<Report, Failure> {
    if plan.keys == 0 || plan.loads.iter().any(|load| load.connections == 0) {
        return Err(Failure("a bench needs at least one key and one connection".to_owned()));
    }
    if let Some(nowhere) = plan.targets.iter().find(|target| target.endpoints.is_empty()) {
        return Err(Failure(format!("{} has no endpoint", nowhere.kind.name())));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure(format!("cannot start a runtime: {error}")))?;
    runtime.block_on(async {
        for target in plan.targets.iter().filter(|target| target.kind != Kind::Baseline) {
            load::fill(plan, target).await?;
        }
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            for load in &plan.loads {
                for target in &plan.targets {
                    let figures = measure(plan, target, *load).await?;
                    tell(&figures);
                    rounds.push(figures);
                }
            }
        }
        Ok(Report::of(rounds))
    })
}

async fn measure(plan: &Plan, target: &Target, load: Load) -> Result<Figures, Failure> {
    let before = leader::look(target).await?;
    let measured = load::run(plan, target, load, before.leader).await?;
    let after = leader::look(target).await?;
    let case = Case { load, target: target.kind };
    Ok(Figures::of(case, measured, after.term.saturating_sub(before.term)))
}
