//! `balsa failover-test`.

use super::args::FailoverArgs;
use super::output::Output;
use crate::failover::{self, Command, Failure, Plan, Processes};

/// Runs the test; an error is what a person should read, the table is printed before.
pub(super) async fn run(endpoints: &[&str], args: FailoverArgs, output: &Output) -> Result<(), String> {
    let mut processes = match args.processes {
        true => Some(start(&args).map_err(|failure| failure.0)?),
        false => None,
    };
    let endpoints = match &processes {
        Some(processes) => processes.endpoints(),
        None => endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect(),
    };
    let plan = Plan { strikes: args.kills, ..args.rate.plan(Plan::new(endpoints)) };
    let report = match &mut processes {
        Some(processes) => failover::run(&plan, processes).await,
        None => {
            let mut striker = Command::new(args.kill_command.unwrap_or_default());
            if let Some(heal) = args.heal_command {
                striker = striker.heal_by(heal);
            }
            failover::run(&plan, &mut striker).await
        }
    };
    let report = report.map_err(|failure| failure.0)?;
    output.report(&report);
    report.judge().map_err(|failure| failure.0)
}

/// Starts the nodes of `--processes`.
fn start(args: &FailoverArgs) -> Result<Processes, Failure> {
    let binary = args.node_binary.clone().unwrap_or_else(super::restore::node_binary);
    Processes::start(&binary, &args.data)
}
