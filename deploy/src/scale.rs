//! `scale N`: changes the replicas, and waits until the members have followed. Refuses what would lose the quorum.

use crate::context::Context;
use crate::observed::{Observed, is_well};
use crate::progress::Progress;
use crate::{Failure, Outcome};
use std::time::Duration;

/// What to do where volumes go with the Pods that are scaled in.
pub(crate) const KEEP_VOLUMES: &str = "the StatefulSet's persistentVolumeClaimRetentionPolicy.whenScaled is Delete. Set it to Retain first (the chart's \
     value persistence.whenScaled)";

/// What a change of size comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Pods wanted now.
    pub from: u32,
    /// Pods wanted then.
    pub to: u32,
    /// What a person should know, if anything.
    pub advice: Option<String>,
}

/// How to get to `to` replicas, or why not.
pub fn plan(observed: &Observed, to: u32) -> Outcome<Plan> {
    let refuse = |why: String| Err(Failure(why));
    let Some(set) = &observed.set else {
        return refuse(
            "there is no such StatefulSet: look with `kubectl get statefulsets`, and give --name".into(),
        );
    };
    if set.being_deleted {
        return refuse("the StatefulSet is being deleted".into());
    }
    let from = set.replicas;
    if to == 0 && set.deletes_volumes {
        return refuse(format!(
            "Kubernetes would delete every volume, and all data with them: {KEEP_VOLUMES}"
        ));
    }
    if to == 0 {
        let advice = "every Pod stops, and the cluster serves nobody; no member is removed, and all data is kept for when \
                      it is scaled out again";
        return Ok(Plan { from, to, advice: Some(advice.into()) });
    }
    if from > 0 && to < from {
        let members = observed.members();
        if observed.leader().is_none() {
            return refuse(format!(
                "there is no leader, so no member can be removed: Pods would stop that are needed for a quorum. {} \
                 replicas are wanted now; bring their Pods back first, or see `recover`",
                from
            ));
        }
        let stay: Vec<_> = members.iter().filter(|member| member.slot < to).collect();
        let well = stay.iter().filter(|member| is_well(member)).count();
        let needed = stay.len() / 2 + 1;
        if stay.is_empty() || well < needed {
            return refuse(format!(
                "of the {} members that would stay only {well} vote, answer and are up to date, and {needed} are needed: \
                 the cluster would lose its quorum. `status` says what is wrong with the others",
                stay.len()
            ));
        }
    }
    if from == 0 {
        let volumes = observed.volumes().len();
        let needed = volumes / 2 + 1;
        if volumes > 0 && (to as usize) < needed {
            return refuse(format!(
                "the cluster sleeps, and {volumes} volumes are there: if all are members', {needed} are needed for a quorum, \
                 and only with one can members be removed. `scale {volumes}` wakes them all, and a smaller size comes then. If \
                 the cluster fell asleep with {to}, `kubectl scale statefulset NAME --replicas={to}` wakes it"
            ));
        }
    }
    let advice = match to {
        1 => Some("one member survives no loss at all".to_owned()),
        even if even % 2 == 0 => {
            Some(format!("{even} members survive the loss of no more than {} do", even - 1))
        }
        _ => None,
    };
    Ok(Plan { from, to, advice })
}

/// Does it, and waits until it is done.
pub async fn execute(context: &Context, plan: &Plan, patience: Duration) -> Outcome<()> {
    let mut progress = Progress::start();
    if let Some(advice) = &plan.advice {
        progress.say(advice);
    }
    if plan.from != plan.to {
        progress.say(&format!("{} replicas become {}", plan.from, plan.to));
        context.set_replicas(plan.to).await?;
    }
    let to = plan.to;
    if to == 0 {
        let gone = |observed: &Observed| observed.pods.is_empty();
        progress.wait(context, "all Pods to stop", patience, gone).await?;
        progress.say("all Pods have stopped; `scale N` brings them back");
        return Ok(());
    }
    let what = format!("the {to} members to be voters and well");
    let settled = |observed: &Observed| observed.pods.len() == to as usize && observed.is_whole(to);
    let seen = progress.wait(context, &what, patience, settled).await?;
    progress.say(&format!("done: {}", seen.summary()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::installation;

    #[test]
    fn what_is_done_and_what_is_refused() {
        // members, leader, from, to, and what is said
        let table = [
            ("0 1 2", Some(0), 3, 5, Ok("")),
            ("0 1 2 3 4", Some(4), 5, 3, Ok("")),
            ("0 1 2", Some(0), 3, 1, Ok("survives no loss")),
            ("0 1 2", Some(0), 3, 4, Ok("than 3 do")),
            ("0 1 2", Some(0), 3, 0, Ok("all data is kept")),
            ("0 1 2", None, 3, 5, Ok("")), // more Pods harm nobody
            ("0 1 2", None, 3, 1, Err("there is no leader")),
            ("0 1? 2? 3 4", Some(4), 5, 3, Err("only 1 vote, answer and are up to date, and 2 are needed")),
            ("0 1? 2 3 4", Some(4), 5, 3, Ok("")),
            ("0l 1 2", Some(1), 3, 1, Err("only 0 vote")),
            ("0< 1 2", Some(1), 3, 1, Err("only 0 vote")),
        ];
        for (members, leader, from, to, expected) in table {
            let plan = plan(&installation(from, members, leader), to);
            match (&plan, expected) {
                (Ok(plan), Ok(advice)) => {
                    assert_eq!((plan.from, plan.to), (from, to));
                    let said = plan.advice.clone().unwrap_or_default();
                    assert!(
                        said.contains(advice) && said.is_empty() == advice.is_empty(),
                        "{members} to {to}: {said}"
                    );
                }
                (Err(Failure(why)), Err(words)) => assert!(why.contains(words), "{members} to {to}: {why}"),
                _ => panic!("{members} to {to}: {plan:?}"),
            }
        }
        let mut asleep = installation(3, "0 1 2", None);
        asleep.set.as_mut().unwrap().replicas = 0;
        asleep.pods.clear();
        let why = plan(&asleep, 1).unwrap_err().to_string();
        assert!(why.contains("2 are needed") && why.contains("`scale 3` wakes"), "{why}");
        assert!(plan(&asleep, 2).is_ok() && plan(&asleep, 3).is_ok());
        let mut deleting = installation(3, "0 1 2", Some(0));
        deleting.set.as_mut().unwrap().deletes_volumes = true;
        assert!(plan(&deleting, 0).unwrap_err().to_string().contains("all data with them"));
        assert!(plan(&deleting, 1).is_ok());
        let gone = Observed { set: None, ..installation(3, "0 1 2", Some(0)) };
        assert!(plan(&gone, 3).is_err());
    }
}
