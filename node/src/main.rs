//! The server binary: `balsa-node serve` runs a node, `balsa-node dev` a cluster on this machine.

use balsa_node::config::{Config, LogFormat, ServeArgs};
use balsa_node::dev::{self, DevArgs};
use balsa_node::server;
use clap::{Parser, Subcommand};
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
    /// Run a cluster of nodes on this machine, each a process of its own
    Dev(DevArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve(*args),
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
