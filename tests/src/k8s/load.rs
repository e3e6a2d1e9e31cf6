//! A steady load from a Pod in the cluster, as its applications are: `balsa load`, from the image.

use super::{Attached, NAME, Namespace};
use crate::cluster::eventually;
use crate::failure::{Context, Failure, Outcome, ensure};
use serde::Deserialize;
use serde_json::json;
use std::time::{Duration, SystemTime};

/// The load of the bars.
#[derive(Clone, Debug)]
pub struct Steady {
    /// Writes a second, and reads a second.
    pub per_second: u32,
    /// Clients that share them.
    pub clients: u32,
    /// The members whose names the clients are given besides the Service: slots below this.
    pub members: u32,
    /// The node to be on; `None`: any.
    pub node: Option<String>,
}

impl Default for Steady {
    fn default() -> Steady {
        Steady { per_second: 200, clients: 8, members: 3, node: None }
    }
}

/// What the load found.
#[derive(Clone, Debug, Deserialize)]
pub struct LoadReport {
    /// Its writes.
    pub writes: Counts,
    /// Its reads.
    pub reads: Counts,
    /// The longest time between two acknowledged writes, in ms.
    pub gap_longest_ms: u64,
    /// Each time of 50 ms or more without one.
    pub pauses: Vec<Pause>,
    /// The longest operation, in ms.
    pub operation_longest_ms: u64,
    /// Acknowledged writes that are not there.
    pub lost: Vec<String>,
    /// Writes that are there otherwise than written.
    pub twice: Vec<String>,
    /// Other untruths.
    pub untrue: Vec<String>,
    /// The first errors.
    pub first_errors: Vec<String>,
}

/// Operations by outcome.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Counts {
    /// With success.
    pub ok: u64,
    /// Not applied.
    pub not_applied: u64,
    /// Applied, and the answer lost.
    pub applied: u64,
    /// Unknown.
    pub unknown: u64,
}

/// A time without an acknowledged write.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Pause {
    /// When it began, in ms since 1970.
    pub began_unix_ms: u64,
    /// Its length, in ms.
    pub ms: u64,
}

impl LoadReport {
    /// Fails unless nothing was lost, nothing applied twice, and no operation failed within its deadline.
    pub fn ensure_unharmed(&self) -> Outcome<()> {
        let violations: Vec<&String> = self.lost.iter().chain(&self.twice).chain(&self.untrue).collect();
        ensure(violations.is_empty(), || {
            format!("{} violations; the first: {}", violations.len(), violations[0])
        })?;
        let errors = |counts: &Counts| counts.not_applied + counts.applied + counts.unknown;
        let failed = errors(&self.writes) + errors(&self.reads);
        ensure(failed == 0, || format!("{failed} operations failed; the first: {:?}", self.first_errors))
    }

    /// The longest pause that reaches into the time from `from` to `to`, in ms.
    pub fn pause_between(&self, from: SystemTime, to: SystemTime) -> u64 {
        let (from, to) = (unix_ms(from), unix_ms(to));
        let meets = |pause: &&Pause| pause.began_unix_ms < to && pause.began_unix_ms + pause.ms >= from;
        self.pauses.iter().filter(meets).map(|pause| pause.ms).max().unwrap_or(0)
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The load, running.
#[derive(Debug)]
pub struct Load<'a> {
    namespace: &'a Namespace,
    said: Attached,
    pod: String,
    endpoints: String,
    stop: String,
}

/// How long the Pod may take to run.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to read everything back.
const END_LIMIT: Duration = Duration::from_secs(120);

impl Load<'_> {
    /// Starts it, and waits until its first write is there.
    pub async fn start<'a>(namespace: &'a Namespace, pod: &str, steady: &Steady) -> Outcome<Load<'a>> {
        let place = namespace.name();
        let names =
            (0..steady.members).map(|slot| format!("http://{NAME}-{slot}.{NAME}-headless.{place}.svc:3000"));
        let all = std::iter::once(format!("http://{NAME}.{place}.svc:3000")).chain(names);
        let endpoints = all.collect::<Vec<_>>().join(",");
        let stop = format!("stop/{pod}");
        let per_second = steady.per_second.to_string();
        let clients = steady.clients.to_string();
        let mut arguments = vec!["--endpoints", &endpoints, "--output", "json", "load", "--until", &stop];
        arguments.extend(["--clients", &clients]);
        arguments.extend(["--writes-per-second", &per_second, "--reads-per-second", &per_second]);
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": pod, "labels": { "app.kubernetes.io/component": "load" } },
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "nodeSelector": steady.node.as_ref().map(|node| json!({ "kubernetes.io/hostname": node })),
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
                },
                "containers": [{
                    "name": "load",
                    "image": namespace.lab().image(),
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/balsa"],
                    "args": arguments,
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": { "drop": ["ALL"] },
                    },
                }],
            },
        });
        let apply = ["--namespace", namespace.name(), "apply", "--filename", "-"];
        namespace.lab().call("kubectl", &apply, &manifest.to_string(), START_LIMIT).await?;
        eventually("the load to run", START_LIMIT, async || {
            Ok((phase(namespace, pod).await? == "Running").then_some(()))
        })
        .await?;
        let said = Attached::to(namespace, pod)?;
        Ok(Load { namespace, said, pod: pod.to_string(), endpoints, stop })
    }

    /// Ends it; gives what it found.
    pub async fn finish(mut self) -> Outcome<LoadReport> {
        let put = ["exec", &self.pod, "--", "/balsa", "--endpoints", &self.endpoints, "put", &self.stop, "1"];
        // The load may end, and its container with it, before the command that told it to has ended.
        let told = self.namespace.kubectl(&put).await;
        let ended = eventually("the load to end", END_LIMIT, async || {
            let phase = phase(self.namespace, &self.pod).await?;
            Ok(matches!(phase.as_str(), "Succeeded" | "Failed").then_some(()))
        });
        if let Err(failure) = ended.await {
            return Err(told.err().unwrap_or(failure));
        }
        let said = self.said.wait().await?;
        let line = said.lines().find(|line| line.starts_with('{'));
        let line = line.ok_or_else(|| Failure(format!("the load ended and said only: {said}")))?;
        let report = serde_json::from_str(line).context(format!("read the load's report: {line}"))?;
        self.namespace.kubectl(&["delete", "pod", &self.pod, "--wait=false"]).await?;
        Ok(report)
    }
}

async fn phase(namespace: &Namespace, pod: &str) -> Outcome<String> {
    namespace.kubectl(&["get", "pod", pod, "--output", "jsonpath={.status.phase}"]).await
}
