//! The bars that run real processes, or on a real Kubernetes cluster: `acceptance crash-loop --quick`. The last line is
//! the verdict.

use balsa_tests::acceptance::verdict::{Verdict, conclude};
use balsa_tests::acceptance::{
    backup, bad_input, bench_ratio, crash_loop, docs, failover, k8s_account, k8s_chart, k8s_deploy,
    k8s_failover, k8s_heal, k8s_install, k8s_metrics, k8s_quorum_loss, k8s_scale, k8s_upgrade, leases,
    limping, locks, many_keys, membership, nemesis, openapi, overload, seed_curl, soak, watch,
};
use balsa_tests::failure::{Context, Failure, Outcome};
use balsa_tests::nemesis::clients::Rate;
use balsa_tests::nemesis::plan::Kind;
use balsa_tests::strike::How;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

/// The bars that run real processes.
///
/// The last line is the verdict. Exit codes: 0 PASS; 1 something went wrong; 3 nothing did, but a figure misses its bar, which a
/// machine that stalls can cause.
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
    /// Every command of the documentation, page by page, on a cluster of its own.
    Docs {
        /// End within a minute or so (this bar always does).
        #[arg(long)]
        quick: bool,
    },
    /// The document of the API against a node: its examples, and what schemathesis makes of it.
    Openapi {
        /// End within a minute: fewer requests.
        #[arg(long)]
        quick: bool,
        /// What requests are drawn from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
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
    /// The leader is killed (-9) again and again under load, and must be replaced in time.
    Failover {
        /// End within a minute: a quarter of the kills.
        #[arg(long)]
        quick: bool,
        /// How often the leader is killed.
        #[arg(long)]
        kills: Option<u32>,
    },
    /// The leader is told to stop (SIGTERM) again and again under load, and must hand over.
    Handover {
        /// End within a minute: a quarter of the stops.
        #[arg(long)]
        quick: bool,
        /// How often the leader is stopped.
        #[arg(long)]
        stops: Option<u32>,
    },
    /// A million keys: memory, disk, and how soon all are back after kill -9.
    MillionKeys {
        /// End within a minute: 50,000 keys.
        #[arg(long)]
        quick: bool,
        /// How many keys.
        #[arg(long)]
        keys: Option<u64>,
    },
    /// Ten million keys: speed compared with ten thousand, memory, and how soon all are back after kill -9.
    TenMillionKeys {
        /// End within a minute: 200,000 keys.
        #[arg(long)]
        quick: bool,
        /// How many keys.
        #[arg(long)]
        keys: Option<u64>,
    },
    /// From one node to five and back, again and again under load, with a wiped disk and a replaced node.
    Membership {
        /// End within a minute or so: once around.
        #[arg(long)]
        quick: bool,
        /// How often it goes around.
        #[arg(long)]
        rounds: Option<u32>,
    },
    /// All kinds of faults on real processes, each in a network namespace of its own; histories are judged. Needs root.
    Nemesis {
        /// End within a minute or so: most kinds of faults once, each for a short time.
        #[arg(long)]
        quick: bool,
        /// For how long.
        #[arg(long)]
        minutes: Option<u64>,
        /// What all is drawn from: the same seed gives the same faults in the same order.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only these kinds of faults, by commas; not given: all.
        #[arg(long, value_delimiter = ',', value_parser = kind)]
        only: Vec<Kind>,
        /// Operations a second that clients begin.
        #[arg(long, default_value_t = 2_000)]
        per_second: u32,
        /// Clients.
        #[arg(long, default_value_t = 48)]
        clients: usize,
        /// Keep all histories, also those in which nothing is wrong.
        #[arg(long)]
        keep: bool,
    },
    /// How fast puts and gets are, beside what HTTP alone costs and beside etcd, all in one run.
    ///
    /// Exit code 4: the machine is too slow or too busy for a verdict. `BALSA_ETCD` names etcd's binary where it is not
    /// on the PATH.
    BenchRatio {
        /// End within a minute: shorter loads, one round, without etcd where there is none; all figures, but only
        /// failed requests and elections fail it.
        #[arg(long)]
        quick: bool,
        /// How often everything is measured.
        #[arg(long)]
        rounds: Option<u32>,
    },
    /// Throughput with one follower dead, and with one whose disk stalls again and again.
    Limping {
        /// End within a minute: fewer and shorter rounds.
        #[arg(long)]
        quick: bool,
        /// Rounds.
        #[arg(long)]
        rounds: Option<u32>,
        /// Clients of the closed loop.
        #[arg(long, default_value_t = 16)]
        clients: usize,
    },
    /// Very many leases that are due at once do not stall writes; how late leases end.
    Leases {
        /// End within a minute: three times 40,000 leases.
        #[arg(long)]
        quick: bool,
        /// How many leases.
        #[arg(long)]
        leases: Option<u64>,
    },
    /// At twice the load that saturates, about as much is done, and who is turned away is told at once.
    Overload {
        /// End within a minute: 5 seconds of each load.
        #[arg(long)]
        quick: bool,
        /// Seconds of each load.
        #[arg(long)]
        seconds: Option<u64>,
    },
    /// How soon a lock is handed on, after a release and after a death.
    Locks {
        /// End within a minute: fewer handovers.
        #[arg(long)]
        quick: bool,
    },
    /// Overwrites of 10,000 keys: log, store and memory reach a plateau.
    Soak {
        /// End within a minute: nodes that keep less.
        #[arg(long)]
        quick: bool,
        /// For how long keys are overwritten, in seconds.
        #[arg(long)]
        duration: Option<u64>,
        /// Clients of the closed loop.
        #[arg(long, default_value_t = 8)]
        clients: usize,
    },
    /// Backups while the cluster serves: how long they take, what they cost puts, and what lives again.
    Backup {
        /// End within a minute: 50,000 keys.
        #[arg(long)]
        quick: bool,
        /// How many keys.
        #[arg(long)]
        keys: Option<u64>,
        /// How often puts are measured, beside a backup and without.
        #[arg(long)]
        rounds: Option<usize>,
    },
    /// How soon a change is heard, and what thousands of watchers cost.
    Watch {
        /// End within a minute: a fifth of the watchers, for a shorter time; how soon a lone watcher hears is not judged.
        #[arg(long)]
        quick: bool,
        /// Watchers on one node.
        #[arg(long)]
        watchers: Option<usize>,
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
    /// The chart lints, gives what is recorded, and is taken by the API server.
    K8sChart {
        /// End within a minute (this bar always does).
        #[arg(long)]
        quick: bool,
    },
    /// A node and the real API server: TLS, the account's rights, and an account that is replaced.
    K8sAccount {
        /// End within a minute (this bar always does).
        #[arg(long)]
        quick: bool,
    },
    /// The deploy tool's commands on a cluster that it rendered.
    K8sDeploy {
        /// End within two minutes or so (this bar always does).
        #[arg(long)]
        quick: bool,
    },
    /// `helm install` to three ready voters in time, curl through port-forwards, `helm test`.
    K8sInstall {
        /// End within a minute or so: one strike of `helm test`.
        #[arg(long)]
        quick: bool,
    },
    /// Metrics, alerts and dashboard against a real Prometheus and a living cluster.
    K8sMetrics {
        /// End within a minute (this bar always does).
        #[arg(long)]
        quick: bool,
    },
    /// `kubectl scale` up and down under load, also onto kept volumes, and to nothing and back.
    K8sScale {
        /// End within two minutes or so: once up and down.
        #[arg(long)]
        quick: bool,
    },
    /// Pods, volumes and nodes are lost under load, and nobody lifts a hand.
    K8sHeal {
        /// End within two minutes or so: lost volumes only.
        #[arg(long)]
        quick: bool,
    },
    /// Two of three members and their volumes are lost: who says so, and what `recover` saves.
    K8sQuorumLoss {
        /// End within two minutes or so: without the alert.
        #[arg(long)]
        quick: bool,
    },
    /// A rolling restart and upgrades under load, at last to a higher feature level.
    K8sUpgrade {
        /// End within a minute or so: the upgrade to another image alone.
        #[arg(long)]
        quick: bool,
    },
    /// The leader is killed and its Pod deleted by force, under load.
    K8sFailover {
        /// End within a minute or so: two of each.
        #[arg(long)]
        quick: bool,
        /// How often its process is killed.
        #[arg(long)]
        kills: Option<u32>,
        /// How often its Pod is deleted.
        #[arg(long)]
        deletions: Option<u32>,
    },
}

fn main() -> ExitCode {
    match Args::parse().bar {
        Bar::SeedCurl { quick: _ } => conclude("seed-curl", run(seed_curl::run())),
        Bar::Docs { quick: _ } => conclude("docs", run(docs::run())),
        Bar::Openapi { quick, seed } => {
            let (examples, time) = if quick { (10, 25) } else { (100, 300) };
            let options = openapi::Options { examples, time: Duration::from_secs(time), seed };
            conclude("openapi", run(openapi::run(&options)))
        }
        Bar::CrashLoop { quick, kills, per_second, seed } => {
            let kills = kills.unwrap_or(if quick { 10 } else { 100 });
            conclude("crash-loop", run(crash_loop::run(&crash_loop::Options { kills, per_second, seed })))
        }
        Bar::Failover { quick, kills } => conclude("failover", strike(How::Kill, quick, kills)),
        Bar::Handover { quick, stops } => conclude("handover", strike(How::Terminate, quick, stops)),
        Bar::MillionKeys { quick, keys } => {
            let keys = keys.unwrap_or(if quick { 50_000 } else { 1_000_000 });
            conclude("million-keys", run(many_keys::million(keys)))
        }
        Bar::TenMillionKeys { quick, keys } => {
            let keys = keys.unwrap_or(if quick { 200_000 } else { 10_000_000 });
            let burst = Duration::from_secs(if quick { 1 } else { 5 });
            conclude("ten-million-keys", run(many_keys::ten_million(keys, burst)))
        }
        Bar::Membership { quick, rounds } => {
            let rounds = rounds.unwrap_or(if quick { 1 } else { 3 });
            let load = membership::Load::default();
            conclude("membership", run(membership::run(&membership::Options { rounds, load })))
        }
        Bar::Nemesis { quick, minutes, seed, only, per_second, clients, keep } => {
            let minutes = minutes.unwrap_or(if quick { 1 } else { nemesis::MINUTES });
            let operations_least = if minutes < nemesis::MINUTES { 0 } else { nemesis::OPERATIONS };
            let options = nemesis::Options {
                duration: Duration::from_secs(minutes * 60),
                hold_ms: if quick { (200, 1_000) } else { (1_000, 6_000) },
                seed,
                kinds: if only.is_empty() { Kind::ALL.to_vec() } else { only },
                rate: Rate { clients, per_second },
                keep,
                operations_least,
            };
            conclude("nemesis", run(nemesis::run(&options)))
        }
        Bar::BenchRatio { quick, rounds } => bench_ratio::run(&bench_ratio::Options {
            quick,
            rounds: rounds.unwrap_or(if quick { 1 } else { 5 }),
        }),
        Bar::Limping { quick, rounds, clients } => {
            let rounds = rounds.unwrap_or(if quick { 2 } else { 5 });
            let span = Duration::from_secs(if quick { 3 } else { 8 });
            conclude("limping", run(limping::run(&limping::Options { rounds, span, clients })))
        }
        Bar::Leases { quick, leases } => {
            let leases = leases.unwrap_or(if quick { 40_000 } else { 1_000_000 });
            let (calm, rounds) = (Duration::from_secs(if quick { 4 } else { 15 }), if quick { 3 } else { 1 });
            conclude("leases", run(leases::run(&leases::Options { leases, calm, rounds })))
        }
        Bar::Overload { quick, seconds } => {
            let span = Duration::from_secs(seconds.unwrap_or(if quick { 5 } else { 20 }));
            conclude("overload", run(overload::run(&overload::Options { span })))
        }
        Bar::Locks { quick } => {
            let (handovers, deaths) = if quick { (30, 2) } else { (200, 9) };
            conclude("locks", run(locks::run(&locks::Options { handovers, deaths })))
        }
        Bar::Soak { quick, duration, clients } => {
            let duration = Duration::from_secs(duration.unwrap_or(if quick { 45 } else { 1_200 }));
            conclude("soak", run(soak::run(&soak::Options { duration, clients, small: quick })))
        }
        Bar::Backup { quick, keys, rounds } => {
            let keys = keys.unwrap_or(if quick { 50_000 } else { 1_000_000 });
            let span = Duration::from_secs(if quick { 3 } else { 5 });
            let options = backup::Options { keys, rounds: rounds.unwrap_or(3), span };
            conclude("backup", run(backup::run(&options)))
        }
        Bar::K8sChart { quick: _ } => conclude("k8s-chart", run(k8s_chart::run())),
        Bar::K8sAccount { quick: _ } => conclude("k8s-account", run(k8s_account::run())),
        Bar::K8sDeploy { quick: _ } => conclude("k8s-deploy", run(k8s_deploy::run())),
        Bar::K8sInstall { quick } => conclude("k8s-install", run(k8s_install::run(quick))),
        Bar::K8sMetrics { quick: _ } => conclude("k8s-metrics", run(k8s_metrics::run())),
        Bar::K8sScale { quick } => conclude("k8s-scale", run(k8s_scale::run(quick))),
        Bar::K8sHeal { quick } => conclude("k8s-heal", run(k8s_heal::run(quick))),
        Bar::K8sQuorumLoss { quick } => conclude("k8s-quorum-loss", run(k8s_quorum_loss::run(quick))),
        Bar::K8sUpgrade { quick } => conclude("k8s-upgrade", run(k8s_upgrade::run(quick))),
        Bar::K8sFailover { quick, kills, deletions } => {
            let each = if quick { 2 } else { 10 };
            let (kills, deletions) = (kills.unwrap_or(each), deletions.unwrap_or(each));
            let options = k8s_failover::Options { kills, deletions };
            conclude("k8s-failover", run(k8s_failover::run(&options)))
        }
        Bar::Watch { quick, watchers } => {
            let watchers = watchers.unwrap_or(if quick { 2_000 } else { 10_000 });
            let time = Duration::from_secs(if quick { 10 } else { 60 });
            conclude("watch", run(watch::run(&watch::Options { watchers, time, judges_alone: !quick })))
        }
        Bar::BadInput { quick, connections } => {
            let rounds = if quick { 10 } else { 100 };
            conclude("bad-input", run(bad_input::run(&bad_input::Options { rounds, connections })))
        }
    }
}

fn kind(name: &str) -> Result<Kind, Failure> {
    Kind::named(name).ok_or_else(|| {
        let all: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        Failure(format!("there are {}", all.join(", ")))
    })
}

fn strike(how: How, quick: bool, strikes: Option<u32>) -> Outcome<Verdict> {
    let strikes = strikes.unwrap_or(if quick { 5 } else { 20 });
    run(failover::run(&failover::Options { how, strikes }))
}

fn run<V>(bar: impl Future<Output = Outcome<V>>) -> Outcome<V> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("start a runtime")?.block_on(bar)
}
