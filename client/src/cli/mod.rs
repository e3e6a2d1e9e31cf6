//! The command line tool: arguments in, one call of the client, text or JSON out, an exit code that says what is true.
//!
//! It adds nothing to the client: whatever it does, a program can.

mod args;
mod backup;
mod check;
mod load;
mod lock;
mod manual;
mod measure;
mod output;
mod restore;
mod several;
mod strike;
mod watch;

pub use args::Args;

use crate::{Cause, Client, ExactlyOnce, ReadError, WatchError, WriteError};
use args::{Command, Condition, MemberArgs, MembersCommand, PutArgs};
use balsa_wire::cluster::AddMember;
use balsa_wire::problem::Outcome;
use bytes::Bytes;
use output::Output;
use serde_json::value::RawValue;
use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

/// It was not applied: refused, not found, or never reached a node.
pub const EXIT_NOT_APPLIED: u8 = 1;
/// The arguments make no sense; nothing was asked.
pub const EXIT_USAGE: u8 = 2;
/// Nobody here knows whether it was applied.
pub const EXIT_UNKNOWN: u8 = 3;

/// How long a backup's beginning is waited for, at least.
const BACKUP_PATIENCE: Duration = Duration::from_secs(30);

/// Why there is nothing to print.
enum Stop {
    Usage(String),
    NotFound(String),
    Read(ReadError),
    Write(WriteError),
    Watch(WatchError),
    Test(String),
    /// Whoever read what was printed went away before its end: there is nobody to tell.
    NobodyReads,
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Stop {
        Stop::Read(error)
    }
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Stop {
        Stop::Write(error)
    }
}

/// Does what the arguments say, prints it, and gives the exit code.
pub async fn run(args: Args) -> ExitCode {
    let output = Output::new(args.output);
    match run_command(args, &output).await {
        Ok(code) => ExitCode::from(code),
        Err(Stop::NobodyReads) => ExitCode::from(EXIT_NOT_APPLIED),
        Err(stop) => {
            let (code, text) = match &stop {
                Stop::Usage(text) => (EXIT_USAGE, text.clone()),
                Stop::NotFound(text) | Stop::Test(text) => (EXIT_NOT_APPLIED, text.clone()),
                Stop::Read(error) => (EXIT_NOT_APPLIED, error.to_string()),
                Stop::Write(error) => (exit_code(error.outcome()), error.to_string()),
                Stop::Watch(error) => (EXIT_NOT_APPLIED, error.to_string()),
                Stop::NobodyReads => (EXIT_NOT_APPLIED, String::new()), // done above
            };
            let cause = match &stop {
                Stop::Read(error) => Some(&error.cause),
                Stop::Write(error) => Some(error.cause()),
                Stop::Watch(WatchError::Failed(cause)) => Some(cause),
                _ => None,
            };
            output.error(&text, cause.and_then(Cause::problem));
            ExitCode::from(code)
        }
    }
}

/// The exit code of a write without success.
fn exit_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::NotApplied => EXIT_NOT_APPLIED,
        Outcome::Applied => 0,
        Outcome::Unknown => EXIT_UNKNOWN,
    }
}

async fn run_command(args: Args, output: &Output) -> Result<u8, Stop> {
    if let Some(done) = without_node(&args.command, output) {
        return done;
    }
    let endpoints: Vec<&str> =
        args.endpoints.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let building = Client::builder().endpoints(endpoints.iter().copied()).timeout(patience(&args));
    let client = building.exactly_once(ExactlyOnce::IdempotencyKey).build();
    let client = client.map_err(|error| Stop::Usage(error.to_string()))?;
    match args.command {
        Command::Lock(args) => lock::lock(&client, args).await,
        Command::Elect(args) => lock::elect(&client, output, args).await,
        command => ask(&client, &endpoints, output, command).await.map(|()| 0),
    }
}

/// Whatever asks no node.
fn without_node(command: &Command, output: &Output) -> Option<Result<u8, Stop>> {
    Some(match command {
        Command::Check { file, html, svg } => {
            check::run(file, html.as_deref(), svg.as_deref(), output).map(|()| 0)
        }
        Command::Backup(args) if args.verify => backup::verify(&args.file, output).map(|()| 0),
        Command::Restore { arguments } => restore::run(arguments),
        Command::Completion { shell } => manual::completion(*shell, output).map(|()| 0),
        Command::Man { command, all: None } => manual::page(command.as_deref(), output).map(|()| 0),
        Command::Man { all: Some(folder), .. } => manual::pages(folder).map(|()| 0),
        _ => return None,
    })
}

/// Whatever ends with its answer.
async fn ask(client: &Client, endpoints: &[&str], output: &Output, command: Command) -> Result<(), Stop> {
    match command {
        Command::Range(args) => several::range(client, output, args).await,
        Command::DeletePrefix { prefix } => several::delete_prefix(client, output, prefix).await,
        Command::Txn { file } => several::txn(client, output, &file).await,
        Command::Lease { command } => several::lease(client, output, command).await,
        // Done above: their exit codes are those of commands, or they need no node.
        Command::Lock(_)
        | Command::Elect(_)
        | Command::Check { .. }
        | Command::Restore { .. }
        | Command::Completion { .. }
        | Command::Man { .. } => Ok(()),
        Command::Get { key, raw, stale, revision } => get(client, output, key, raw, stale, revision).await,
        Command::Watch(args) => watch::run(client, output, args).await,
        Command::Compact { revision } => {
            output.compacted(&client.compact(revision).await?);
            Ok(())
        }
        Command::Put(put) => write_key(client, output, put).await,
        Command::Delete { key, if_revision, if_exists, prev } => {
            let mut asking = client.delete(key);
            asking = match (if_revision, if_exists) {
                (Some(revision), _) => asking.if_revision(revision),
                (None, true) => asking.if_exists(),
                (None, false) => asking,
            };
            let done = if prev { asking.prev().await } else { asking.await }?;
            output.deleted(&done);
            Ok(())
        }
        Command::Clear { yes } => {
            if !yes {
                return Err(Stop::Usage(
                    "clear deletes every key of the cluster; say --yes if you mean it".into(),
                ));
            }
            output.cleared(&client.clear().await?);
            Ok(())
        }
        Command::Backup(args) => backup::run(client, output, args).await,
        Command::Status => {
            output.status(&client.status().await?);
            Ok(())
        }
        Command::Members { command } => {
            members(client, output, command.unwrap_or(MembersCommand::List)).await
        }
        Command::Transfer { to, slot } => {
            let to = match slot {
                Some(_) => Some(identity(client, MemberArgs { id: None, slot }).await?),
                None => to,
            };
            output.members(&client.transfer_leadership(to.as_deref()).await?.members);
            Ok(())
        }
        Command::Bench(bench) => measure::run(endpoints, bench, output).await.map_err(Stop::Test),
        Command::BenchBaseline => {
            let served = crate::bench::baseline::serve().await;
            served.map_err(|error| Stop::Test(format!("the baseline's server failed: {error}")))
        }
        Command::FailoverTest(test) => strike::run(endpoints, test, output).await.map_err(Stop::Test),
        Command::Load(args) => load::run(endpoints, client, args, output).await.map_err(Stop::Test),
    }
}

/// How long a call may take; a backup begins only once a node has written out its state.
fn patience(args: &Args) -> Duration {
    match args.command {
        Command::Backup(_) => args.timeout.max(BACKUP_PATIENCE),
        _ => args.timeout,
    }
}

async fn get(
    client: &Client,
    output: &Output,
    key: String,
    raw: bool,
    stale: bool,
    revision: Option<u64>,
) -> Result<(), Stop> {
    let not_found = || Stop::NotFound(format!("there is no key `{key}`"));
    let mut asking = client.get(key.as_str());
    if stale {
        asking = asking.stale();
    }
    if let Some(revision) = revision {
        asking = asking.at_revision(revision);
    }
    if raw {
        output.bytes(&asking.raw().await?.ok_or_else(not_found)?.bytes);
    } else {
        output.item(&asking.await?.ok_or_else(not_found)?);
    }
    Ok(())
}

async fn write_key(client: &Client, output: &Output, args: PutArgs) -> Result<(), Stop> {
    let bytes = if args.value == "-" { from_stdin()? } else { args.value.into_bytes() };
    let mut asking = match args.content_type {
        Some(content_type) => client.put_raw(args.key, &content_type, Bytes::from(bytes)),
        None => client.put(args.key, &json_value(bytes)?),
    };
    asking = match args.condition.chosen() {
        Some(Condition::Revision(revision)) => asking.if_revision(revision),
        Some(Condition::Absent) => asking.if_absent(),
        Some(Condition::Exists) => asking.if_exists(),
        None => asking,
    };
    asking = match (args.ttl, args.lease) {
        (Some(ttl), _) => asking.ttl(ttl),
        (None, Some(lease)) => asking.lease(lease),
        (None, None) => asking,
    };
    let done = if args.prev { asking.prev().await } else { asking.await }?;
    output.written(&done);
    Ok(())
}

fn from_stdin() -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|error| Stop::Usage(format!("standard input cannot be read: {error}")))?;
    Ok(bytes)
}

/// The text in a file, or on standard input.
fn text_of(file: &str) -> Result<String, Stop> {
    let bytes = match file {
        "-" => from_stdin()?,
        file => {
            std::fs::read(file).map_err(|error| Stop::Usage(format!("{file} cannot be read: {error}")))?
        }
    };
    String::from_utf8(bytes).map_err(|_| Stop::Usage(format!("{file} is not UTF-8")))
}

/// What is JSON is written as it is, byte for byte; any other text as a JSON string.
fn json_value(bytes: Vec<u8>) -> Result<Box<RawValue>, Stop> {
    let no_text = |_| Stop::Usage("the value is not UTF-8; bytes are written with --content-type".to_owned());
    let text = String::from_utf8(bytes).map_err(no_text)?;
    if let Ok(value) = serde_json::from_str::<&RawValue>(text.trim()) {
        return Ok(value.to_owned());
    }
    serde_json::value::to_raw_value(&text).map_err(|error| Stop::Usage(error.to_string()))
}

async fn members(client: &Client, output: &Output, command: MembersCommand) -> Result<(), Stop> {
    let answer = match command {
        MembersCommand::List => {
            output.status_members(&client.status().await?);
            return Ok(());
        }
        MembersCommand::Add { id, peer_address, client_address, slot } => {
            client.add_member(&AddMember { id, slot, peer_address, client_address }).await?
        }
        MembersCommand::Promote(which) => client.promote_member(&identity(client, which).await?).await?,
        MembersCommand::Remove(which) => client.remove_member(&identity(client, which).await?).await?,
    };
    output.members(&answer.members);
    Ok(())
}

/// The identity of the member that was named, or that holds the slot.
async fn identity(client: &Client, which: MemberArgs) -> Result<String, Stop> {
    let slot = match which {
        MemberArgs { id: Some(id), .. } => return Ok(id),
        MemberArgs { slot, .. } => slot.unwrap_or_default(),
    };
    let seen = client.status().await?;
    let holders: Vec<&str> =
        (seen.members.iter()).filter(|member| member.slot == slot).map(|member| member.id.as_str()).collect();
    match holders[..] {
        [id] => Ok(id.to_owned()),
        [] => Err(Stop::NotFound(format!("no member holds slot {slot}"))),
        _ => {
            Err(Stop::Usage(format!("slot {slot} is being handed over; name one of {}", holders.join(", "))))
        }
    }
}

/// As [`duration`], or none at all.
fn wait(text: &str) -> Result<Duration, String> {
    if text == "0s" { Ok(Duration::ZERO) } else { duration(text) }
}

/// A duration as people write it: `500ms`, `5s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let ms_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(format!("`{text}` is not a duration; it takes a number with ms, s or m, as in 5s")),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` does not begin with a number"))?;
    match number.checked_mul(ms_per_unit) {
        Some(ms) if (1..=86_400_000).contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => Err(format!("`{text}` is not between 1ms and one day")),
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

    #[test]
    fn exit_codes_by_outcome() {
        let codes = [Outcome::NotApplied, Outcome::Applied, Outcome::Unknown].map(exit_code);
        assert_eq!(codes, [1, 0, 3]);
    }

    #[test]
    fn values() {
        for (text, expected) in [
            ("1", "1"),
            (" {\"a\": 1} \n", "{\"a\": 1}"),
            ("\"quoted\"", "\"quoted\""),
            ("plain", "\"plain\""),
            ("plain\n", "\"plain\\n\""),
            ("", "\"\""),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            let value = json_value(text.into());
            assert_eq!(value.ok().map(|value| value.get().to_owned()).as_deref(), Some(expected), "{text:?}");
        }
        assert!(json_value(vec![0xFF]).is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "5", "s", "0s", "-1s", "5h", "1.5s", "999999999999999999999s", "99999999m"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
