//! `recover`: the quorum is lost for good. Says what can be saved, and saves it only when told to.
//!
//! 1. All Pods are stopped: `replicas: 0`, which removes no member.
//! 2. On each volume a Pod runs the node's own `recover`, which changes nothing and says how far that member's log goes.
//! 3. One that cannot be looked at may have most: then nothing is done, unless a person gave its slot up.
//!    Where the volumes are a quorum, nothing is lost, and they are only started.
//! 4. The mark of the founding says that the old cluster is given up: from here on no disk of it starts, whenever it is found
//!    again.
//! 5. On the volume that has most `recover` runs once more and makes a cluster of one of it; on the others `set-aside` keeps
//!    what they hold and leaves them blank.
//! 6. The mark names the new cluster, and the Pods start: the others join by themselves.
//!
//! Cut off at any moment it can be run again: the volume that was chosen says so, and once it went on it is of a later
//! generation than the others.

mod choice;

use crate::context::Context;
use crate::errand::Errand;
use crate::observed::{Observed, Pod, STOPS_NOT, is_well};
use crate::progress::Progress;
use crate::scale::KEEP_VOLUMES;
use crate::{Failure, Outcome};
use balsa_wire::cluster::{ClusterAnswer, Phase};
use balsa_wire::repair::{RecoveryAnswer, RecoveryLook};
use choice::{Choice, choose};
use std::fmt;
use std::time::Duration;

/// How long the volume of a slot that was given up is waited for: it is most likely gone.
const GIVEN_UP_PATIENCE: Duration = Duration::from_secs(30);

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Volumes, as ordinal and claim.
    pub claims: Vec<(u32, String)>,
    /// What nodes that run say of themselves: ordinal, term, last index.
    pub answering: Vec<(u32, u64, u64)>,
    /// Slots whose volumes are not looked at.
    pub given_up: Vec<u32>,
    /// Nodes that look as if they ran and say nothing: ordinal, why.
    pub silent: Vec<(u32, String)>,
    /// No Pods are wanted now: nothing may be lost at all.
    pub asleep: bool,
    /// Replicas afterwards; `None`: as many as the cluster had voters.
    pub replicas: Option<u32>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "There is no leader. What recovery does:")?;
        writeln!(f, "1. stop all Pods (no member is removed by that);")?;
        let looked_at = self.claims.iter().filter(|(ordinal, _)| !self.given_up.contains(ordinal));
        let claims: Vec<&str> = looked_at.map(|(_, claim)| claim.as_str()).collect();
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
        for slot in &self.given_up {
            writeln!(f, "   (slot {slot} is given up: what only its volume holds is lost)")?;
        }
        for (ordinal, why) in &self.silent {
            writeln!(f, "   (the node of slot {ordinal} could not be asked: {why})")?;
        }
        let pods =
            self.replicas.map_or_else(|| "as many Pods as voted".to_owned(), |size| format!("{size} Pods"));
        writeln!(f, "4. keep aside what the others hold, and start {pods}, which join it.")?;
        if self.asleep {
            writeln!(
                f,
                "The cluster sleeps: no Pods are wanted. If no volume was lost, `scale` wakes it, and there is nothing to \
                 recover."
            )?;
        }
        write!(
            f,
            "Writes that only lost members have are lost; revisions go on 10^12 higher. If the lost members can come back, \
             wait for them instead. Say --yes to do it."
        )
    }
}

/// What recovery would do, or why there is nothing to recover.
pub fn plan(observed: &Observed, replicas: Option<u32>, given_up: &[u32]) -> Outcome<Plan> {
    let Some(set) = &observed.set else { return Err(Failure("there is no such StatefulSet".into())) };
    if let Some(leader) = observed.leader() {
        return Err(Failure(format!(
            "slot {} leads: there is a quorum, and nothing to recover. `status` says what else is wrong",
            leader.slot
        )));
    }
    if let Some(why) = quorum_may_be_there(observed, set.replicas) {
        return Err(Failure(why));
    }
    if set.deletes_volumes {
        return Err(Failure(format!(
            "recovery stops all Pods, and their volumes would go with them: {KEEP_VOLUMES}"
        )));
    }
    let claims = observed.volumes();
    if claims.iter().all(|(ordinal, _)| given_up.contains(ordinal)) {
        return Err(Failure("no volume is left: restore a backup".into()));
    }
    if let Some(slot) = given_up.iter().find(|slot| claims.iter().all(|(ordinal, _)| ordinal != *slot)) {
        return Err(Failure(format!("--give-up {slot}: there is no volume of slot {slot} to give up")));
    }
    let running = |told: &&balsa_wire::cluster::ClusterAnswer| told.phase == Phase::Running;
    let answering = observed.pods.iter().filter_map(|pod| pod.told.as_ref()).filter(running);
    let answering = answering.map(|told| (told.slot, told.term, told.last_index)).collect();
    let replicas = replicas.or((set.replicas > 0).then_some(set.replicas));
    let silent = observed.silent().map(|(pod, why)| (pod.ordinal, why.to_owned())).collect();
    let asleep = set.replicas == 0;
    Ok(Plan { claims, answering, given_up: given_up.to_vec(), silent, asleep, replicas })
}

/// Why there may be a quorum although no node says that it leads: then nothing may be given up.
fn quorum_may_be_there(observed: &Observed, replicas: u32) -> Option<String> {
    let why = |silence: &Option<String>| silence.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    if let Some(pod) = observed.pods.iter().find(|pod| pod.ready) {
        return Some(format!(
            "Pod {} is ready, so it knows a leader, although no node that was asked leads{}. `status` says what cannot be \
             asked; run this again once no Pod is ready",
            pod.ordinal,
            why(&pod.silence)
        ));
    }
    let voters = observed.voters();
    let needed = voters.len() / 2 + 1;
    let answers = |slot: &&u32| {
        let told = observed.pod(**slot).and_then(|pod| pod.told.as_ref());
        told.is_some_and(|told| told.phase == Phase::Running)
    };
    let answering = voters.iter().filter(answers).count();
    if answering >= needed {
        return Some(format!(
            "{answering} of {} voters answer, which is a quorum: they elect a leader within seconds, or their logs say why \
             they cannot",
            voters.len()
        ));
    }
    if answering == 0
        && let Some((pod, why)) = observed.silent().next()
    {
        return Some(format!(
            "no node could be asked, so nobody knows whether there is a leader: Pod {} runs, but {why}. Mend that first (it \
             takes the right to proxy to Pods, and the right --port); or, if they are beyond that, stop all Pods with \
             `scale 0` and run this again",
            pod.ordinal
        ));
    }
    let has_volume = |slot: &&u32| observed.claims.iter().any(|claim| claim.bound && claim.ordinal == **slot);
    let unwanted: Vec<&u32> = voters.iter().filter(|slot| **slot >= replicas).filter(has_volume).collect();
    if let (1.., Some(slot)) = (replicas, unwanted.iter().max()) {
        return Some(format!(
            "slot {slot} votes and has its volume, but only {replicas} replicas are wanted: bring its Pod back with `scale \
             {}`",
            **slot + 1
        ));
    }
    None
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
    let stopped = |seen: &Observed| seen.pods.iter().all(|pod| plan.given_up.contains(&pod.ordinal));
    if let Err(Failure(why)) = progress.wait(context, "all Pods to stop", patience, stopped).await {
        let left = context.observe().await.map_or_else(|Failure(more)| more, |seen| what_stops_a_pod(&seen));
        return Err(Failure(format!("{why}. {left}")));
    }
    let mut looks = Vec::new();
    for (ordinal, claim) in plan.claims.iter().filter(|(ordinal, _)| !plan.given_up.contains(ordinal)) {
        progress.say(&format!("looking at {claim}"));
        let look = look_at(context, *ordinal, claim, patience).await;
        progress.say(&match &look {
            Ok(RecoveryLook::Member(RecoveryAnswer { last_term, last_index, .. })) => {
                format!("slot {ordinal}: last entry term {last_term}, index {last_index}")
            }
            Ok(RecoveryLook::Begun(_)) => {
                format!("slot {ordinal} was chosen before, and its recovery was cut off")
            }
            Ok(RecoveryLook::Restoring) => {
                format!("slot {ordinal}: a restore into it was begun and has not ended")
            }
            Ok(RecoveryLook::Nothing { why }) | Err(Failure(why)) => format!("slot {ordinal}: {why}"),
        });
        looks.push((*ordinal, look));
    }
    let mark = context.mark().await?;
    let choice = choose(&looks, &mark)?;
    let Choice { survivor, cluster, goes_on, abandoned, aside, .. } = &choice;
    let claim_of = |wanted: u32| plan.claims.iter().find(|(ordinal, _)| *ordinal == wanted);
    match (*goes_on, claim_of(*survivor)) {
        (true, Some((ordinal, claim))) => {
            let heir = choice.heir.clone().map_or_else(mint_cluster, Ok)?;
            context.give_up(&mark.with_given_up(abandoned, Some(heir.as_str())), Some(&heir)).await?;
            let done = go_on_with(context, *ordinal, claim, &heir, patience).await.map_err(|Failure(why)| {
                let mark = context.mark_name();
                Failure(format!(
                    "{why}. Until this is run again and ends, no node of cluster {cluster} starts: the ConfigMap {mark} says that \
                     it was given up. If it fails in the same way again, go on without this volume: --give-up {ordinal}"
                ))
            })?;
            let new = done.new_cluster.unwrap_or_default();
            context.set_mark(&new).await?;
            progress.say(&format!("slot {ordinal} goes on as cluster {new}"));
        }
        _ => {
            progress.say(&format!(
                "the volumes of a quorum of cluster {cluster} are there: nothing of it is lost, and it is only started"
            ));
            // A run that was cut off may have given it up.
            context.give_up(&mark.with_given_up(abandoned, Some(cluster)), mark.heir.as_deref()).await?;
            context.set_mark(cluster).await?;
        }
    }
    let mut stuck = Vec::new();
    for (ordinal, claim) in aside.iter().chain(&plan.given_up).filter_map(|slot| claim_of(*slot)) {
        let patience = match plan.given_up.contains(ordinal) {
            true => patience.min(GIVEN_UP_PATIENCE),
            false => patience,
        };
        match Errand::new(context, *ordinal, claim).run(&["set-aside", "--yes"], patience).await {
            Ok(said) => progress.say(&format!("slot {ordinal}: {}", said.trim())),
            Err(Failure(why)) => {
                stuck.push(*ordinal);
                progress.say(&format!(
                    "slot {ordinal} could not be set aside ({why}): its node will stop when it finds that its cluster was \
                     given up. Delete its claim and its Pod once it holds nothing that you want"
                ));
            }
        }
    }
    let replicas = choice.replicas(plan.replicas);
    wake(context, replicas, &stuck, patience, progress).await
}

/// Starts the Pods of a cluster of one, and waits until those at all other slots have joined, but for the `stuck`.
pub(crate) async fn wake(
    context: &Context,
    replicas: u32,
    stuck: &[u32],
    patience: Duration,
    progress: &mut Progress,
) -> Outcome<()> {
    progress.say(&format!("starting {replicas} Pods"));
    context.set_replicas(replicas).await?;
    let leads = |seen: &Observed| seen.leader().is_some();
    progress.wait(context, "the member to lead", patience, leads).await?;
    progress.say("the cluster serves again");
    let joined = |seen: &Observed| {
        let mut joining = (0..replicas).filter(|slot| !stuck.contains(slot));
        let well: Vec<u32> = seen.leader().into_iter().flat_map(well_slots).collect();
        joining.all(|slot| well.contains(&slot))
    };
    let seen = progress.wait(context, "the others to join", patience, joined).await?;
    progress.say(&format!("done: {}", seen.summary()));
    Ok(())
}

fn well_slots(leader: &ClusterAnswer) -> impl Iterator<Item = u32> {
    leader.members.iter().filter(|member| is_well(member)).map(|member| member.slot)
}

/// What a volume holds; changes nothing.
pub(crate) async fn look_at(
    context: &Context,
    ordinal: u32,
    claim: &str,
    patience: Duration,
) -> Outcome<RecoveryLook> {
    let said = Errand::new(context, ordinal, claim).run(&["recover", "--json"], patience).await?;
    let not_understood = |error| Failure(format!("its answer is not understood ({error}): {}", said.trim()));
    serde_json::from_str(&said).map_err(not_understood)
}

/// An id for the cluster that is about to be made.
fn mint_cluster() -> Outcome<String> {
    match getrandom::u64() {
        Ok(id) => Ok(format!("{:016x}", id.max(1))),
        Err(error) => Err(Failure(format!("the system has no randomness for a new cluster's id: {error}"))),
    }
}

/// Makes a cluster of the volume, under this id.
async fn go_on_with(
    context: &Context,
    ordinal: u32,
    claim: &str,
    heir: &str,
    patience: Duration,
) -> Outcome<RecoveryAnswer> {
    let arguments = ["recover", "--json", "--yes", "--new-cluster", heir];
    let said = Errand::new(context, ordinal, claim).run(&arguments, patience).await?;
    let done: RecoveryAnswer = serde_json::from_str(&said).map_err(|error| {
        Failure(format!("the recovery of slot {ordinal} is not understood ({error}): {said}"))
    })?;
    match done.new_cluster {
        Some(_) => Ok(done),
        None => Err(Failure(format!("slot {ordinal} was not recovered: {said}"))),
    }
}

/// What to do about Pods that do not stop.
fn what_stops_a_pod(observed: &Observed) -> String {
    let left: Vec<String> = observed.pods.iter().map(Pod::place).collect();
    format!(
        "Left: Pod {}. {STOPS_NOT}; if its volume went with it, give its slot up with --give-up. Then run this again",
        left.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_no_leader_and_a_volume_is_recovered() {
        use crate::sample::installation;
        let lost = installation(3, "0 1? 2?", None);
        let found = plan(&lost, None, &[]).unwrap();
        assert_eq!((found.claims.len(), found.replicas), (3, Some(3)));
        assert_eq!(found.answering, [(0, 4, 100)]);
        let text = found.to_string();
        assert!(text.contains("slot 0: term 4, last index 100") && text.contains("Say --yes"), "{text}");
        let why = plan(&installation(3, "0 1 2", Some(1)), None, &[]).unwrap_err().to_string();
        assert!(why.contains("slot 1 leads"), "{why}");
        let mut asleep = Observed { pods: Vec::new(), ..installation(3, "0 1 2", None) };
        asleep.set.as_mut().unwrap().replicas = 0;
        let found = plan(&asleep, Some(5), &[]).unwrap();
        assert_eq!(found.replicas, Some(5));
        assert!(found.to_string().contains("`scale` wakes it"), "{found}");
        assert_eq!(plan(&asleep, None, &[]).unwrap().replicas, None);
        let mut deleting = lost.clone();
        deleting.set.as_mut().unwrap().deletes_volumes = true;
        assert!(plan(&deleting, None, &[]).unwrap_err().to_string().contains("is Delete"));
        let given_up = plan(&lost, None, &[2]).unwrap().to_string();
        assert!(given_up.contains("data-balsa-1;") && given_up.contains("slot 2 is given up"), "{given_up}");
        assert!(plan(&lost, None, &[7]).unwrap_err().to_string().contains("no volume of slot 7"));
        assert!(plan(&lost, None, &[0, 1, 2]).unwrap_err().to_string().contains("restore a backup"));
        assert!(plan(&Observed { claims: Vec::new(), ..lost }, None, &[]).is_err());
    }

    #[test]
    fn nothing_is_given_up_while_there_may_be_a_quorum() {
        use crate::sample::installation;
        let refused = |observed: &Observed| plan(observed, None, &[]).unwrap_err().to_string();
        let forbidden = |observed: &mut Observed| {
            for pod in &mut observed.pods {
                (pod.told, pod.silence) = (None, Some("pods/proxy is forbidden".into()));
            }
        };
        // All is well, but nobody may ask the nodes.
        let mut unasked = installation(3, "0 1 2", Some(1));
        forbidden(&mut unasked);
        let why = refused(&unasked);
        assert!(why.contains("Pod 0 is ready") && why.contains("pods/proxy is forbidden"), "{why}");
        // Nobody may ask the nodes, and none is ready.
        let mut unknown = installation(3, "0 1 2", None);
        forbidden(&mut unknown);
        let why = refused(&unknown);
        assert!(why.contains("no node could be asked") && why.contains("forbidden"), "{why}");
        // An election.
        let why = refused(&installation(3, "0 1 2?", None));
        assert!(why.contains("2 of 3 voters answer"), "{why}");
        // Woken with too few.
        let mut few = installation(3, "0 1? 2?", None);
        few.set.as_mut().unwrap().replicas = 1;
        few.pods.truncate(1);
        assert!(refused(&few).contains("`scale 3`"));
    }
}
