//! Runs simulated hours: `simulate --hours 20`. A failing hour prints the seed that replays it.

use balsa_tests::sim::{Options, Report, SECOND, run_hour};
use clap::Parser;
use std::cell::Cell;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

/// Simulates clusters of the production node under faults, an hour a seed.
#[derive(Parser)]
struct Args {
    /// How many hours; each has a seed of its own.
    #[arg(long, default_value_t = 20)]
    hours: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Simulated seconds of an hour.
    #[arg(long, default_value_t = 3_600)]
    seconds: u64,
    /// Nodes of each cluster; left out: as the seed has it.
    #[arg(long)]
    nodes: Option<usize>,
    /// Run each seed twice and compare the traces.
    #[arg(long)]
    twice: bool,
    /// Fail if it takes longer than this, in seconds of real time.
    #[arg(long)]
    wall_seconds_max: Option<u64>,
    /// Print the timeline of each hour (one hour: `--hours 1 --seed N --timeline`).
    #[arg(long)]
    timeline: bool,
    /// Threads; 0: one a core.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Operations that an hour must have, to count.
    #[arg(long, default_value_t = 10_000)]
    min_operations: u64,
    /// Faults that an hour must have, to count.
    #[arg(long, default_value_t = 50)]
    min_faults: u64,
    /// How often each situation and fault of the coverage table must have occurred over all hours.
    #[arg(long, default_value_t = 0)]
    min_coverage: u64,
    /// Stop at the first violation.
    #[arg(long)]
    first: bool,
}

thread_local! {
    /// What this thread runs.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A node that panics may take the process with it: at least the seed is known.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("seed {} panics", SEED.get());
        hook(panic);
    }));
    let started = Instant::now();
    let options = Options { length: args.seconds * SECOND, keep_lines: args.timeline, nodes: args.nodes };
    let next = AtomicU64::new(args.seed);
    let end = args.seed + args.hours;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = if args.jobs == 0 { cores } else { args.jobs };
    let mut total = Report::default();
    let (mut violations, mut differing, mut thin) = (0, 0, 0);
    std::thread::scope(|scope| {
        let (sender, reports) = mpsc::channel();
        for _ in 0..jobs {
            let (sender, next, options) = (sender.clone(), &next, &options);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    SEED.set(seed);
                    let report = run_hour(seed, options);
                    let again = args.twice.then(|| run_hour(seed, options));
                    if sender.send((report, again)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (report, again) in reports {
            for line in &report.timeline {
                print!("{line}");
            }
            println!("{report}");
            violations += u64::from(report.violation.is_some());
            if report.violation.is_some() {
                println!("  replay: {}", replay(&args, report.seed));
                if args.first {
                    next.store(end, Ordering::Relaxed);
                }
            }
            let (few_operations, few_faults) =
                (report.operations < args.min_operations, report.faults_total() < args.min_faults);
            if report.violation.is_none() && (few_operations || few_faults) {
                thin += 1;
                println!("  too thin to count");
            }
            if let Some(again) = again.filter(|again| again.trace != report.trace) {
                differing += 1;
                println!("  NOT DETERMINISTIC: again, the trace is {:032x}", again.trace);
            }
            total.add(&report);
        }
    });
    print!("{}", total.coverage());
    let rare = total.rarer_than(args.min_coverage);
    if !rare.is_empty() {
        println!("  less than {} times: {}", args.min_coverage, rare.join(", "));
    }
    let took = started.elapsed();
    let late = args.wall_seconds_max.is_some_and(|most| took.as_secs() > most);
    let right = violations + differing + thin == 0 && !late && rare.is_empty();
    let again =
        if args.twice { format!(", {differing} seeds that differ when run again") } else { String::new() };
    println!(
        "simulate: {} {} hours, {} operations, {} faults, {violations} violations, {thin} too thin, {} situations too rare{again}, {:.1} s on {jobs} threads{}",
        if right { "PASS" } else { "FAIL" },
        args.hours,
        total.operations,
        total.faults_total(),
        rare.len(),
        took.as_secs_f64(),
        if late { ": too long" } else { "" },
    );
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The line that runs one seed again, with its timeline.
fn replay(args: &Args, seed: u64) -> String {
    let nodes = args.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
    format!(
        "cargo run --release -p balsa-tests --bin simulate -- --hours 1 --seed {seed} --seconds {}{nodes} --timeline",
        args.seconds
    )
}
