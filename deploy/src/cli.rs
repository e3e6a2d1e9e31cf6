//! The command line: `balsa-deploy status`, or `kubectl balsa status`.

use crate::context::Context;
use crate::progress::Progress;
use crate::status::{Severity, diagnose};
use crate::{Failure, Outcome, backup, failover, recover, render, restore, scale, upgrade};
use balsa_wire::backup::BackupAnswer;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Looks after a Balsa cluster on Kubernetes.
#[derive(Parser, Debug)]
#[command(version, about, name = "balsa-deploy")]
pub struct Args {
    /// The context of the kubeconfig; nothing: the current one, or this Pod's own account
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The namespace; nothing: the context's
    #[arg(long, short, global = true)]
    pub namespace: Option<String>,
    /// The name of the StatefulSet
    #[arg(long, global = true, default_value = "balsa")]
    pub name: String,
    /// The port on which the nodes serve clients
    #[arg(long, global = true, default_value_t = 3000)]
    pub port: u16,
    /// How long to wait for each step, in seconds
    #[arg(long, global = true, default_value_t = 300, value_name = "SECONDS")]
    pub timeout: u64,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Print the chart's objects, for `kubectl apply -f -`
    Render(render::Args),
    /// Members, roles, lag, versions, volumes; what is wrong, and what to do next. Exit code 1: something is critical
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Change the number of replicas, and wait until the members have followed
    Scale {
        /// How many
        replicas: u32,
    },
    /// Change the node's image: one Pod at a time, the leader last
    Upgrade {
        /// The image
        image: String,
    },
    /// Delete the leader's Pod under load, again and again: nothing may be lost, and nobody may notice
    FailoverTest {
        /// Where the nodes serve clients, by commas; nothing: as the members say
        #[arg(long, value_delimiter = ',', value_name = "URLS")]
        endpoints: Vec<String>,
        /// How often
        #[arg(long, default_value_t = 1)]
        kills: u32,
        /// Without any grace
        #[arg(long)]
        force: bool,
        /// Writes a second, and reads a second
        #[arg(long, default_value_t = 200)]
        per_second: u32,
    },
    /// Keep all that the cluster holds now in a file on this machine, there only once it is whole
    Backup {
        /// The file
        file: PathBuf,
    },
    /// Make a cluster of a backup, in an installation that sleeps and whose volumes hold nothing
    Restore {
        /// The backup, as `backup` or `balsa backup` wrote it
        file: PathBuf,
        /// Do it; without this, it only checks the backup and says what it would do
        #[arg(long)]
        yes: bool,
        /// How many replicas there are to be then; nothing: as many as the chart has found a cluster
        #[arg(long)]
        replicas: Option<u32>,
    },
    /// Quorum lost for good: what can be saved; with --yes, save it
    Recover {
        /// Do it: stops all Pods, and gives up what only the lost members have
        #[arg(long)]
        yes: bool,
        /// How many replicas there are to be then; nothing: as many as now
        #[arg(long)]
        replicas: Option<u32>,
        /// Slots whose volumes cannot be looked at (lost, or damaged), by commas: go on without what they hold
        #[arg(long, value_delimiter = ',', value_name = "SLOTS")]
        give_up: Vec<u32>,
    },
}

/// Does what the arguments say.
pub async fn run(args: Args) -> Outcome<()> {
    if let Command::Render(render) = &args.command {
        print!("{}", render::render(render, &args.name, args.namespace.as_deref())?);
        return Ok(());
    }
    let patience = Duration::from_secs(args.timeout);
    let context = Context::connect(args.context, args.namespace, args.name, args.port).await?;
    match args.command {
        Command::Render(_) => Ok(()), // done above: it needs no cluster
        Command::Status { json } => status(&context, json).await,
        Command::Scale { replicas } => {
            let plan = scale::plan(&context.observe().await?, replicas)?;
            scale::execute(&context, &plan, patience).await
        }
        Command::Upgrade { image } => upgrade::execute(&context, &image, patience).await,
        Command::FailoverTest { endpoints, kills, force, per_second } => {
            let options = failover::Options { endpoints, kills, by_force: force, per_second };
            failover::run(&context, &options).await
        }
        Command::Backup { file } => {
            let ordinal = backup::plan(&context.observe().await?)?;
            let whole = backup::execute(&context, ordinal, &file, &mut Progress::start()).await?;
            tell_of(&file, &whole);
            Ok(())
        }
        Command::Restore { file, yes, replicas } => {
            tell_of(&file, &restore::check(&file)?);
            let plan = restore::plan(&context.observe().await?, replicas)?;
            match yes {
                true => restore::execute(&context, &plan, &file, patience, &mut Progress::start()).await,
                false => {
                    println!("{plan}");
                    Ok(())
                }
            }
        }
        Command::Recover { yes, replicas, give_up } => {
            let plan = recover::plan(&context.observe().await?, replicas, &give_up)?;
            println!("{plan}");
            match yes {
                true => recover::execute(&context, &plan, patience, &mut Progress::start()).await,
                false => Ok(()),
            }
        }
    }
}

fn tell_of(file: &Path, BackupAnswer { backup, bytes }: &BackupAnswer) {
    println!(
        "{}: revision {}, {} keys, {bytes} bytes, cluster {}",
        file.display(),
        backup.revision,
        backup.keys,
        backup.cluster
    );
}

async fn status(context: &Context, json: bool) -> Outcome<()> {
    let report = diagnose(&context.observe().await?);
    if json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| Failure(error.to_string()))?;
        println!("{text}");
    } else {
        println!("{report}");
    }
    match report.severity() {
        Severity::Critical => Err(Failure("something is critical".into())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
