//! `balsa bench`.

use super::args::{BenchArgs, Format};
use super::output::Output;
use crate::bench::{self, Baseline, HEADING, Kind, Load, Op, Plan, Target};

/// Runs the bench and prints its report; an error is what a person should read.
pub(super) async fn run(endpoints: &[&str], args: BenchArgs, output: &Output) -> Result<(), String> {
    let own = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let baseline = match args.baseline {
        true => Some(Baseline::start(&own).map_err(|failure| failure.0)?),
        false => None,
    };
    let mut targets: Vec<Target> = baseline.iter().map(Target::from).collect();
    targets.push(Target { kind: Kind::Balsa, endpoints: addresses(endpoints)?, pids: args.pid });
    if !args.etcd.is_empty() {
        let urls: Vec<&str> = args.etcd.iter().map(String::as_str).collect();
        targets.push(Target { kind: Kind::Etcd, endpoints: addresses(&urls)?, pids: args.etcd_pid });
    }
    let mut plan = Plan::new(targets);
    let ops = if args.op.is_empty() { vec![Op::Put, Op::Get] } else { args.op };
    let loads = args.connections.iter().flat_map(|count| ops.iter().map(|op| (*op, *count)));
    plan.loads = loads.map(|(op, connections)| Load { op, connections }).collect();
    plan.rounds = args.rounds;
    plan.warmup = args.warmup;
    plan.duration = args.duration;
    plan.keys = args.keys;
    plan.value_bytes = args.value_bytes;
    let tells = args.rounds > 1 && output.format() == Format::Text && output.progress_is_seen();
    if tells {
        output.aside(HEADING);
    }
    let beside = *output;
    let running = tokio::task::spawn_blocking(move || {
        bench::run(&plan, |figures| {
            if tells {
                beside.aside(&figures.to_string());
            }
        })
    });
    let report = running.await.map_err(|error| error.to_string())?.map_err(|failure| failure.0)?;
    drop(baseline);
    output.bench(&report);
    match report.errors() {
        0 => Ok(()),
        errors => Err(format!("{errors} requests failed")),
    }
}

/// `host:port` of each URL.
fn addresses(urls: &[&str]) -> Result<Vec<String>, String> {
    let address = |url: &&str| {
        let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        let whole = !address.is_empty() && !address.contains(['/', '@']) && address.contains(':');
        whole
            .then(|| address.to_owned())
            .ok_or_else(|| format!("`{url}` is not of the form http://HOST:PORT"))
    };
    urls.iter().map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_addresses() {
        let urls = ["http://a:1", "b:2", "http://[::1]:3/"];
        assert_eq!(addresses(&urls), Ok(vec!["a:1".to_owned(), "b:2".to_owned(), "[::1]:3".to_owned()]));
        for url in ["https://a:1", "a", "", "http://a:1/x", "u@a:1"] {
            assert!(addresses(&[url]).is_err(), "{url}");
        }
    }
}
