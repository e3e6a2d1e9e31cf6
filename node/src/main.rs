//! The server binary: `balsa-node serve` runs a node, `balsa-node dev` a cluster on this machine; the rest is for
//! Kubernetes and for repair.

use balsa_node::config::{Config, LogFormat, ServeArgs, Settings};
use balsa_node::dev::{self, DevArgs};
use balsa_node::kubernetes::pre_stop;
use balsa_node::repair::{self, Incoming, RepairError};
use balsa_node::server;
use balsa_wire::repair::RecoveryLook;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Most of what is allocated on one thread is freed on another, which the system's allocator makes dear: it gives memory
/// back to the kernel and takes it again all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A node of Balsa, a strongly consistent, replicated key-value store that you can operate with curl.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one node
    Serve(Box<ServeArgs>),
    /// What Kubernetes runs before it stops a Pod: waits until the member is removed, if its Pod was scaled in
    PreStop(Box<ServeArgs>),
    /// Quorum lost for good: make a new cluster of what this data folder holds
    Recover {
        #[command(flatten)]
        repair: RepairArgs,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
        /// The new cluster's id, 16 hexadecimal digits; nothing: a random one. For tools that record it before anything is done
        #[arg(long, value_name = "ID", value_parser = parse_cluster)]
        new_cluster: Option<u64>,
    },
    /// Make a new cluster of one of a backup, in a blank data folder
    Restore(RestoreArgs),
    /// Give up what this data folder holds, and keep it aside: its node starts as a blank one
    SetAside(RepairArgs),
    /// Delete what recover, set-aside and removals kept aside in a data folder; its node may run
    ClearAside(ClearArgs),
    /// Run a cluster of nodes on this machine, each a process of its own
    Dev(DevArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve(*args),
        Command::PreStop(args) => pre_stop(*args),
        Command::Recover { repair, json, new_cluster } => recover(repair, json, new_cluster),
        Command::Restore(args) => restore(args),
        Command::SetAside(args) => set_aside(&args),
        Command::ClearAside(args) => clear_aside(&args),
        Command::Dev(args) => run(1, dev::run(args, terminated())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("balsa-node: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: ServeArgs) -> Result<(), String> {
    let config = args.load().map_err(|error| error.to_string())?;
    start_logging(&config)?;
    let threads = config.door_threads().max(1);
    run(threads, async { server::serve(config, terminated()).await.map_err(|error| error.to_string()) })
}

fn pre_stop(args: ServeArgs) -> Result<(), String> {
    let config = args.load().map_err(|error| error.to_string())?;
    run(1, async {
        let released = pre_stop::wait(&config).await?;
        eprintln!("balsa-node: the Pod may stop: {released}");
        Ok(())
    })
}

/// What repair works on.
#[derive(Args)]
struct RepairArgs {
    /// The data folder; no process may run on it
    #[arg(long, env = "BALSA_DATA", value_name = "DIR", default_value = "balsa-data")]
    data: PathBuf,
    /// Do it; without this, it only says what it would do
    #[arg(long)]
    yes: bool,
    /// Write what comes of it to this file, too, also where it fails: for a Pod's termination message
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn parse_cluster(text: &str) -> Result<u64, String> {
    match u64::from_str_radix(text, 16) {
        Ok(id) if id > 0 && text.len() == 16 => Ok(id),
        _ => Err("it takes 16 hexadecimal digits, and not only zeros".to_owned()),
    }
}

fn recover(args: RepairArgs, json: bool, new_cluster: Option<u64>) -> Result<(), String> {
    let config = Config::from_settings(Settings { data: Some(args.data), ..Settings::default() });
    let recovery = repair::recover(&config, args.yes, new_cluster);
    let said = match (json, args.yes) {
        (false, _) => recovery.map(|recovery| recovery.to_string()).map_err(|error| error.to_string()),
        (true, true) => {
            recovery.map_err(|error| error.to_string()).and_then(|recovery| to_json(&recovery.to_answer()))
        }
        (true, false) => match recovery {
            Ok(recovery) => to_json(&RecoveryLook::Member(recovery.to_answer())),
            Err(RepairError::Begun(left)) => to_json(&RecoveryLook::Begun(left.to_answer())),
            Err(RepairError::Restoring) => to_json(&RecoveryLook::Restoring),
            Err(error @ RepairError::Nothing(_)) => {
                to_json(&RecoveryLook::Nothing { why: error.to_string() })
            }
            Err(error) => Err(error.to_string()),
        },
    };
    tell(said, args.report.as_deref())
}

fn to_json(said: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(said).map_err(|error| error.to_string())
}

/// What is restored, and where.
#[derive(Args)]
struct RestoreArgs {
    /// The backup, as `balsa backup` wrote it; `-`: from standard input. All of it is checked first
    file: PathBuf,
    #[command(flatten)]
    repair: RepairArgs,
    /// The slot that the node is to be started with
    #[arg(long, env = "BALSA_SLOT", value_name = "N", default_value_t = 0)]
    slot: u32,
    /// Where clients will reach the node
    #[arg(long, env = "BALSA_ADVERTISE", value_name = "HOST:PORT", default_value = "127.0.0.1:3000")]
    advertise: String,
    /// Where peers will reach the node: others that join go by this
    #[arg(long, env = "BALSA_PEER_ADVERTISE", value_name = "HOST:PORT", default_value = "127.0.0.1:3300")]
    peer_advertise: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

fn restore(args: RestoreArgs) -> Result<(), String> {
    let settings = Settings {
        data: Some(args.repair.data),
        slot: Some(args.slot),
        advertise: Some(args.advertise),
        peer_advertise: Some(args.peer_advertise),
        ..Settings::default()
    };
    let config = Config::from_settings(settings);
    let restored = match args.file.as_os_str() == "-" {
        true => Incoming::take(&mut std::io::stdin().lock(), &config)
            .and_then(|incoming| repair::restore(&config, incoming.path(), args.repair.yes)),
        false => repair::restore(&config, &args.file, args.repair.yes),
    };
    let said = restored.map_err(|error| error.to_string()).and_then(|restored| match args.json {
        true => to_json(&restored.to_answer()),
        false => Ok(restored.to_string()),
    });
    tell(said, args.repair.report.as_deref())
}

fn set_aside(args: &RepairArgs) -> Result<(), String> {
    let kept = repair::set_aside(&args.data, args.yes).map_err(|error| error.to_string());
    let said = kept.map(|kept| match (kept, args.yes) {
        (None, _) => format!("{} is blank", args.data.display()),
        (Some(kept), true) => format!("what was there is in {}", kept.display()),
        (Some(kept), false) => {
            format!("it would go to {}; nothing was done: say --yes to do it", kept.display())
        }
    });
    tell(said, args.report.as_deref())
}

/// What is deleted for good.
#[derive(Args)]
struct ClearArgs {
    /// The data folder
    #[arg(long, env = "BALSA_DATA", value_name = "DIR", default_value = "balsa-data")]
    data: PathBuf,
    /// Do it; without this, it only says what it would delete
    #[arg(long)]
    yes: bool,
}

fn clear_aside(args: &ClearArgs) -> Result<(), String> {
    let kept = repair::clear_aside(&args.data, args.yes).map_err(|error| error.to_string())?;
    for kept in &kept {
        println!("{}{}", if args.yes { "deleted " } else { "" }, kept.display());
    }
    match (kept.is_empty(), args.yes) {
        (true, _) => println!("nothing is kept aside in {}", args.data.display()),
        (false, true) => {}
        (false, false) => println!("nothing was done: say --yes to delete it for good"),
    }
    Ok(())
}

/// Prints what came of a repair, and writes it to the file where it is to be reported.
fn tell(said: Result<String, String>, report: Option<&Path>) -> Result<(), String> {
    if let Some(report) = report {
        let text = said.as_ref().unwrap_or_else(|why| why);
        std::fs::write(report, text).map_err(|error| {
            format!("{}: {error}; what was to be reported there: {text}", report.display())
        })?;
    }
    println!("{}", said?);
    Ok(())
}

fn start_logging(config: &Config) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.log_filter).map_err(|error| {
        format!("log_filter is {}: {error}; it takes LEVEL or MODULE=LEVEL, by commas", config.log_filter)
    })?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

fn run(threads: usize, future: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.map_err(|error| format!("the system refuses threads: {error}"))?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_background(); // what still runs serves nobody any more
    outcome
}

/// Resolves at SIGTERM or SIGINT.
async fn terminated() {
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}
