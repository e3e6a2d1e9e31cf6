//! The deploy tool, `balsa-deploy`, on an installation of a bar.

use super::{NAME, Namespace, run_command};
use crate::binary;
use crate::failure::{Context, Outcome};
use std::time::Duration;

/// How long one command of it may take.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs a command of it; gives what it printed. A failure holds all that it said.
pub async fn deploy(namespace: &Namespace, arguments: &[&str]) -> Outcome<String> {
    let program = binary::deploy()?;
    let mut command = namespace.lab().command(binary::text(&program)?);
    command.args(["--namespace", namespace.name(), "--name", NAME]).args(arguments);
    run_command(command, "", LIMIT).await.context(format!("run {arguments:?}"))
}
