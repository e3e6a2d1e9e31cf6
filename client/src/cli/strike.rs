//! `balsa failover-test`.

use super::args::FailoverArgs;
use super::output::Output;
use crate::failover::{self, Command, Plan};

/// Runs the test; an error is what a person should read, the table is printed before.
pub(super) async fn run(endpoints: &[&str], args: FailoverArgs, output: &Output) -> Result<(), String> {
    let plan = Plan {
        clients: args.clients,
        writes_per_second: args.writes_per_second,
        reads_per_second: args.reads_per_second,
        timeout: args.operation_timeout,
        strikes: args.kills,
        ..Plan::new(endpoints.iter().copied())
    };
    let mut striker = Command::new(args.kill_command);
    if let Some(heal) = args.heal_command {
        striker = striker.heal_by(heal);
    }
    let report = failover::run(&plan, &mut striker).await.map_err(|failure| failure.0)?;
    output.report(&report);
    match (report.violations().len(), report.errors()) {
        (0, 0) => Ok(()),
        (0, errors) => Err(format!("{errors} operations failed before their deadline was over")),
        (violations, _) => Err(format!("{violations} violations of what was promised")),
    }
}
