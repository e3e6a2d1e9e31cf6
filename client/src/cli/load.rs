//! `balsa load`.

use super::args::LoadArgs;
use super::output::Output;
use crate::Client;
use crate::failover::{self, Plan};
use std::time::{Duration, Instant};

/// How often the key that ends the load is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Loads until told to end; an error is what a person should read, the report is printed before.
pub(super) async fn run(
    endpoints: &[&str],
    client: &Client,
    args: LoadArgs,
    output: &Output,
) -> Result<(), String> {
    let named = args.rate.plan(Plan::new(endpoints.iter().copied()));
    let plan = Plan { prefix: named.prefix.replacen("failover-test", "load", 1), ..named };
    let report = failover::under_load(&plan, async || {
        let since = Instant::now();
        tokio::select! {
            () = after(args.duration) => {}
            () = there(client, args.until.as_deref()) => {}
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(|error| failover::Failure(error.to_string()))?,
        }
        Ok(vec![since])
    });
    let report = report.await.map_err(|failure| failure.0)?;
    output.report(&report);
    report.judge().map_err(|failure| failure.0)
}

async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn there(client: &Client, key: Option<&str>) {
    let Some(key) = key else { return std::future::pending().await };
    while !matches!(client.get(key).await, Ok(Some(_))) {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
