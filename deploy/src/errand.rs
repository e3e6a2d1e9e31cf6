//! A command of the node's own binary on a volume that no node uses.

use crate::context::{CONTAINER, Context};
use crate::progress::Progress;
use crate::{Failure, Outcome};
use k8s_openapi::api::core::v1::{
    Container, ContainerStateTerminated, PersistentVolumeClaimVolumeSource, Pod, PodSpec, Volume,
};
use kube::api::{AttachParams, AttachedProcess, DeleteParams, ObjectMeta, PostParams};
use std::fmt::Display;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// The file that becomes a Pod's termination message.
const REPORT: &str = "/dev/termination-log";
/// Bytes of an input that are sent at once.
const SEND_BYTES: usize = 64 << 10;
/// How long a Pod whose input broke may take to say why.
const BROKEN_PATIENCE: Duration = Duration::from_secs(10);
/// How long the API server may be silent while an errand goes on that may take as long as it takes.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How often an errand's Pod is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// A word of progress comes with each so many bytes.
const PROGRESS_BYTES: u64 = 256 << 20;

/// A Pod that runs one command of the node's binary on one volume.
pub(crate) struct Errand<'a> {
    context: &'a Context,
    name: String,
    ordinal: u32,
    claim: &'a str,
}

impl<'a> Errand<'a> {
    /// Its Pod's name ends in no ordinal: no StatefulSet has a Pod of that name.
    pub(crate) fn new(context: &'a Context, ordinal: u32, claim: &'a str) -> Errand<'a> {
        Errand { context, name: format!("{}-{ordinal}-recover", context.name), ordinal, claim }
    }

    /// Runs it to its end; gives what it said. The Pod is gone afterwards, whatever came of it.
    pub(crate) async fn run(&self, arguments: &[&str], patience: Duration) -> Outcome<String> {
        self.start(arguments, patience, false).await?;
        let ended = self.wait_for_end(patience).await;
        self.remove(patience).await?;
        outcome(&ended?)
    }

    /// The same, with a file as its standard input.
    pub(crate) async fn run_on(
        &self,
        arguments: &[&str],
        input: &Path,
        patience: Duration,
        progress: &mut Progress,
    ) -> Outcome<String> {
        self.start(arguments, patience, true).await?;
        let ended = self.run_to_end(input, patience, progress).await;
        self.remove(patience).await?;
        outcome(&ended?)
    }

    /// It may end before it has read all of its input, and says why then.
    async fn run_to_end(&self, input: &Path, patience: Duration, progress: &mut Progress) -> Outcome<Pod> {
        let running = |phase: &str| matches!(phase, "Running" | "Succeeded" | "Failed");
        self.wait_until(Some(patience), "start", running).await?;
        let sent = tokio::select! {
            ended = self.wait_until(None, "end", has_ended) => return ended,
            sent = self.send(input, patience, progress) => sent,
        };
        match sent {
            Ok(_attached) => {
                // What is left in the pipe still goes through, and then there is work for as long as it takes.
                progress.say("all is sent");
                self.wait_until(None, "end", has_ended).await
            }
            Err(Failure(broke)) => {
                let ended = self.wait_until(Some(BROKEN_PATIENCE), "end", has_ended).await;
                ended.map_err(|_| Failure(broke))
            }
        }
    }

    async fn start(&self, arguments: &[&str], patience: Duration, has_input: bool) -> Outcome<()> {
        self.remove(patience).await?; // what a run that was cut off left
        let set = self.context.set().await?;
        let template = set.spec.and_then(|spec| spec.template.spec).unwrap_or_default();
        let mut pod = errand_pod(&self.name, self.claim, self.member(), template, arguments)?;
        for container in pod.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
            (container.stdin, container.stdin_once) = (Some(has_input), Some(has_input));
        }
        let pods = self.context.pods();
        let made = self.answer("make", pods.create(&PostParams::default(), &pod)).await;
        if made.is_err() {
            let _ = self.remove(patience).await; // it may be there all the same, and nobody would look after it
        }
        made.map(|_| ())
    }

    /// Waits for what the API server answers about the Pod.
    async fn answer<T>(&self, doing: &str, asked: impl Future<Output = kube::Result<T>>) -> Outcome<T> {
        self.context.answer(&format!("{doing} Pod {}", self.name), asked).await
    }

    fn member(&self) -> (String, u32) {
        (self.context.pod_name(self.ordinal), self.ordinal)
    }

    async fn send(
        &self,
        input: &Path,
        patience: Duration,
        progress: &mut Progress,
    ) -> Outcome<AttachedProcess> {
        let broke = |error: &dyn Display| Failure(format!("{} was not sent: {error}", input.display()));
        let mut file = std::fs::File::open(input).map_err(|error| broke(&error))?;
        let only_input =
            AttachParams::default().stdin(true).stdout(false).stderr(false).max_stdin_buf_size(SEND_BYTES);
        let pods = self.context.pods();
        let attached = self.answer("attach to", pods.attach(&self.name, &only_input)).await;
        let mut attached = attached.map_err(|error| broke(&error))?;
        let mut pipe = attached.stdin().ok_or_else(|| broke(&"its Pod takes no input"))?;
        let (mut buffer, mut sent) = (vec![0; SEND_BYTES], 0);
        loop {
            let bytes = match file.read(&mut buffer).map_err(|error| broke(&error))? {
                0 => break,
                bytes => &buffer[..bytes],
            };
            let written = tokio::time::timeout(patience, pipe.write_all(bytes)).await;
            written.map_err(|_| broke(&"it stood still"))?.map_err(|error| broke(&error))?;
            sent += bytes.len() as u64;
            if sent / PROGRESS_BYTES > 0 {
                progress.say(&format!("{} MiB are sent", sent / PROGRESS_BYTES * (PROGRESS_BYTES >> 20)));
            }
        }
        pipe.flush().await.map_err(|error| broke(&error))?;
        Ok(attached)
    }

    async fn wait_for_end(&self, patience: Duration) -> Outcome<Pod> {
        self.wait_until(Some(patience), "end", has_ended).await
    }

    async fn wait_until(
        &self,
        patience: Option<Duration>,
        what: &str,
        reached: impl Fn(&str) -> bool,
    ) -> Outcome<Pod> {
        let (started, pods) = (Instant::now(), self.context.pods());
        let mut heard = started;
        loop {
            // What the Pod does goes on while the API server is silent for a while.
            let pod = match self.answer("look at", pods.get_opt(&self.name)).await {
                Ok(Some(pod)) => pod,
                Ok(None) => return Err(Failure(format!("somebody has deleted Pod {}", self.name))),
                Err(failure) => {
                    let is_over = match patience {
                        Some(patience) => started.elapsed() >= patience,
                        None => heard.elapsed() >= SILENCE_MAX,
                    };
                    if is_over {
                        return Err(failure);
                    }
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    continue;
                }
            };
            heard = Instant::now();
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
            if reached(phase) {
                return Ok(pod);
            }
            if let Some(patience) = patience.filter(|patience| started.elapsed() >= *patience) {
                let why = match phase {
                    "Running" => "it works still: give it longer with --timeout",
                    _ => "is the machine of its volume gone?",
                };
                let (name, seconds) = (&self.name, patience.as_secs());
                return Err(Failure(format!(
                    "Pod {name} did not {what} within {seconds} s (it is {phase}): {why}"
                )));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn remove(&self, patience: Duration) -> Outcome<()> {
        let until = Instant::now() + patience;
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let pods = self.context.pods();
        loop {
            let left = match self.answer("look at", pods.get_opt(&self.name)).await {
                Ok(None) => return Ok(()),
                Ok(Some(_)) => Failure(format!("Pod {} does not go", self.name)),
                Err(failure) => failure,
            };
            if Instant::now() > until {
                return Err(left);
            }
            let _ = self.answer("delete", pods.delete(&self.name, &now)).await; // gone meanwhile, or asked again
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

fn has_ended(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// What an errand's Pod said in its end: its termination message, which is part of the Pod. Its log may be out of reach.
fn outcome(pod: &Pod) -> Outcome<String> {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let ended: Option<&ContainerStateTerminated> =
        containers.iter().find_map(|container| container.state.as_ref()?.terminated.as_ref());
    let Some(ended) = ended else {
        let why = status.and_then(|status| status.message.clone().or_else(|| status.reason.clone()));
        return Err(Failure(why.unwrap_or_else(|| "its Pod ended, and Kubernetes does not say how".into())));
    };
    let said = ended.message.as_deref().unwrap_or_default().trim().to_owned();
    match ended.exit_code {
        0 => Ok(said),
        code if said.is_empty() => {
            let reason = ended.reason.as_deref().unwrap_or("without a reason");
            Err(Failure(format!("it ended with exit code {code} ({reason}) and said nothing")))
        }
        _ => Err(Failure(said)),
    }
}

/// The Pod of an errand: as the StatefulSet's, so that image, user and restrictions are the same, with another command.
/// What the member's own Pod has by its name and labels, it is given as values.
fn errand_pod(
    name: &str,
    claim: &str,
    (member, ordinal): (String, u32),
    template: PodSpec,
    arguments: &[&str],
) -> Outcome<Pod> {
    let mut spec = template;
    let container = spec.containers.into_iter().find(|container| container.name == CONTAINER);
    let container =
        container.ok_or_else(|| Failure(format!("the StatefulSet has no container {CONTAINER}")))?;
    let volume = claim.split_once('-').map_or(claim, |(volume, _)| volume).to_owned();
    let program = container.command.iter().flatten().chain(container.args.iter().flatten()).next().cloned();
    let program =
        program.filter(|program| program.ends_with("balsa-node")).unwrap_or_else(|| "/balsa-node".to_owned());
    let arguments = arguments.iter().copied().chain(["--report", REPORT]);
    let own = [("POD_NAME", member), ("BALSA_SLOT", ordinal.to_string())];
    let mut env = container.env.clone().unwrap_or_default();
    for variable in &mut env {
        if let Some((_, value)) = own.iter().find(|(name, _)| *name == variable.name) {
            (variable.value, variable.value_from) = (Some(value.clone()), None);
        }
    }
    spec.containers = vec![Container {
        env: Some(env),
        command: Some(vec![program]),
        args: Some(arguments.map(str::to_owned).collect()),
        termination_message_path: Some(REPORT.to_owned()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        lifecycle: None,
        liveness_probe: None,
        readiness_probe: None,
        startup_probe: None,
        ports: None,
        ..container
    }];
    spec.restart_policy = Some("Never".into());
    spec.termination_grace_period_seconds = Some(1);
    spec.affinity = None;
    spec.topology_spread_constraints = None;
    let source = PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), read_only: None };
    let data = Volume { name: volume, persistent_volume_claim: Some(source), ..Volume::default() };
    spec.volumes.get_or_insert_default().push(data);
    Ok(Pod {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: Some(spec),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::Request;
    use http::{Method, StatusCode};
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, EnvVar, EnvVarSource, PodStatus};
    use kube::{Client, Config};
    use serde_json::json;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn an_errand_runs_the_node_s_own_binary_on_the_volume() {
        let container = Container {
            name: CONTAINER.into(),
            image: Some("i".into()),
            args: Some(vec!["serve".into()]),
            env: Some(vec![
                EnvVar {
                    name: "POD_NAME".into(),
                    value_from: Some(EnvVarSource::default()),
                    ..EnvVar::default()
                },
                EnvVar { name: "BALSA_DATA".into(), value: Some("d".into()), ..EnvVar::default() },
            ]),
            ..Container::default()
        };
        let template = PodSpec { containers: vec![container], ..PodSpec::default() };
        let pod =
            errand_pod("kv-1-recover", "data-kv-1", ("kv-1".into(), 1), template, &["recover", "--json"]);
        let spec = pod.unwrap().spec.unwrap();
        let env = spec.containers[0].env.clone().unwrap();
        assert_eq!((env[0].value.as_deref(), env[0].value_from.as_ref()), (Some("kv-1"), None));
        assert_eq!(env[1].value.as_deref(), Some("d"));
        assert_eq!(spec.containers[0].command, Some(vec!["/balsa-node".to_owned()]));
        let arguments = ["recover", "--json", "--report", "/dev/termination-log"].map(str::to_owned);
        assert_eq!(spec.containers[0].args, Some(arguments.to_vec()));
        assert_eq!(spec.containers[0].termination_message_path.as_deref(), Some("/dev/termination-log"));
        let volumes = spec.volumes.unwrap();
        assert_eq!(volumes[0].name, "data");
        assert_eq!(
            volumes[0].persistent_volume_claim.as_ref().map(|claim| claim.claim_name.as_str()),
            Some("data-kv-1")
        );
        assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
    }
    #[test]
    fn what_an_errand_said_is_part_of_its_pod() {
        let ended = |exit_code, message: Option<&str>| {
            let terminated = ContainerStateTerminated {
                exit_code,
                message: message.map(str::to_owned),
                reason: Some("Error".into()),
                ..ContainerStateTerminated::default()
            };
            let state = ContainerState { terminated: Some(terminated), ..ContainerState::default() };
            let container = ContainerStatus { state: Some(state), ..ContainerStatus::default() };
            let status = PodStatus { container_statuses: Some(vec![container]), ..PodStatus::default() };
            outcome(&Pod { status: Some(status), ..Pod::default() })
        };
        assert_eq!(ended(0, Some("{}\n")), Ok("{}".to_owned()));
        assert_eq!(ended(1, Some("it is blank")), Err(Failure("it is blank".into())));
        let silent = ended(137, None).unwrap_err().to_string();
        assert!(silent.contains("137 (Error)"), "{silent}");
        let evicted =
            PodStatus { message: Some("The node was low on memory".into()), ..PodStatus::default() };
        let evicted = outcome(&Pod { status: Some(evicted), ..Pod::default() }).unwrap_err().to_string();
        assert!(evicted.contains("low on memory"), "{evicted}");
    }

    /// Answers as an API server that fails once while the errand's Pod works.
    async fn failing_once(asked: Arc<AtomicUsize>, request: Request) -> (StatusCode, String) {
        let not_found = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "not found", "reason": "NotFound", "code": 404});
        let container = json!({"name": CONTAINER, "image": "i"});
        let set = json!({"metadata": {"name": "kv"}, "spec": {"serviceName": "kv", "selector": {},
            "template": {"spec": {"containers": [container]}}}});
        let ended = json!({"name": CONTAINER, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "message": "all done"}}});
        let pod = json!({"metadata": {"name": "kv-1-recover"},
            "status": {"phase": "Succeeded", "containerStatuses": [ended]}});
        match (request.method(), request.uri().path().contains("statefulsets")) {
            (&Method::GET, true) => (StatusCode::OK, set.to_string()),
            (&Method::GET, false) => match asked.fetch_add(1, Ordering::Relaxed) {
                1 => (StatusCode::INTERNAL_SERVER_ERROR, "no leader".into()),
                2 => (StatusCode::OK, pod.to_string()),
                _ => (StatusCode::NOT_FOUND, not_found.to_string()),
            },
            _ => (StatusCode::CREATED, pod.to_string()),
        }
    }

    #[tokio::test]
    async fn an_errand_goes_on_while_the_api_server_fails_for_a_moment() {
        let asked = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&asked);
        let routes = axum::Router::new().fallback(move |request| failing_once(Arc::clone(&seen), request));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let client = Client::try_from(Config::new(address.parse().unwrap())).unwrap();
        let context = Context::new(client, "ns".into(), "kv".into(), 3000);
        let errand = Errand::new(&context, 1, "data-kv-1");
        let said = errand.run(&["recover"], Duration::from_secs(10)).await;
        assert_eq!(said, Ok("all done".to_owned()));
        assert_eq!(asked.load(Ordering::Relaxed), 4, "before it, the failure, its end, and that it is gone");
    }
}
