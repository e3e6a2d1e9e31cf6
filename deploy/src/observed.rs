//! All that is known of an installation at one moment, as data: what Kubernetes says, and what each node says.

use balsa_wire::cluster::{ClusterAnswer, Health, Member, MembershipKind, Role};

/// An installation.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Observed {
    /// Its StatefulSet; `None`: there is none of that name.
    pub set: Option<Set>,
    /// Its Pods, by ordinal.
    pub pods: Vec<Pod>,
    /// The claims of its volumes, by ordinal, those that no Pod uses now included.
    pub claims: Vec<Claim>,
    /// The cluster that was founded here, as the mark has it.
    pub mark: Option<String>,
}

/// The mark of the founding, in the installation's ConfigMap.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// The cluster that lives here.
    pub cluster: Option<String>,
    /// Those that were given up, and must not come back.
    pub given_up: Vec<String>,
    /// The one that a recovery was about to make: it may be there, on a volume that nobody has seen since.
    pub heir: Option<String>,
}

impl Mark {
    /// All that were given up, once these are, too, and `lives` is not.
    pub fn with_given_up<'a>(
        &self,
        more: impl IntoIterator<Item = &'a String>,
        lives: Option<&str>,
    ) -> Vec<String> {
        let mut all = self.given_up.clone();
        for cluster in more {
            if !all.contains(cluster) {
                all.push(cluster.clone());
            }
        }
        all.retain(|cluster| Some(cluster.as_str()) != lives);
        all
    }

    /// Whether this cluster was given up.
    pub fn gave_up(&self, cluster: &str) -> bool {
        self.given_up.iter().any(|given_up| given_up == cluster)
    }
}

/// A StatefulSet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Set {
    /// Pods that are wanted.
    pub replicas: u32,
    /// The node's image that is wanted.
    pub image: String,
    /// The revision of the Pod template that is wanted, as Kubernetes names it.
    pub revision: String,
    /// The revision that Pods have which are held back: that of the last update that ended.
    pub current_revision: String,
    /// Pods of a lower ordinal are not updated.
    pub partition: u32,
    /// The controller has seen the newest specification.
    pub is_current: bool,
    /// It is being deleted.
    pub being_deleted: bool,
    /// Pods that have been ready for as long as the StatefulSet wants before the next one is touched.
    pub available: u32,
    /// How many found the cluster, as the chart recorded it.
    pub initial_size: Option<u32>,
    /// Volumes of Pods that are scaled in are deleted with them.
    pub deletes_volumes: bool,
}

/// A Pod, and what its node says.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Pod {
    /// Its ordinal: the slot of its member.
    pub ordinal: u32,
    /// The revision of the template that it was made of.
    pub revision: String,
    /// Its image.
    pub image: String,
    /// Kubernetes counts it as ready.
    pub ready: bool,
    /// It is being deleted.
    pub being_deleted: bool,
    /// Why it does not run, in Kubernetes' words, if it does not.
    pub trouble: Option<String>,
    /// How often its container was started again.
    pub restarts: u32,
    /// The Kubernetes node that it is on.
    pub node: Option<String>,
    /// What its node says of the cluster; `None`: it did not answer, or could not be asked.
    pub told: Option<ClusterAnswer>,
    /// Why there is no answer of its node, in the words of who was asked.
    pub silence: Option<String>,
}

impl Pod {
    /// Its ordinal, and where it is, in words.
    pub fn place(&self) -> String {
        self.node
            .as_ref()
            .map_or_else(|| self.ordinal.to_string(), |node| format!("{} on {node}", self.ordinal))
    }
}

/// What to do about a Pod that does not stop.
pub const STOPS_NOT: &str =
    "A machine that does not answer keeps its Pod. If it is off for good: `kubectl delete pod NAME --force`";

/// A claim of a volume.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// The ordinal of the Pod that it belongs to.
    pub ordinal: u32,
    /// It is bound to a volume.
    pub bound: bool,
    /// Its capacity, as Kubernetes writes it.
    pub capacity: Option<String>,
}

impl Observed {
    /// What the leader says of the cluster. One that was deposed and does not know it yet has a lower term.
    pub fn leader(&self) -> Option<&ClusterAnswer> {
        let told = self.pods.iter().filter_map(|pod| pod.told.as_ref());
        told.filter(|told| told.role == Role::Leader && told.leader.is_some()).max_by_key(|told| told.term)
    }

    /// The members, as the leader knows them, or else as the node does that has most of the log.
    pub fn members(&self) -> &[Member] {
        let told = self.pods.iter().filter_map(|pod| pod.told.as_ref());
        let best = self.leader().or_else(|| told.max_by_key(|told| (told.term, told.last_index)));
        best.map_or(&[], |told| &told.members)
    }

    /// The Pod of this ordinal.
    pub fn pod(&self, ordinal: u32) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.ordinal == ordinal)
    }

    /// Whether a leader says that the members are those at the slots below `size`, all voters, and all healthy and near
    /// its end of the log; and every Pod is ready.
    pub fn is_whole(&self, size: u32) -> bool {
        self.is_whole_but(size, None)
    }

    /// The same, however the Pod and the member at the slot `but` are.
    pub fn is_whole_but(&self, size: u32, but: Option<u32>) -> bool {
        let Some(leader) = self.leader() else { return false };
        let slots: Vec<u32> = leader.members.iter().map(|member| member.slot).collect();
        let ready = |ordinal| self.pod(ordinal).is_some_and(|pod| pod.ready && !pod.being_deleted);
        slots == (0..size).collect::<Vec<_>>()
            && leader.members.iter().all(|member| Some(member.slot) == but || is_well(member))
            && (0..size).all(|ordinal| Some(ordinal) == but || ready(ordinal))
    }

    /// The Pods that look as if they ran, and whose node said nothing: with the reason.
    pub fn silent(&self) -> impl Iterator<Item = (&Pod, &str)> {
        let runs = |pod: &&Pod| pod.trouble.is_none() && !pod.being_deleted;
        self.pods.iter().filter(runs).filter_map(|pod| Some((pod, pod.silence.as_deref()?)))
    }

    /// The volumes that are there, as ordinal and claim.
    pub fn volumes(&self) -> Vec<(u32, String)> {
        let bound = self.claims.iter().filter(|claim| claim.bound);
        bound.map(|claim| (claim.ordinal, claim.name.clone())).collect()
    }

    /// The slots of the voters, as far as anybody says.
    pub fn voters(&self) -> Vec<u32> {
        let voters = self.members().iter().filter(|member| member.membership == MembershipKind::Voter);
        voters.map(|member| member.slot).collect()
    }

    /// In short, for progress: who is there and who leads.
    pub fn summary(&self) -> String {
        let Some(leader) = self.leader() else {
            let answering = self.pods.iter().filter(|pod| pod.told.is_some()).count();
            return format!("no leader; {answering} of {} nodes answer", self.pods.len());
        };
        let members: Vec<String> = leader.members.iter().map(brief).collect();
        format!("leader slot {}; members {}", leader.slot, members.join(" "))
    }
}

/// Whether a member votes, answers, and is near the end of the log.
pub fn is_well(member: &Member) -> bool {
    member.membership == MembershipKind::Voter
        && member.health == Health::Healthy
        && member.lag.is_some_and(|lag| lag < LAG_MAX)
}

/// A member this many entries behind is not up to date.
pub const LAG_MAX: u64 = 1_000;

fn brief(member: &Member) -> String {
    let learner = if member.membership == MembershipKind::Voter { "" } else { " (learner)" };
    let silent = if member.health == Health::Unreachable { " (silent)" } else { "" };
    format!("{}{learner}{silent}", member.slot)
}

#[cfg(test)]
mod tests {
    use super::Mark;

    #[test]
    fn what_goes_on_is_not_among_the_given_up_and_the_order_stays() {
        let given_up = ["a", "b"].map(str::to_owned).into();
        let mark = Mark { cluster: Some("a".into()), given_up, heir: Some("c".into()) };
        let more = ["c", "a"].map(str::to_owned);
        assert_eq!(mark.with_given_up(&more, None), ["a", "b", "c"]);
        assert_eq!(mark.with_given_up(&more, Some("b")), ["a", "c"]);
        assert!(mark.gave_up("b") && !mark.gave_up("c"));
    }
}
