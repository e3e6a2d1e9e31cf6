//! `upgrade IMAGE`: one Pod at a time, followers first, leadership moved, health between; stops where something is wrong.
//!
//! The StatefulSet's own partition holds Pods back, so that whatever stops this program also stops the update, and the
//! next run goes on from there. Pods are updated from the highest ordinal down; before ordinal 0's turn leadership has
//! moved to an updated member, and before any other's it has moved to ordinal 0, which is last.
//!
//! Where an update went wrong, the next one (to the old image, or to a third) begins with the Pod that does not run: it is
//! deleted while all are held back, so that Kubernetes makes it anew as it was before. Nothing else is touched until then.

use crate::context::Context;
use crate::observed::{Observed, Pod};
use crate::progress::Progress;
use crate::{Failure, Outcome};
use balsa_wire::cluster::MembershipKind;
use std::time::Duration;

/// The next thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Say which image is wanted, and hold every Pod back.
    SetImage,
    /// Hand leadership to the member at this slot.
    HandOver {
        /// The slot.
        slot: u32,
        /// The member.
        id: String,
    },
    /// Delete the Pod that an update left which is wanted no more, and which does not run: it comes back as it was before.
    PutBack {
        /// Its ordinal.
        ordinal: u32,
    },
    /// Let the Pods from this ordinal on be updated.
    Release {
        /// The ordinal.
        ordinal: u32,
    },
    /// All Pods run the image: hold none back any more.
    Settle,
    /// Wait: an update is under way, or somebody is not well.
    Wait(String),
    /// All Pods run the image.
    Done,
}

/// What an upgrade to `image` does next.
pub fn next(observed: &Observed, image: &str) -> Outcome<Step> {
    let Some(set) = &observed.set else {
        return Err(Failure("there is no such StatefulSet: look with `kubectl get statefulsets`".into()));
    };
    if set.being_deleted || set.replicas == 0 {
        return Err(Failure("no Pods are wanted: scale out first".into()));
    }
    if set.image != image {
        // Not before all are well: an update of a limping cluster may cost its quorum. But for the Pod that the update
        // before this one left: that one is not well because of its image.
        let of_update = |pod: &&Pod| pod.revision == set.revision && set.revision != set.current_revision;
        let left = observed.pods.iter().filter(of_update).find(|pod| !pod.ready);
        return Ok(if observed.is_whole_but(set.replicas, left.map(|pod| pod.ordinal)) {
            Step::SetImage
        } else {
            Step::Wait("all members to be well before the first Pod is touched".into())
        });
    }
    if !set.is_current {
        return Ok(Step::Wait("Kubernetes to take note of the change".into()));
    }
    let is_left = |pod: &&Pod| ![&set.revision, &set.current_revision].contains(&&pod.revision);
    if let Some(left) = observed.pods.iter().filter(is_left).find(|pod| !pod.ready) {
        let ordinal = left.ordinal;
        return Ok(match left.being_deleted || set.partition <= ordinal {
            true => Step::Wait(format!("Kubernetes to replace Pod {ordinal}")),
            false if observed.is_whole_but(set.replicas, Some(ordinal)) => Step::PutBack { ordinal },
            false => Step::Wait("all other members to be well again".into()),
        });
    }
    let updated = |ordinal: u32| observed.pod(ordinal).is_some_and(|pod| pod.revision == set.revision);
    if let Some(pod) =
        observed.pods.iter().find(|pod| updated(pod.ordinal) && pod.trouble.is_some() && !pod.ready)
    {
        return Ok(Step::Wait(format!(
            "Pod {} to run: {}",
            pod.ordinal,
            pod.trouble.as_deref().unwrap_or_default()
        )));
    }
    if !observed.is_whole(set.replicas) {
        return Ok(Step::Wait("all members to be well again".into()));
    }
    let Some(last) = (0..set.replicas).rev().find(|ordinal| !updated(*ordinal)) else {
        return Ok(if set.partition > 0 { Step::Settle } else { Step::Done });
    };
    if set.available < set.replicas {
        // Clients find it again by then: names lead to where a Pod was for a while.
        return Ok(Step::Wait("all Pods to be ready for long enough".into()));
    }
    if set.partition <= last {
        return Ok(Step::Wait(format!("Kubernetes to replace Pod {last}")));
    }
    // Whoever is to be updated must not lead; who leads while others are updated is the one that comes last.
    let heir = if last == 0 { (1..set.replicas).find(|ordinal| updated(*ordinal)) } else { Some(0) };
    let leader = observed.leader().map(|told| told.slot);
    if let Some(heir) = heir
        && leader != Some(heir)
        && (leader == Some(last) || last > 0)
    {
        let member = observed.members().iter().find(|member| member.slot == heir);
        let member = member.filter(|member| member.membership == MembershipKind::Voter);
        if let Some(member) = member {
            return Ok(Step::HandOver { slot: heir, id: member.id.clone() });
        }
    }
    Ok(Step::Release { ordinal: last })
}

/// Does one step after the other. `patience` is for each Pod.
pub async fn execute(context: &Context, image: &str, patience: Duration) -> Outcome<()> {
    let mut progress = Progress::start();
    loop {
        let observed = progress.wait(context, "a look at the installation", patience, |_| true).await?;
        match next(&observed, image)? {
            Step::Done => {
                progress.say(&format!("done: all Pods run {image}; {}", observed.summary()));
                return Ok(());
            }
            Step::SetImage => {
                let replicas = observed.set.as_ref().map_or(0, |set| set.replicas);
                progress.say(&format!("the image becomes {image}; all Pods are held back"));
                context.set_image(image, replicas).await?;
            }
            Step::HandOver { slot, id } => {
                progress.say(&format!("leadership goes to slot {slot}"));
                let by = observed.leader().map_or(slot, |told| told.slot);
                context.transfer(by, &id).await?;
                let leads = move |seen: &Observed| seen.leader().is_some_and(|told| told.slot == slot);
                progress.wait(context, &format!("slot {slot} to lead"), patience, leads).await?;
            }
            Step::PutBack { ordinal } => {
                progress.say(&format!("Pod {ordinal} does not run: it is made anew as it was before"));
                context.delete_pod(ordinal, false).await?;
                let gone = move |seen: &Observed| {
                    seen.pod(ordinal).is_none_or(|pod| {
                        let set = seen.set.as_ref();
                        set.is_none_or(|set| [&set.revision, &set.current_revision].contains(&&pod.revision))
                    })
                };
                progress.wait(context, &format!("Pod {ordinal} to be made anew"), patience, gone).await?;
            }
            Step::Release { ordinal } => {
                progress.say(&format!("Pod {ordinal} is updated"));
                context.set_partition(ordinal).await?;
            }
            Step::Settle => context.set_partition(0).await?,
            Step::Wait(what) => {
                let over = |seen: &Observed| !matches!(next(seen, image), Ok(Step::Wait(_)));
                progress.wait(context, &what, patience, over).await.map_err(|Failure(why)| {
                    Failure(format!(
                        "the upgrade has stopped, and no other Pod is touched: {why}. Look at the Pod's log; run this \
                         again to go on, or with the old image to go back"
                    ))
                })?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::installation;

    /// What Kubernetes and the nodes do about a step.
    fn happen(observed: Observed, step: &Step, image: &str) -> Observed {
        let mut next = observed;
        let leader = next.leader().map(|told| told.slot);
        match step {
            Step::SetImage => {
                let set = next.set.as_mut().unwrap();
                set.image = image.into();
                set.revision = "new".into();
                set.partition = set.replicas;
            }
            Step::HandOver { slot, .. } => {
                let pods = next.pods.clone();
                let replicas = next.set.as_ref().unwrap().replicas;
                let members: Vec<String> = (0..replicas).map(|slot| slot.to_string()).collect();
                let seen = installation(replicas, &members.join(" "), Some(*slot));
                next.pods = seen.pods;
                for (pod, before) in next.pods.iter_mut().zip(pods) {
                    pod.revision = before.revision;
                }
            }
            Step::Release { ordinal } => {
                assert_ne!(leader, Some(*ordinal).filter(|_| next.pods.len() > 1), "no leader is updated");
                let set = next.set.as_mut().unwrap();
                set.partition = *ordinal;
                let revision = set.revision.clone();
                next.pods[*ordinal as usize].revision = revision;
            }
            Step::PutBack { ordinal } => {
                let revision = next.set.as_ref().unwrap().current_revision.clone();
                let members = installation(3, "0 1 2", leader);
                let pod = members.pods[*ordinal as usize].clone();
                next.pods[*ordinal as usize] = Pod { revision, ..pod };
                for pod in &mut next.pods {
                    pod.told = members.pods[pod.ordinal as usize].told.clone();
                }
            }
            Step::Settle => next.set.as_mut().unwrap().partition = 0,
            Step::Wait(_) | Step::Done => {}
        }
        next
    }

    #[test]
    fn one_pod_at_a_time_and_never_the_leader() {
        for (replicas, leader) in [(1, 0), (3, 0), (3, 2), (5, 3)] {
            let members: Vec<String> = (0..replicas).map(|slot| slot.to_string()).collect();
            let mut observed = installation(replicas, &members.join(" "), Some(leader));
            let mut released = Vec::new();
            loop {
                let step = next(&observed, "balsa:2").unwrap();
                match &step {
                    Step::Done => break,
                    Step::Release { ordinal } => released.push(*ordinal),
                    Step::Wait(what) => panic!("all are well, and it waits for {what}"),
                    _ => {}
                }
                observed = happen(observed, &step, "balsa:2");
            }
            assert_eq!(released, (0..replicas).rev().collect::<Vec<_>>());
            assert_eq!(observed.set.unwrap().partition, 0, "nothing is left held back");
        }
    }

    /// An update to `balsa:2` whose first Pod does not run.
    fn stuck() -> Observed {
        let mut half = installation(3, "0 1 2?", Some(0));
        let set = half.set.as_mut().unwrap();
        (set.image, set.revision, set.partition) = ("balsa:2".into(), "new".into(), 2);
        half.pods[2].revision = "new".into();
        half.pods[2].trouble = Some("ImagePullBackOff".into());
        half
    }

    #[test]
    fn the_way_back_begins_with_the_pod_that_does_not_run() {
        for (image, revision, released) in [("balsa:1", "old", 0), ("balsa:3", "third", 3)] {
            let mut observed = stuck();
            assert_eq!(next(&observed, image), Ok(Step::SetImage), "{image}");
            let set = observed.set.as_mut().unwrap();
            (set.image, set.revision, set.partition) = (image.into(), revision.into(), 3);
            assert_eq!(next(&observed, image), Ok(Step::PutBack { ordinal: 2 }), "{image}");
            observed = happen(observed, &Step::PutBack { ordinal: 2 }, image);
            let mut steps = Vec::new();
            loop {
                match next(&observed, image).unwrap() {
                    Step::Done => break,
                    step => {
                        observed = happen(observed, &step, image);
                        steps.push(step);
                    }
                }
                assert!(steps.len() < 20, "{image}: {steps:?}");
            }
            let count = steps.iter().filter(|step| matches!(step, Step::Release { .. })).count();
            assert_eq!(count, released, "{image}: {steps:?}");
            assert_eq!(observed.set.unwrap().partition, 0, "nothing is left held back");
        }
        let mut two = stuck();
        two.pods[1].ready = false; // of the old image: it is not the update that keeps it away
        assert!(matches!(next(&two, "balsa:1"), Ok(Step::Wait(_))));
    }

    #[test]
    fn it_stops_where_something_is_wrong() {
        let wait = |observed: &Observed, image: &str, words: &str| match next(observed, image) {
            Ok(Step::Wait(what)) => assert!(what.contains(words), "{what}"),
            other => panic!("{words}: {other:?}"),
        };
        wait(&installation(3, "0 1 2?", Some(0)), "balsa:2", "before the first Pod");
        wait(&installation(3, "0 1 2", None), "balsa:2", "before the first Pod");

        let mut half = happen(installation(3, "0 1 2", Some(0)), &Step::SetImage, "balsa:2");
        half = happen(half, &Step::Release { ordinal: 2 }, "balsa:2");
        half.pods[2].ready = false;
        wait(&half, "balsa:2", "to be well again");
        half.pods[2].trouble = Some("ImagePullBackOff".into());
        wait(&half, "balsa:2", "Pod 2 to run: ImagePullBackOff");
        half.set.as_mut().unwrap().is_current = false;
        wait(&half, "balsa:2", "take note");
        let mut young = happen(installation(3, "0 1 2", Some(0)), &Step::SetImage, "balsa:2");
        young.set.as_mut().unwrap().available = 2;
        wait(&young, "balsa:2", "ready for long enough");
        let asleep = installation(0, "", None);
        assert!(next(&asleep, "balsa:2").is_err());
    }
}
