//! An installed chart, and what tests ask of it.

use super::{NAME, NODE_PODS, Namespace};
use crate::cluster::eventually;
use crate::failure::{Context, Failure, Outcome, ensure};
use balsa_wire::cluster::{ClusterAnswer, Health, MembershipKind, Role};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long helm may take.
const HELM_LIMIT: Duration = Duration::from_secs(180);

/// The chart, installed in a namespace as [`NAME`].
#[derive(Debug)]
pub struct Release<'a> {
    namespace: &'a Namespace,
    image: &'a str,
}

/// A Pod of the StatefulSet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its identity: another one with each that takes its name.
    pub uid: String,
    /// The node that it is on.
    pub node: String,
    /// Its image.
    pub image: String,
    /// The container's, `containerd://…`, once it has run.
    pub container: Option<String>,
    /// Whether it counts as ready.
    pub ready: bool,
    /// Whether it was told to go.
    pub deleted: bool,
}

impl Release<'_> {
    /// Installs the chart with these settings (as of `--set`), and does not wait.
    pub async fn install<'a>(namespace: &'a Namespace, settings: &[&str]) -> Outcome<Release<'a>> {
        Release::install_image(namespace, namespace.lab().image(), settings).await
    }

    /// The same, with another image.
    pub async fn install_image<'a>(
        namespace: &'a Namespace,
        image: &'a str,
        settings: &[&str],
    ) -> Outcome<Release<'a>> {
        let release = Release { namespace, image };
        release.helm("install", settings).await?;
        Ok(release)
    }

    /// What was made otherwise than by helm, under the same name.
    pub fn found(namespace: &Namespace) -> Release<'_> {
        Release { namespace, image: namespace.lab().image() }
    }

    /// Upgrades it to these settings on top of those that it has, and does not wait.
    pub async fn upgrade(&self, settings: &[&str]) -> Outcome<()> {
        self.helm("upgrade", &[&["--reuse-values"], settings].concat()).await
    }

    async fn helm(&self, verb: &str, settings: &[&str]) -> Outcome<()> {
        let lab = self.namespace.lab();
        let (repository, tag) =
            self.image.rsplit_once(':').ok_or_else(|| Failure(format!("{} has no tag", self.image)))?;
        let chart = chart();
        let chart = chart.to_str().ok_or_else(|| Failure(format!("{} is not UTF-8", chart.display())))?;
        let images = [format!("image.repository={repository}"), format!("image.tag={tag}")];
        let mut arguments = vec![verb, NAME, chart, "--namespace", self.namespace.name()];
        arguments.extend(["--set", &images[0], "--set", &images[1]]);
        for setting in settings {
            if !setting.starts_with("--") {
                arguments.push("--set");
            }
            arguments.push(setting);
        }
        lab.call("helm", &arguments, "", HELM_LIMIT).await.map(|_| ())
    }

    /// Where it is.
    pub fn namespace(&self) -> &Namespace {
        self.namespace
    }

    /// The Pods that are there now, in order of their names.
    pub async fn pods(&self) -> Outcome<Vec<Pod>> {
        let arguments = [
            "--namespace",
            self.namespace.name(),
            "get",
            "pods",
            "--selector",
            NODE_PODS,
            "--output",
            "json",
        ];
        let found = self.namespace.lab().kubectl_json(&arguments).await?;
        let mut pods: Vec<Pod> = found["items"].as_array().into_iter().flatten().map(pod).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pods)
    }

    /// What a Pod's node says of the cluster, asked through the API server.
    pub async fn look(&self, pod: &str) -> Outcome<ClusterAnswer> {
        let namespace = self.namespace.name();
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:3000/proxy/v1/cluster");
        let text = self.namespace.lab().kubectl(&["get", "--raw", &path]).await?;
        serde_json::from_str(&text).context(format!("read what {pod} says of its cluster: {text}"))
    }

    /// The Pod whose node leads, with what that says.
    pub async fn leader(&self) -> Outcome<Option<(Pod, ClusterAnswer)>> {
        for pod in self.pods().await? {
            if let Ok(seen) = self.look(&pod.name).await
                && seen.role == Role::Leader
            {
                return Ok(Some((pod, seen)));
            }
        }
        Ok(None)
    }

    /// Waits until a Pod's node leads; gives what that says.
    pub async fn wait_for_leader(&self, patience: Duration) -> Outcome<ClusterAnswer> {
        eventually("a leader", patience, async || Ok(self.leader().await?.map(|(_, seen)| seen))).await
    }

    /// Waits until the members are exactly the slots below `count`, all of them healthy voters, and all Pods ready; gives
    /// the leader's Pod.
    pub async fn wait_until_whole(&self, count: u32, patience: Duration) -> Outcome<Pod> {
        let slots: BTreeSet<u32> = (0..count).collect();
        eventually(&format!("{count} healthy voters in ready Pods"), patience, async || {
            let pods = self.pods().await?;
            if pods.len() != slots.len() || !pods.iter().all(|pod| pod.ready && !pod.deleted) {
                return Ok(None);
            }
            let Some((pod, seen)) = self.leader().await? else { return Ok(None) };
            let whole = |member: &balsa_wire::cluster::Member| {
                member.membership == MembershipKind::Voter && member.health == Health::Healthy
            };
            let members: BTreeSet<u32> = seen.members.iter().map(|member| member.slot).collect();
            let whole =
                members == slots && seen.members.len() == slots.len() && seen.members.iter().all(whole);
            Ok(whole.then_some(pod))
        })
        .await
    }

    /// Waits until the members have applied this many more writes: so many a load that runs has made since.
    pub async fn wait_for_writes(&self, count: u64, patience: Duration) -> Outcome<()> {
        let from = self.wait_for_leader(patience).await?.store.revision;
        eventually(&format!("{count} more writes"), patience, async || {
            let now = self.leader().await?.map_or(0, |(_, seen)| seen.store.revision);
            Ok((now >= from + count).then_some(()))
        })
        .await
    }

    /// `kubectl rollout status` of the StatefulSet.
    pub async fn wait_for_rollout(&self, patience: Duration) -> Outcome<()> {
        let statefulset = format!("statefulset/{NAME}");
        let timeout = format!("--timeout={}s", patience.as_secs());
        let arguments =
            ["--namespace", self.namespace.name(), "rollout", "status", &statefulset, &timeout, "--watch"];
        let limit = patience + Duration::from_secs(5);
        self.namespace.lab().call("kubectl", &arguments, "", limit).await.map(|_| ())
    }

    /// Ensures that all members say the same of their state at an equal index.
    pub async fn wait_until_digests_agree(&self, patience: Duration) -> Outcome<u64> {
        eventually("all members to be at one index", patience, async || {
            let mut states = Vec::new();
            for pod in self.pods().await? {
                match self.look(&pod.name).await {
                    Ok(seen) => states.push(seen.store),
                    Err(_) => return Ok(None),
                }
            }
            let Some(first) = states.first() else { return Ok(None) };
            if states.iter().any(|state| state.applied_index != first.applied_index) {
                return Ok(None);
            }
            ensure(states.iter().all(|state| state == first), || {
                format!("members differ at one index: {states:?}")
            })?;
            Ok(Some(first.applied_index))
        })
        .await
    }
}

/// The chart of this tree.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/balsa")
}

fn pod(of: &Value) -> Pod {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let conditions = of["status"]["conditions"].as_array();
    let ready =
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"));
    Pod {
        name: text(&of["metadata"]["name"]),
        uid: text(&of["metadata"]["uid"]),
        node: text(&of["spec"]["nodeName"]),
        image: text(&of["spec"]["containers"][0]["image"]),
        container: of["status"]["containerStatuses"][0]["containerID"].as_str().map(str::to_string),
        ready,
        deleted: !of["metadata"]["deletionTimestamp"].is_null(),
    }
}
