//! `recover`: the quorum is lost for good. Says what can be saved, and saves it only when told to.
//!
//! 1. All Pods are stopped: `replicas: 0`, which removes no member.
//! 2. On each volume a Pod runs the node's own `recover`, which changes nothing and says how far that member's log goes.
//! 3. On the volume that has most it runs once more and makes a cluster of one of it; on the others `set-aside` keeps what
//!    they hold and leaves them blank. Volumes that cannot be reached are left as they are.
//! 4. The mark of the founding names the new cluster, and the Pods start: the others join by themselves.
//!
//! Cut off at any moment it can be run again: the volume that went on has by far the highest index then.

use crate::context::{CONTAINER, Context};
use crate::observed::Observed;
use crate::progress::Progress;
use crate::scale::KEEP_VOLUMES;
use crate::{Failure, Outcome};
use balsa_wire::cluster::Phase;
use balsa_wire::repair::RecoveryAnswer;
use k8s_openapi::api::core::v1::{
    Container, ContainerStateTerminated, PersistentVolumeClaimVolumeSource, Pod, PodSpec, Volume,
};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use std::fmt;
use std::time::{Duration, Instant};

/// The file that becomes a Pod's termination message.
const REPORT: &str = "/dev/termination-log";

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Volumes, as ordinal and claim.
    pub claims: Vec<(u32, String)>,
    /// What nodes that run say of themselves: ordinal, term, last index.
    pub answering: Vec<(u32, u64, u64)>,
    /// Replicas afterwards.
    pub replicas: u32,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "There is no leader. What recovery does:")?;
        writeln!(f, "1. stop all Pods (no member is removed by that);")?;
        let claims: Vec<&str> = self.claims.iter().map(|(_, claim)| claim.as_str()).collect();
        writeln!(f, "2. look at each volume: {};", claims.join(", "))?;
        write!(f, "3. make a new cluster of the one that has most")?;
        match self.answering.iter().max_by_key(|(_, term, index)| (*term, *index)) {
            Some((ordinal, term, index)) => {
                writeln!(
                    f,
                    " (of the nodes that answer that is slot {ordinal}: term {term}, last index {index});"
                )?;
            }
            None => writeln!(f, " (no node answers now);")?,
        }
        writeln!(f, "4. keep aside what the others hold, and start {} Pods, which join it.", self.replicas)?;
        write!(
            f,
            "Writes that only lost members have are lost; revisions go on 10^12 higher. If the lost members can come back, \
             wait for them instead. Say --yes to do it."
        )
    }
}

/// What recovery would do, or why there is nothing to recover.
pub fn plan(observed: &Observed, replicas: Option<u32>) -> Outcome<Plan> {
    let Some(set) = &observed.set else { return Err(Failure("there is no such StatefulSet".into())) };
    if let Some(leader) = observed.leader() {
        return Err(Failure(format!(
            "slot {} leads: there is a quorum, and nothing to recover. `status` says what else is wrong",
            leader.slot
        )));
    }
    if set.deletes_volumes {
        return Err(Failure(format!(
            "recovery stops all Pods, and their volumes would go with them: {KEEP_VOLUMES}"
        )));
    }
    let claims: Vec<(u32, String)> = observed
        .claims
        .iter()
        .filter(|claim| claim.bound)
        .map(|claim| (claim.ordinal, claim.name.clone()))
        .collect();
    if claims.is_empty() {
        return Err(Failure("no volume is left: restore a backup".into()));
    }
    let running = |told: &&balsa_wire::cluster::ClusterAnswer| told.phase == Phase::Running;
    let answering = observed.pods.iter().filter_map(|pod| pod.told.as_ref()).filter(running);
    let answering = answering.map(|told| (told.slot, told.term, told.last_index)).collect();
    let known = claims.iter().map(|(ordinal, _)| ordinal + 1).max().unwrap_or(1);
    let replicas = replicas.unwrap_or(if set.replicas > 0 { set.replicas } else { known });
    Ok(Plan { claims, answering, replicas })
}

/// Which of the volumes that were looked at goes on: the highest term, then index, of the last entry.
pub fn choose(seen: &[(u32, RecoveryAnswer)]) -> Option<u32> {
    seen.iter()
        .max_by_key(|(ordinal, found)| (found.last_term, found.last_index, std::cmp::Reverse(*ordinal)))
        .map(|(ordinal, _)| *ordinal)
}

/// Does it.
pub async fn execute(
    context: &Context,
    plan: &Plan,
    patience: Duration,
    progress: &mut Progress,
) -> Outcome<()> {
    progress.say("stopping all Pods");
    context.set_replicas(0).await?;
    progress.wait(context, "all Pods to stop", patience, |seen| seen.pods.is_empty()).await?;
    let mut seen = Vec::new();
    let mut blank = Vec::new();
    for (ordinal, claim) in &plan.claims {
        progress.say(&format!("looking at {claim}"));
        match Errand::new(context, *ordinal, claim).run(&["recover", "--json"], patience).await {
            Ok(said) => match serde_json::from_str::<RecoveryAnswer>(&said) {
                Ok(found) => {
                    let (term, index) = (found.last_term, found.last_index);
                    progress.say(&format!("slot {ordinal}: last entry term {term}, index {index}"));
                    seen.push((*ordinal, found));
                }
                Err(_) => progress.say(&format!("slot {ordinal}: nothing to recover: {}", said.trim())),
            },
            Err(Failure(why)) => progress.say(&format!("slot {ordinal}: {why}")),
        }
    }
    let Some(survivor) = choose(&seen) else {
        return Err(Failure(
            "no volume holds what can be recovered. Nothing was changed but that all Pods are stopped: `scale` starts them, \
             a backup restores"
                .into(),
        ));
    };
    for (ordinal, claim) in &plan.claims {
        let errand = Errand::new(context, *ordinal, claim);
        if *ordinal == survivor {
            let said = errand.run(&["recover", "--json", "--yes"], patience).await?;
            let done: RecoveryAnswer = serde_json::from_str(&said).map_err(|error| {
                Failure(format!("the recovery of slot {ordinal} is not understood ({error}): {said}"))
            })?;
            let new = done
                .new_cluster
                .ok_or_else(|| Failure(format!("slot {ordinal} was not recovered: {said}")))?;
            progress.say(&format!("slot {ordinal} goes on as cluster {new}"));
            context.set_mark(&new).await?;
        } else {
            blank.push((*ordinal, errand));
        }
    }
    for (ordinal, errand) in blank {
        match errand.run(&["set-aside", "--yes"], patience).await {
            Ok(said) => progress.say(&format!("slot {ordinal}: {}", said.trim())),
            Err(Failure(why)) => progress.say(&format!(
                "slot {ordinal} could not be set aside, and its node will not start on that volume: {why}. Delete its \
                 claim once it holds nothing that you want"
            )),
        }
    }
    progress.say(&format!("starting {} Pods", plan.replicas));
    context.set_replicas(plan.replicas).await?;
    let leads = |seen: &Observed| seen.leader().is_some();
    progress.wait(context, "the recovered member to lead", patience, leads).await?;
    progress.say("the cluster serves again");
    let whole = plan.replicas;
    let seen = progress.wait(context, "the others to join", patience, |seen| seen.is_whole(whole)).await?;
    progress.say(&format!("done: {}", seen.summary()));
    Ok(())
}

/// A Pod that runs one command of the node's binary on one volume.
struct Errand<'a> {
    context: &'a Context,
    name: String,
    claim: &'a str,
}

impl<'a> Errand<'a> {
    fn new(context: &'a Context, ordinal: u32, claim: &'a str) -> Errand<'a> {
        Errand { context, name: format!("{}-recover-{ordinal}", context.name), claim }
    }

    /// Runs it to its end; gives what it said. The Pod is gone afterwards, whatever came of it.
    async fn run(&self, arguments: &[&str], patience: Duration) -> Outcome<String> {
        self.remove(patience).await?; // what a run that was cut off left
        let set =
            self.context.sets().get(&self.context.name).await.map_err(|error| Failure(error.to_string()))?;
        let template = set.spec.and_then(|spec| spec.template.spec).unwrap_or_default();
        let pod = errand_pod(&self.name, self.claim, template, arguments)?;
        let pods = self.context.pods();
        pods.create(&PostParams::default(), &pod).await.map_err(|error| Failure(error.to_string()))?;
        let ended = self.wait_for_end(patience).await;
        self.remove(patience).await?;
        outcome(&ended?)
    }

    async fn wait_for_end(&self, patience: Duration) -> Outcome<Pod> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let pod =
                self.context.pods().get(&self.name).await.map_err(|error| Failure(error.to_string()))?;
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if matches!(phase, Some("Succeeded" | "Failed")) {
                return Ok(pod);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Err(Failure(format!("{} did not get to run: is its volume's node gone?", self.name)))
    }

    async fn remove(&self, patience: Duration) -> Outcome<()> {
        let until = Instant::now() + patience;
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let pods = self.context.pods();
        while pods.get_opt(&self.name).await.map_err(|error| Failure(error.to_string()))?.is_some() {
            if Instant::now() > until {
                return Err(Failure(format!("Pod {} does not go", self.name)));
            }
            let _ = pods.delete(&self.name, &now).await; // gone meanwhile, or asked again
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
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
fn errand_pod(name: &str, claim: &str, template: PodSpec, arguments: &[&str]) -> Outcome<Pod> {
    let mut spec = template;
    let container = spec.containers.into_iter().find(|container| container.name == CONTAINER);
    let container =
        container.ok_or_else(|| Failure(format!("the StatefulSet has no container {CONTAINER}")))?;
    let volume = claim.split_once('-').map_or(claim, |(volume, _)| volume).to_owned();
    let program = container.command.iter().flatten().chain(container.args.iter().flatten()).next().cloned();
    let program =
        program.filter(|program| program.ends_with("balsa-node")).unwrap_or_else(|| "/balsa-node".to_owned());
    let arguments = arguments.iter().copied().chain(["--report", REPORT]);
    spec.containers = vec![Container {
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
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, PodStatus};

    #[test]
    fn only_what_has_no_leader_and_a_volume_is_recovered() {
        use crate::sample::installation;
        let lost = installation(3, "0 1? 2?", None);
        let found = plan(&lost, None).unwrap();
        assert_eq!((found.claims.len(), found.replicas), (3, 3));
        assert_eq!(found.answering, [(0, 4, 100)]);
        let text = found.to_string();
        assert!(text.contains("slot 0: term 4, last index 100") && text.contains("Say --yes"), "{text}");
        let why = plan(&installation(3, "0 1 2", Some(1)), None).unwrap_err().to_string();
        assert!(why.contains("slot 1 leads"), "{why}");
        let asleep = Observed { pods: Vec::new(), ..installation(3, "0 1 2", None) };
        assert_eq!(plan(&asleep, Some(5)).map(|plan| plan.replicas), Ok(5));
        let mut deleting = lost.clone();
        deleting.set.as_mut().unwrap().deletes_volumes = true;
        assert!(plan(&deleting, None).unwrap_err().to_string().contains("is Delete"));
        assert!(plan(&Observed { claims: Vec::new(), ..lost }, None).is_err());
    }

    #[test]
    fn the_volume_with_most_goes_on() {
        let found =
            |last_term, last_index| RecoveryAnswer { last_term, last_index, ..RecoveryAnswer::default() };
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[(0, found(3, 9)), (1, found(4, 7)), (2, found(4, 8))]), Some(2));
        assert_eq!(choose(&[(1, found(4, 8)), (2, found(4, 8))]), Some(1));
    }

    #[test]
    fn an_errand_runs_the_node_s_own_binary_on_the_volume() {
        let container = Container {
            name: CONTAINER.into(),
            image: Some("i".into()),
            args: Some(vec!["serve".into()]),
            ..Container::default()
        };
        let template = PodSpec { containers: vec![container], ..PodSpec::default() };
        let pod = errand_pod("kv-recover-1", "data-kv-1", template, &["recover", "--json"]).unwrap();
        let spec = pod.spec.unwrap();
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
}
