//! `kubectl port-forward`, for as long as it is held.

use super::Namespace;
use crate::failure::{Context, Failure, Outcome};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

/// How long kubectl may take to say that it forwards.
const START_LIMIT: Duration = Duration::from_secs(15);

/// A forward from a free port of this machine.
#[derive(Debug)]
pub struct Forward {
    port: u16,
    _child: Child,
}

impl Forward {
    /// To this port of `target`, as in `pod/balsa-0`.
    pub async fn open(namespace: &Namespace, target: &str, port: u16) -> Outcome<Forward> {
        let mut command = namespace.lab().command("kubectl");
        command.args(["--namespace", namespace.name(), "port-forward", target, &format!(":{port}")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn().context("run kubectl port-forward")?;
        let stdout = child.stdout.take().ok_or_else(|| Failure("kubectl has no output".into()))?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(START_LIMIT, lines.next_line()).await;
        let line = line.context(format!("forward to {target} within {START_LIMIT:?}"))?;
        let line = line.context("read what kubectl port-forward says")?.unwrap_or_default();
        let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
        let port = port.and_then(|port| port.parse().ok());
        let port = port.ok_or_else(|| Failure(format!("kubectl port-forward {target} says: {line}")))?;
        // Each connection is told of; nobody reads it, but it must be able to say so.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Forward { port, _child: child })
    }

    /// The port of this machine, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}
