//! `balsa lock` and `balsa elect`: a command that runs while a lock is held, and ends when it is lost.

use super::args::{ElectArgs, LockArgs};
use super::output::Output;
use super::{Stop, json_value};
use crate::Client;
use crate::recipes::Lock;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::{Child, Command};

/// How long a command that is told to end may take, before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Tells the command its token.
const TOKEN_VARIABLE: &str = "BALSA_LOCK_TOKEN";

/// How it ended.
enum Ended {
    Command(ExitStatus),
    Lost,
    Interrupted,
}

/// Runs a command under a lock; its exit code is the command's.
pub(super) async fn lock(client: &Client, args: LockArgs) -> Result<u8, Stop> {
    let mut asking = client.lock(args.name).ttl(args.ttl).wait(args.wait);
    if let Some(key) = args.show {
        asking = asking.show(key, &args.value.unwrap_or_else(|| "held".into()));
    }
    let lock = asking.await?;
    run_under(lock, &args.command).await
}

/// Stands for an election, and runs a command, or waits, while it leads.
pub(super) async fn elect(client: &Client, output: &Output, args: ElectArgs) -> Result<u8, Stop> {
    let value = json_value(args.value.into_bytes())?;
    let asking = client.lock(args.name.clone()).ttl(args.ttl).wait(args.wait).show(args.name, &value);
    let lock = asking.await?;
    output.leads(lock.name(), lock.token());
    run_under(lock, &args.command).await
}

async fn run_under(lock: Lock, command: &[String]) -> Result<u8, Stop> {
    let mut child = match command.split_first() {
        None => None,
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).env(TOKEN_VARIABLE, lock.token().to_string()).kill_on_drop(true);
            let spawned = command.spawn();
            Some(spawned.map_err(|error| Stop::Usage(format!("{program} cannot be run: {error}")))?)
        }
    };
    let ended = tokio::select! {
        status = finished(&mut child) => Ended::Command(status?),
        () = lock.lost() => Ended::Lost,
        _ = tokio::signal::ctrl_c() => Ended::Interrupted,
    };
    let code = match ended {
        Ended::Command(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
        Ended::Lost => {
            end(child).await;
            return Err(Stop::Test("the lock was lost, and the command was ended".into()));
        }
        Ended::Interrupted => {
            end(child).await;
            0
        }
    };
    lock.release().await?;
    Ok(code)
}

/// Never, where there is no command.
async fn finished(child: &mut Option<Child>) -> Result<ExitStatus, Stop> {
    match child {
        None => std::future::pending().await,
        Some(child) => child
            .wait()
            .await
            .map_err(|error| Stop::Test(format!("the command cannot be waited for: {error}"))),
    }
}

/// Tells a command to end, and kills it if it does not.
async fn end(child: Option<Child>) {
    let Some(mut child) = child else { return };
    let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        let told = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        if told.is_ok() && tokio::time::timeout(GRACE, child.wait()).await.is_ok() {
            return;
        }
    }
    let _ = child.kill().await; // it has ended
}
