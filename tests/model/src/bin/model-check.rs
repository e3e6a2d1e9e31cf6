//! The bar `model-check`: the small bounds to the end, the large ones as far as time allows.

use balsa_model::bounds;
use balsa_model::search::{End, Limits, Report, search};
use balsa_model::world::{Bounds, Model};
use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;

/// The real core in every order of events within bounds.
#[derive(Parser)]
struct Args {
    /// End within two minutes: the small bounds, and a look at each of the large ones
    #[arg(long)]
    quick: bool,
    /// Minutes for the large bounds, all together
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Only look for a violation, in all bounds in turn and within --minutes: no number of states is asked for
    #[arg(long)]
    hunt: bool,
    /// Only the bounds of this name
    #[arg(long)]
    only: Option<String>,
    /// Stop a search at this many states: each takes about 30 bytes, and while it waits 80 more
    #[arg(long, default_value_t = 60_000_000)]
    states_max: usize,
}

/// Distinct states that the large bounds must give in a full run.
const STATES_MIN: usize = 20_000_000;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(figures) => {
            println!("model-check: PASS {figures}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("model-check: FAIL {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<String, String> {
    // A panic of the core is an answer here, not an accident.
    std::panic::set_hook(Box::new(|_| {}));
    if args.hunt {
        return hunt(args);
    }
    let wanted = |bounds: &Bounds| args.only.as_ref().is_none_or(|name| name == bounds.name);
    let (mut whole, mut part) = (0, 0);
    // The last of the small ones takes minutes.
    let small = bounds::small();
    let count = if args.quick { small.len() - 1 } else { small.len() };
    for bounds in small.into_iter().take(count).filter(wanted) {
        let time = Duration::from_secs(if args.quick { 60 } else { 1_200 });
        let name = bounds.name;
        let report = look(bounds, Limits { states: args.states_max, time })?;
        if report.end != End::Fixpoint {
            return Err(format!("{name}: no fixpoint after {} states", report.states));
        }
        whole += report.states;
    }
    let large: Vec<Bounds> = bounds::large().into_iter().filter(wanted).collect();
    let time = Duration::from_secs(if args.quick { 30 } else { 60 * args.minutes });
    for bounds in &large {
        let limits = Limits { states: args.states_max, time: time / large.len() as u32 };
        part += look(bounds.clone(), limits)?.states;
    }
    if part < STATES_MIN && !args.quick && args.only.is_none() {
        return Err(format!("{part} distinct states of the large bounds, fewer than {STATES_MIN}"));
    }
    Ok(format!(
        "{whole} distinct states to the fixpoint of the small bounds, {part} of the large ones, 0 violations"
    ))
}

fn hunt(args: &Args) -> Result<String, String> {
    let all: Vec<Bounds> = bounds::small().into_iter().chain(bounds::large()).collect();
    let time = Duration::from_secs(60 * args.minutes) / all.len() as u32;
    let mut states = 0;
    for bounds in all {
        states += look(bounds, Limits { states: args.states_max, time })?.states;
    }
    Ok(format!("nothing found in {states} states"))
}

fn look(bounds: Bounds, limits: Limits) -> Result<Report, String> {
    println!("{}: {}", bounds.name, bounds.about);
    let name = bounds.name;
    let mut model = Model::new(bounds);
    let report = search(&mut model, limits, |line| println!("  {line}"));
    let [sites, messages, sets, truths] = model.sizes();
    let end = match &report.end {
        End::Fixpoint => "all there are",
        End::Limit => "then the limit",
        End::Broken { .. } => "then a violation",
    };
    println!(
        "  {} distinct states, {end}; depth {}, {} steps in {:.1?}; {sites} different nodes, {messages} messages, {sets} \
         sets of messages, {truths} truths",
        report.states, report.depth, report.steps, report.took
    );
    if let End::Broken { why, way } = &report.end {
        for line in way {
            println!("  {line}");
        }
        return Err(format!("{name}: {why}"));
    }
    Ok(report)
}
