//! The bars that run real processes: `acceptance crash-loop --quick`. The last line is the verdict.

use balsa_tests::acceptance::verdict::conclude;
use balsa_tests::acceptance::{bad_input, crash_loop, seed_curl};
use balsa_tests::failure::{Context, Outcome};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The bars that run real processes.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    bar: Bar,
}

#[derive(Subcommand)]
enum Bar {
    /// The README's curl lines against each node of a dev cluster, before and after a restart.
    SeedCurl {
        /// End within a minute (this bar always does).
        #[arg(long)]
        quick: bool,
    },
    /// kill -9 of random nodes under writes.
    CrashLoop {
        /// End within a minute: a tenth of the kills.
        #[arg(long)]
        quick: bool,
        /// How often nodes are killed.
        #[arg(long)]
        kills: Option<u64>,
        /// Writes a second.
        #[arg(long, default_value_t = 200)]
        per_second: u64,
        /// Chooses whom and when.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// What no client should send.
    BadInput {
        /// End within a minute: fewer repetitions.
        #[arg(long)]
        quick: bool,
        /// Idle connections held open at once.
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
    },
}

fn main() -> ExitCode {
    match Args::parse().bar {
        Bar::SeedCurl { quick: _ } => conclude("seed-curl", &run(seed_curl::run())),
        Bar::CrashLoop { quick, kills, per_second, seed } => {
            let kills = kills.unwrap_or(if quick { 10 } else { 100 });
            conclude("crash-loop", &run(crash_loop::run(&crash_loop::Options { kills, per_second, seed })))
        }
        Bar::BadInput { quick, connections } => {
            let rounds = if quick { 10 } else { 100 };
            conclude("bad-input", &run(bad_input::run(&bad_input::Options { rounds, connections })))
        }
    }
}

fn run(bar: impl Future<Output = Outcome<String>>) -> Outcome<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("start a runtime")?.block_on(bar)
}
