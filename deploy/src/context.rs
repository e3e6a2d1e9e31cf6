//! The one door to a Kubernetes cluster: reads an installation into [`Observed`], and makes the few changes there are.
//!
//! Nodes are asked through the API server's proxy to their Pods, so this works from wherever `kubectl` does.

use crate::observed::{Claim, Mark, Observed, Pod, Set};
use crate::{Failure, Outcome};
use balsa_wire::cluster::{ClusterAnswer, TransferLeadership};
use bytes::Bytes;
use http_body_util::BodyExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Client, Config, config::KubeConfigOptions};
use serde_json::{Value, json};
use std::fmt::Display;
use std::time::Duration;

/// How long a node may take to answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the API server may take to answer. What it was asked to do may be done all the same: whoever asks again must bear
/// that.
const API_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the next bytes of a long answer are waited for.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The name of the node's container.
pub const CONTAINER: &str = "balsa";

/// Which installation, and how to reach it.
#[derive(Clone)]
pub struct Context {
    /// The API server's client.
    pub client: Client,
    /// The installation's namespace.
    pub namespace: String,
    /// The name of its StatefulSet.
    pub name: String,
    /// The port on which nodes serve clients.
    pub port: u16,
    api_timeout: Duration,
}

/// A long answer of a node, as it arrives.
pub struct Stream {
    body: Body,
    pod: String,
}

impl Stream {
    /// The next bytes; `None`: it has ended.
    pub async fn next(&mut self) -> Outcome<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout(STALL_TIMEOUT, self.body.frame()).await;
            let frame = frame.map_err(|_| Failure(format!("the answer of {} stood still", self.pod)))?;
            let broke = |error: kube::Error| failed(&format!("read the answer of {}", self.pod), &error);
            match frame.transpose().map_err(broke)? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

fn failed(doing: &str, error: &dyn Display) -> Failure {
    Failure(format!("cannot {doing}: {error}"))
}

impl Context {
    /// By a kubeconfig (and its `context`), or as a Pod by its own account.
    pub async fn connect(
        context: Option<String>,
        namespace: Option<String>,
        name: String,
        port: u16,
    ) -> Outcome<Context> {
        let config = match context {
            None => Config::infer().await.map_err(|error| failed("find a cluster", &error))?,
            Some(context) => {
                let options = KubeConfigOptions { context: Some(context), ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options).await.map_err(|error| failed("find a cluster", &error))?
            }
        };
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| failed("make a client", &error))?;
        Ok(Context::new(client, namespace, name, port))
    }

    /// By a client that is there.
    pub fn new(client: Client, namespace: String, name: String, port: u16) -> Context {
        Context { client, namespace, name, port, api_timeout: API_TIMEOUT }
    }

    /// The StatefulSets.
    pub fn sets(&self) -> Api<StatefulSet> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The Pods.
    pub fn pods(&self) -> Api<core::Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits for an answer of the API server, but not for ever.
    pub(crate) async fn answer<T>(
        &self,
        doing: &str,
        asked: impl Future<Output = kube::Result<T>>,
    ) -> Outcome<T> {
        match tokio::time::timeout(self.api_timeout, asked).await {
            Ok(answered) => answered.map_err(|error| failed(doing, &error)),
            Err(_) => {
                let silent = format!("the API server does not answer in {:?}", self.api_timeout);
                Err(failed(doing, &silent))
            }
        }
    }

    /// The installation's StatefulSet.
    pub async fn set(&self) -> Outcome<StatefulSet> {
        self.answer("read the StatefulSet", self.sets().get(&self.name)).await
    }

    /// All there is to know now.
    pub async fn observe(&self) -> Outcome<Observed> {
        let (sets, pods, claims, all) = (self.sets(), self.pods(), self.claims(), ListParams::default());
        let (set, pods, claims, mark) = tokio::try_join!(
            self.answer("read the StatefulSet", sets.get_opt(&self.name)),
            self.answer("list Pods", pods.list(&all)),
            self.answer("list claims", claims.list(&all)),
            self.mark(),
        )?;
        let mut observed = Observed {
            set: set.as_ref().map(read_set),
            pods: pods.iter().filter_map(|pod| self.read_pod(pod)).collect(),
            claims: claims.iter().filter_map(|claim| self.read_claim(claim)).collect(),
            mark: mark.cluster,
        };
        observed.pods.sort_by_key(|pod| pod.ordinal);
        observed.claims.sort_by_key(|claim| claim.ordinal);
        let mut asking = tokio::task::JoinSet::new();
        for pod in &observed.pods {
            let (context, ordinal) = (self.clone(), pod.ordinal);
            asking.spawn(async move { (ordinal, context.ask(ordinal).await) });
        }
        while let Some(Ok((ordinal, told))) = asking.join_next().await {
            if let Some(pod) = observed.pods.iter_mut().find(|pod| pod.ordinal == ordinal) {
                (pod.told, pod.silence) = match told {
                    Ok(told) => (Some(told), None),
                    Err(Failure(why)) => (None, Some(why)),
                };
            }
        }
        Ok(observed)
    }

    /// The name of the ConfigMap with the mark of the founding.
    pub fn mark_name(&self) -> String {
        format!("{}-founding", self.name)
    }

    /// The name of a Pod.
    pub fn pod_name(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    fn ordinal(&self, name: &str) -> Option<u32> {
        name.strip_prefix(&self.name)?.strip_prefix('-')?.parse().ok()
    }

    fn read_pod(&self, pod: &core::Pod) -> Option<Pod> {
        let owner =
            pod.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "StatefulSet")?;
        let ordinal = self.ordinal(pod.metadata.name.as_deref()?).filter(|_| owner.name == self.name)?;
        let status = pod.status.clone().unwrap_or_default();
        let container =
            status.container_statuses.iter().flatten().find(|container| container.name == CONTAINER);
        let ready = |condition: &core::PodCondition| condition.type_ == "Ready" && condition.status == "True";
        let spec = pod.spec.as_ref();
        let image =
            spec.and_then(|spec| spec.containers.iter().find(|container| container.name == CONTAINER));
        Some(Pod {
            ordinal,
            revision: label(&pod.metadata.labels, "controller-revision-hash"),
            image: image.and_then(|container| container.image.clone()).unwrap_or_default(),
            ready: status.conditions.iter().flatten().any(ready),
            being_deleted: pod.metadata.deletion_timestamp.is_some(),
            trouble: trouble(&status, container),
            restarts: container.map_or(0, |container| u32::try_from(container.restart_count).unwrap_or(0)),
            node: spec.and_then(|spec| spec.node_name.clone()),
            told: None,
            silence: None,
        })
    }

    fn read_claim(&self, claim: &PersistentVolumeClaim) -> Option<Claim> {
        let name = claim.metadata.name.as_deref()?;
        let (_, pod) = name.split_once('-')?; // the template's name, then the Pod's
        let ordinal = self.ordinal(pod)?;
        let status = claim.status.as_ref();
        let capacity = status.and_then(|status| status.capacity.as_ref()?.get("storage"));
        Some(Claim {
            name: name.to_owned(),
            ordinal,
            bound: status.and_then(|status| status.phase.as_deref()) == Some("Bound"),
            capacity: capacity.map(|capacity| capacity.0.clone()),
        })
    }

    /// Asks a node what it knows of the cluster.
    pub async fn ask(&self, ordinal: u32) -> Outcome<ClusterAnswer> {
        let text = self.call(ordinal, "GET", "v1/cluster", Vec::new()).await?;
        serde_json::from_str(&text).map_err(|error| failed("understand a node", &error))
    }

    /// Has leadership handed to this member, asked of the node at `ordinal`.
    pub async fn transfer(&self, ordinal: u32, to: &str) -> Outcome<()> {
        let wanted = TransferLeadership { to: Some(to.to_owned()) };
        let body = serde_json::to_vec(&wanted).map_err(|error| failed("write a request", &error))?;
        self.call(ordinal, "POST", "v1/cluster/transfer-leadership", body).await.map(|_| ())
    }

    /// Asks a node for what may be long; gives it as it arrives.
    pub async fn open(&self, ordinal: u32, path: &str) -> Outcome<Stream> {
        let pod = self.pod_name(ordinal);
        let request = http::Request::get(self.uri(ordinal, path)).body(Body::empty());
        let request = request.map_err(|error| failed("make a request", &error))?;
        let answered = tokio::time::timeout(STALL_TIMEOUT, self.client.send(request)).await;
        let silent = || Failure(format!("{pod} does not answer in {} s", STALL_TIMEOUT.as_secs()));
        let answer =
            answered.map_err(|_| silent())?.map_err(|error| failed(&format!("ask {pod}"), &error))?;
        let (status, mut stream) = (answer.status(), Stream { body: answer.into_body(), pod });
        if status.is_success() {
            return Ok(stream);
        }
        let said = stream.next().await?.unwrap_or_default();
        Err(Failure(format!("{} answers {status}: {}", stream.pod, String::from_utf8_lossy(&said))))
    }

    fn uri(&self, ordinal: u32, path: &str) -> String {
        let (namespace, pod, port) = (&self.namespace, self.pod_name(ordinal), self.port);
        format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}")
    }

    async fn call(&self, ordinal: u32, method: &str, path: &str, body: Vec<u8>) -> Outcome<String> {
        let (pod, uri) = (self.pod_name(ordinal), self.uri(ordinal, path));
        let request =
            http::Request::builder().method(method).uri(uri).header("content-type", "application/json");
        let request = request.body(body).map_err(|error| failed("make a request", &error))?;
        let doing = format!("ask {pod}");
        match tokio::time::timeout(NODE_TIMEOUT, self.client.request_text(request)).await {
            Ok(answered) => answered.map_err(|error| failed(&doing, &error)),
            Err(_) => Err(Failure(format!("{pod} does not answer in {} s", NODE_TIMEOUT.as_secs()))),
        }
    }

    /// Sets how many Pods are wanted.
    pub async fn set_replicas(&self, replicas: u32) -> Outcome<()> {
        self.patch_set("scale the StatefulSet", json!({"spec": {"replicas": replicas}})).await
    }

    /// Sets the ordinal from which on Pods are updated.
    pub async fn set_partition(&self, partition: u32) -> Outcome<()> {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
        self.patch_set("change the update's partition", json!({"spec": {"updateStrategy": strategy}})).await
    }

    /// Sets the node's image, and the partition with it, in one change.
    pub async fn set_image(&self, image: &str, partition: u32) -> Outcome<()> {
        let container = json!({"name": CONTAINER, "image": image});
        let patch = json!({"spec": {
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}},
            "template": {"spec": {"containers": [container]}},
        }});
        let (sets, how, patch) = (self.sets(), patch_params(), Patch::Strategic(patch));
        self.answer("set the image", sets.patch(&self.name, &how, &patch)).await.map(|_| ())
    }

    async fn patch_set(&self, doing: &str, patch: Value) -> Outcome<()> {
        let (sets, how, patch) = (self.sets(), patch_params(), Patch::Merge(patch));
        self.answer(doing, sets.patch(&self.name, &how, &patch)).await.map(|_| ())
    }

    /// The mark of the founding.
    pub async fn mark(&self) -> Outcome<Mark> {
        let mark = self.answer("read the mark", self.marks().get_opt(&self.mark_name())).await?;
        let mut data = mark.and_then(|mark| mark.data).unwrap_or_default();
        let given_up = data.remove("given_up").unwrap_or_default();
        let given_up = given_up.split(',').map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned);
        let (cluster, heir) = (data.remove("cluster"), data.remove("heir"));
        Ok(Mark { cluster, given_up: given_up.collect(), heir })
    }

    /// Writes which cluster lives here; that ends what was about to be made.
    pub async fn set_mark(&self, cluster: &str) -> Outcome<()> {
        self.write_mark(json!({"cluster": cluster, "heir": null})).await
    }

    /// Has the mark say which clusters were given up, so that no disk of theirs starts again, and which one is about to be
    /// made. All at once: a part of it would say something else.
    pub async fn give_up(&self, given_up: &[String], heir: Option<&str>) -> Outcome<()> {
        self.write_mark(json!({"given_up": given_up.join(","), "heir": heir})).await
    }

    async fn write_mark(&self, data: Value) -> Outcome<()> {
        let (marks, how, patch) = (self.marks(), patch_params(), Patch::Merge(json!({"data": data})));
        self.answer("write the mark", marks.patch(&self.mark_name(), &how, &patch)).await.map(|_| ())
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn marks(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Sees to it that there is a claim of a volume for this ordinal, as the StatefulSet would make it; gives its name.
    pub async fn ensure_claim(&self, ordinal: u32) -> Outcome<String> {
        let set = self.set().await?;
        let templates = set.spec.and_then(|spec| spec.volume_claim_templates).unwrap_or_default();
        let Some(mut claim) = templates.into_iter().next() else {
            return Err(Failure("the StatefulSet has no template of a volume's claim".into()));
        };
        let template = claim.metadata.name.take().unwrap_or_default();
        let name = format!("{template}-{}", self.pod_name(ordinal));
        let doing = format!("claim a volume as {name}");
        let claims = self.claims();
        if self.answer(&doing, claims.get_opt(&name)).await?.is_none() {
            (claim.metadata.name, claim.status) = (Some(name.clone()), None);
            self.answer(&doing, claims.create(&PostParams::default(), &claim)).await?;
        }
        Ok(name)
    }

    /// Deletes a Pod, as a drain would or with no grace at all.
    pub async fn delete_pod(&self, ordinal: u32, by_force: bool) -> Outcome<()> {
        let grace = DeleteParams { grace_period_seconds: by_force.then_some(0), ..DeleteParams::default() };
        let pod = self.pod_name(ordinal);
        self.answer(&format!("delete {pod}"), self.pods().delete(&pod, &grace)).await.map(|_| ())
    }
}

/// Kubernetes records who set a field: another tool that sets it, too, is told whom it overrules.
fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some("balsa-deploy".to_owned()), ..PatchParams::default() }
}

fn label(labels: &Option<std::collections::BTreeMap<String, String>>, name: &str) -> String {
    labels.as_ref().and_then(|labels| labels.get(name)).cloned().unwrap_or_default()
}

fn read_set(set: &StatefulSet) -> Set {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let pod = spec.template.spec.unwrap_or_default();
    let container = pod.containers.into_iter().find(|container| container.name == CONTAINER);
    let rolling = spec.update_strategy.and_then(|strategy| strategy.rolling_update);
    let retention = spec.persistent_volume_claim_retention_policy.and_then(|policy| policy.when_scaled);
    let number = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
    Set {
        replicas: number(spec.replicas).unwrap_or(1),
        image: container.and_then(|container| container.image).unwrap_or_default(),
        revision: status.update_revision.unwrap_or_default(),
        current_revision: status.current_revision.unwrap_or_default(),
        partition: rolling.and_then(|rolling| number(rolling.partition)).unwrap_or(0),
        is_current: status.observed_generation == set.metadata.generation,
        being_deleted: set.metadata.deletion_timestamp.is_some(),
        available: number(status.available_replicas).unwrap_or(0),
        initial_size: number_in(set, "balsa.kv/initial-size"),
        deletes_volumes: retention.as_deref() == Some("Delete"),
    }
}

fn number_in(set: &StatefulSet, annotation: &str) -> Option<u32> {
    set.metadata.annotations.as_ref()?.get(annotation)?.parse().ok()
}

/// Why a Pod does not run.
fn trouble(status: &core::PodStatus, container: Option<&core::ContainerStatus>) -> Option<String> {
    let waiting = container.and_then(|container| container.state.as_ref()?.waiting.as_ref());
    if let Some(waiting) = waiting {
        let reason = waiting.reason.clone().unwrap_or_default();
        return Some([reason, waiting.message.clone().unwrap_or_default()].join(" ").trim().to_owned());
    }
    let unmet = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    unmet.map(|condition| condition.message.clone().unwrap_or_else(|| "it cannot be scheduled".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_api_server_that_says_nothing_is_not_waited_for_without_end() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", silent.local_addr().unwrap());
        let client = Client::try_from(Config::new(address.parse().unwrap())).unwrap();
        let mut context = Context::new(client, "n".into(), "kv".into(), 3000);
        context.api_timeout = Duration::from_millis(20);
        let said = context.observe().await;
        let why = "cannot read the StatefulSet: the API server does not answer in 20ms";
        assert_eq!(said, Err(Failure(why.into())));
    }
}
