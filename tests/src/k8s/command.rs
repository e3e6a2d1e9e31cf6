//! A command that ends, with what it said.

use crate::failure::{Context, Outcome, ensure};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs it with this input, at most so long; gives its standard output. What it said wrong is in the failure.
pub async fn run(mut command: Command, input: &str, limit: Duration) -> Outcome<String> {
    let what = named(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context(format!("run {what}"))?;
    let mut stdin = child.stdin.take();
    let exchange = async {
        if let Some(stdin) = &mut stdin {
            let _ = stdin.write_all(input.as_bytes()).await; // one that does not read says so by how it ends
        }
        drop(stdin.take());
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(limit, exchange).await;
    let output =
        output.context(format!("see {what} end within {limit:?}"))?.context(format!("run {what}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure(output.status.success(), || {
        format!("{what}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
    })?;
    Ok(text(&output.stdout))
}

/// The command as one would type it, without its environment.
fn named(command: &Command) -> String {
    let command = command.as_std();
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
