//! `restore`: a backup becomes a new cluster, in an installation that sleeps and whose volumes hold nothing.
//!
//! 1. The backup is read from its first byte to its last.
//! 2. Each volume is looked at: one that holds a member's data, or cannot be looked at, ends it here. Nothing is overwritten;
//!    what a removed member left is set aside.
//! 3. On the volume of slot 0, which is claimed where it is missing, a Pod runs the node's own `restore`, and is sent the backup
//!    through the API server.
//! 4. The mark of the founding names the new cluster, and says of the old one that it is given up; the Pods start, and the
//!    others join by themselves.
//!
//! Cut off at any moment it can be run again, with the same backup.

use crate::context::Context;
use crate::errand::Errand;
use crate::observed::{Observed, STOPS_NOT};
use crate::progress::Progress;
use crate::recover::{look_at, wake};
use crate::{Failure, Outcome};
use balsa_wire::backup::BackupAnswer;
use balsa_wire::repair::{RecoveryLook, RestorationAnswer};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The slot whose volume gets the backup.
const SLOT: u32 = 0;

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Volumes that are there, as ordinal and claim.
    pub claims: Vec<(u32, String)>,
    /// Replicas afterwards.
    pub replicas: u32,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claims: Vec<&str> = self.claims.iter().map(|(_, claim)| claim.as_str()).collect();
        let claims = if claims.is_empty() { "none is there".to_owned() } else { claims.join(", ") };
        writeln!(f, "1. see that no volume holds anything: {claims};")?;
        writeln!(f, "2. make a new cluster of the backup on the volume of slot {SLOT};")?;
        write!(f, "3. start {} Pods, which join it. Say --yes to do it.", self.replicas)
    }
}

/// How a backup gets into the installation, or why not.
pub fn plan(observed: &Observed, replicas: Option<u32>) -> Outcome<Plan> {
    let Some(set) = &observed.set else {
        return Err(Failure(
            "there is no such StatefulSet: install one that sleeps, with replicaCount=0 and initialSize=3"
                .into(),
        ));
    };
    if set.replicas > 0 {
        return Err(Failure(format!(
            "{} Pods are wanted: a backup is restored where all sleep, and no volume holds anything. Give it an installation \
             of its own (replicaCount=0 and initialSize=3); or, to replace what is here, `scale 0`, and delete the claims of \
             its volumes once they hold nothing that you want",
            set.replicas
        )));
    }
    if let Some(pod) = observed.pods.first() {
        return Err(Failure(format!(
            "Pod {} has not stopped yet: run this again once it has. {STOPS_NOT}",
            pod.place()
        )));
    }
    if replicas == Some(0) {
        return Err(Failure("--replicas 0: give 1 or more".into()));
    }
    Ok(Plan { claims: observed.volumes(), replicas: replicas.or(set.initial_size).unwrap_or(1).max(1) })
}

/// Reads all of the backup; gives what it is of.
pub fn check(file: &Path) -> Outcome<BackupAnswer> {
    balsa_client::verify_backup(file).map_err(|error| Failure(format!("{}: {error}", file.display())))
}

/// Does it.
pub async fn execute(
    context: &Context,
    plan: &Plan,
    file: &Path,
    patience: Duration,
    progress: &mut Progress,
) -> Outcome<()> {
    for (ordinal, claim) in &plan.claims {
        progress.say(&format!("looking at {claim}"));
        let why = match look_at(context, *ordinal, claim, patience).await {
            Ok(RecoveryLook::Restoring) if *ordinal == SLOT => continue,
            Ok(RecoveryLook::Nothing { .. }) => {
                // What a removed member left would keep its node from joining another cluster.
                let said =
                    Errand::new(context, *ordinal, claim).run(&["set-aside", "--yes"], patience).await?;
                progress.say(&format!("{claim}: {}", said.trim()));
                continue;
            }
            Ok(RecoveryLook::Member(found)) if *ordinal == SLOT => format!(
                "it holds a member of cluster {}. If a restore was cut off, that is what it made: `scale {}` starts it",
                found.cluster, plan.replicas
            ),
            Ok(RecoveryLook::Member(found)) => format!("it holds a member of cluster {}", found.cluster),
            Ok(RecoveryLook::Restoring) => "a restore into it was begun".to_owned(),
            Ok(RecoveryLook::Begun(_)) => "a recovery of it was begun".to_owned(),
            Err(Failure(why)) => format!("what it holds is not known: {why}"),
        };
        return Err(Failure(format!(
            "{claim} is not blank: {why}. Nothing was overwritten. Once it holds nothing that you want, delete the claim"
        )));
    }
    let mark = context.mark().await?;
    context.give_up(&mark.with_given_up(mark.cluster.iter().chain(&mark.heir), None), None).await?; // no volume is of them
    let claim = context.ensure_claim(SLOT).await?;
    progress.say(&format!("restoring into {claim}"));
    let arguments = ["restore", "-", "--json", "--yes"];
    let said = Errand::new(context, SLOT, &claim).run_on(&arguments, file, patience, progress).await?;
    let done: RestorationAnswer = serde_json::from_str(&said)
        .map_err(|error| Failure(format!("the restore's answer is not understood ({error}): {said}")))?;
    let new = done.new_cluster.ok_or_else(|| Failure(format!("nothing was restored: {said}")))?;
    context.set_mark(&new).await?;
    progress.say(&format!("slot {SLOT} holds cluster {new}, at revision {}", done.new_revision));
    wake(context, plan.replicas, &[], patience, progress).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::installation;

    #[test]
    fn a_backup_goes_only_where_all_sleep() {
        let awake = plan(&installation(3, "0 1 2", Some(0)), None).unwrap_err().to_string();
        assert!(awake.contains("3 Pods are wanted"), "{awake}");
        let mut asleep = installation(3, "0 1 2", None);
        asleep.set.as_mut().unwrap().replicas = 0;
        assert!(plan(&asleep, None).unwrap_err().to_string().contains("Pod 0 on node-0 has not stopped"));
        asleep.pods.clear();
        assert!(plan(&asleep, Some(0)).is_err());
        assert_eq!(plan(&asleep, Some(5)).unwrap().replicas, 5);
        asleep.set.as_mut().unwrap().initial_size = Some(3);
        let found = plan(&asleep, None).unwrap();
        assert_eq!((found.claims.len(), found.replicas), (3, 3));
        asleep.claims.clear();
        let text = plan(&asleep, None).unwrap().to_string();
        assert!(text.contains("none is there") && text.contains("Say --yes"), "{text}");
        assert!(plan(&Observed::default(), None).is_err());
    }

    #[test]
    fn a_backup_that_is_none_is_refused_before_anything_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("backup");
        assert!(check(&file).unwrap_err().to_string().contains("backup: "));
        std::fs::write(&file, "no backup at all").unwrap();
        assert!(check(&file).is_err());
    }
}
