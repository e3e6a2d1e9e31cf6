//! `status`: members, roles, lag, versions, volumes; what is wrong, and what to do next.
//!
//! [`diagnose`] is pure: what it finds follows from [`Observed`] alone.

use crate::observed::{LAG_MAX, Observed, Pod, STOPS_NOT};
use balsa_wire::cluster::{Health, MembershipKind, Phase};
use serde::Serialize;
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is wrong: it is under way, or as it was asked for.
    Note,
    /// The cluster serves, and survives less than it should.
    Warning,
    /// The cluster does not serve, or the next loss takes it down.
    Critical,
}

/// Something to know, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is so.
    pub what: String,
    /// What a person should do; empty: nothing.
    pub next: String,
}

/// A row of the table: a slot, with what is known of its Pod, member and volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    /// The slot.
    pub slot: u32,
    /// The identity of its member.
    pub member: Option<String>,
    /// `leader`, `voter`, `learner`, or where a node that is no member stands.
    pub role: String,
    /// Whether the leader hears it.
    pub health: String,
    /// Entries behind the leader.
    pub lag: Option<u64>,
    /// Its software.
    pub version: Option<String>,
    /// How its Pod is.
    pub pod: String,
    /// The Kubernetes node of the Pod.
    pub on: Option<String>,
    /// Its volume.
    pub volume: String,
}

/// What `status` says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// The cluster, as its nodes say.
    pub cluster: Option<String>,
    /// Pods wanted.
    pub replicas: Option<u32>,
    /// The slot that leads.
    pub leader: Option<u32>,
    /// The term.
    pub term: Option<u64>,
    /// The revision.
    pub revision: Option<u64>,
    /// By slot.
    pub rows: Vec<Row>,
    /// The worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst there is.
    pub fn severity(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Note)
    }
}

/// What is to be said of an installation.
pub fn diagnose(observed: &Observed) -> Report {
    let leader = observed.leader();
    let told = leader.or_else(|| observed.pods.iter().find_map(|pod| pod.told.as_ref()));
    let mut findings = findings(observed);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Report {
        cluster: told.and_then(|told| told.cluster.clone()),
        replicas: observed.set.as_ref().map(|set| set.replicas),
        leader: leader.map(|told| told.slot),
        term: told.map(|told| told.term),
        revision: told.map(|told| told.store.revision),
        rows: rows(observed),
        findings,
    }
}

fn rows(observed: &Observed) -> Vec<Row> {
    let members = observed.members();
    let mut slots: Vec<u32> = observed.pods.iter().map(|pod| pod.ordinal).collect();
    slots.extend(members.iter().map(|member| member.slot));
    slots.extend(observed.claims.iter().map(|claim| claim.ordinal));
    slots.sort_unstable();
    slots.dedup();
    let row = |slot: u32| {
        let pod = observed.pod(slot);
        let member = members.iter().find(|member| member.slot == slot);
        let phase =
            pod.and_then(|pod| pod.told.as_ref()).map(|told| format!("{:?}", told.phase).to_lowercase());
        let role = member.map(|member| match member.membership {
            _ if member.leader => "leader".to_owned(),
            MembershipKind::Voter => "voter".to_owned(),
            _ => "learner".to_owned(),
        });
        Row {
            slot,
            member: member.map(|member| member.id.clone()),
            role: role.or(phase).unwrap_or_else(|| "no member".into()),
            health: member.map_or("-", |member| health(member.health)).to_owned(),
            lag: member.and_then(|member| member.lag),
            version: member.and_then(|member| member.version.clone()),
            pod: pod.map_or_else(|| "none".to_owned(), pod_state),
            on: pod.and_then(|pod| pod.node.clone()),
            volume: observed.claims.iter().find(|claim| claim.ordinal == slot).map_or_else(
                || "none".to_owned(),
                |claim| match claim.bound {
                    true => claim.capacity.clone().unwrap_or_else(|| "bound".into()),
                    false => "not bound".into(),
                },
            ),
        }
    };
    slots.into_iter().map(row).collect()
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Unreachable => "silent",
        _ => "unknown",
    }
}

fn pod_state(pod: &Pod) -> String {
    let state = match &pod.trouble {
        _ if pod.being_deleted => "stopping",
        Some(_) => "in trouble",
        None if pod.ready => "ready",
        None => "not ready",
    };
    if pod.restarts == 0 { state.to_owned() } else { format!("{state}, {} restarts", pod.restarts) }
}

fn findings(observed: &Observed) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say =
        |severity, what: String, next: &str| found.push(Finding { severity, what, next: next.to_owned() });
    let Some(set) = &observed.set else {
        let next = "Install the chart, or give the right --namespace and --name.";
        say(Severity::Critical, "There is no such StatefulSet.".into(), next);
        return found;
    };
    if set.being_deleted {
        say(
            Severity::Critical,
            "The StatefulSet is being deleted.".into(),
            "Its volumes stay; install again to go on.",
        );
    }
    if set.replicas == 0 {
        for pod in &observed.pods {
            let what = format!("Pod {} has not stopped yet.", pod.place());
            say(Severity::Warning, what, &format!("{STOPS_NOT}."));
        }
        say(Severity::Note, "The cluster sleeps: no Pods are wanted.".into(), "Wake it with `scale N`.");
        return found;
    }
    for pod in &observed.pods {
        if let Some(trouble) = &pod.trouble {
            let what = format!("Pod {} does not run: {trouble}", pod.ordinal);
            say(Severity::Warning, what, "Look with `kubectl describe pod` and `kubectl logs`.");
        }
        let waits =
            pod.told.as_ref().and_then(|told| told.waiting_for.as_ref().map(|waits| (told.phase, waits)));
        if let Some((phase, waits)) = waits {
            let severity = if phase == Phase::Removed { Severity::Note } else { Severity::Warning };
            say(severity, format!("The node of slot {} waits for {waits}.", pod.ordinal), "");
        }
    }
    for (pod, why) in observed.silent() {
        let what = format!("The node of slot {} could not be asked: {why}.", pod.ordinal);
        say(
            Severity::Warning,
            what,
            "Asking takes the right to proxy to Pods, the right --port, and a NetworkPolicy that lets the API server in.",
        );
    }
    let missing = (0..set.replicas).filter(|ordinal| observed.pod(*ordinal).is_none()).count();
    if missing > 0 {
        let what = format!("{missing} of {} Pods are not there.", set.replicas);
        say(
            Severity::Warning,
            what,
            "Kubernetes makes them; if it does not, `kubectl get events` tells why.",
        );
    }
    match observed.leader() {
        None => no_leader(observed, set.replicas, &mut say),
        Some(leader) => with_leader(leader, set.replicas, &mut say),
    }
    if set.partition > 0 {
        let what = format!("An update is held back: Pods below ordinal {} keep their image.", set.partition);
        say(
            Severity::Warning,
            what,
            "Run `upgrade IMAGE` once more to go on, or with the old image to go back.",
        );
    }
    found
}

fn no_leader(observed: &Observed, replicas: u32, say: &mut impl FnMut(Severity, String, &str)) {
    let unasked = observed.pods.iter().filter(|pod| pod.ready && pod.silence.is_some());
    let ready: Vec<String> = unasked.map(|pod| pod.ordinal.to_string()).collect();
    if !ready.is_empty() {
        let what = format!(
            "Whether the cluster is well is not known: no node that was asked leads, but Pod {} is ready, and so knows a leader.",
            ready.join(", ")
        );
        say(Severity::Critical, what, "Mend the way to the nodes, then look again. Do not recover anything.");
        return;
    }
    let running = observed.pods.iter().filter_map(|pod| pod.told.as_ref());
    let members = running.clone().filter(|told| told.phase == Phase::Running).count();
    let slots = observed.voters();
    let voters = slots.len();
    if voters == 0 {
        if observed.silent().next().is_some() {
            let next = "Mend the way to the nodes, then look again. Do not recover anything.";
            say(
                Severity::Critical,
                "Whether the cluster is well is not known: no member answers.".into(),
                next,
            );
        } else if let Some(claim) =
            observed.claims.iter().rev().find(|claim| claim.bound && claim.ordinal >= replicas)
        {
            let what = format!(
                "No member answers, and there is a volume of slot {}, for which no Pod is wanted.",
                claim.ordinal
            );
            let next = format!("If that slot was a member: `scale {}`.", claim.ordinal + 1);
            say(Severity::Critical, what, &next);
        } else if let Some(cluster) = &observed.mark {
            let next = "If the volumes come back, so does the cluster. If all are lost: restore a backup, or remove the \
                        key `cluster` from the data of the mark's ConfigMap, and no other, to found an empty cluster.";
            say(
                Severity::Critical,
                format!("Cluster {cluster} was founded here, and none of its members answers."),
                next,
            );
        } else if let Some(founders) =
            observed.set.as_ref().and_then(|set| set.initial_size).filter(|size| *size > replicas)
        {
            let what =
                format!("{founders} nodes are to found the cluster, and only {replicas} Pods are wanted.");
            say(Severity::Critical, what, &format!("`scale {founders}`; a smaller size can come after."));
        } else {
            say(Severity::Note, "The cluster is being founded.".into(), "");
        }
        return;
    }
    let needed = voters / 2 + 1;
    let what = format!("There is no leader. {members} members answer, and {needed} of {voters} are needed.");
    let wanted = slots.iter().filter(|slot| **slot < replicas).count();
    let next = if wanted < needed {
        "Fewer Pods are wanted than a quorum needs: `scale` back to the members' size."
    } else if members < needed {
        "Bring Pods and volumes back. If they are lost for good, `recover` says what it can save, and does it with --yes."
    } else {
        "An election takes about a second; if this lasts, look at the nodes' logs."
    };
    say(Severity::Critical, what, next);
}

fn with_leader(
    leader: &balsa_wire::cluster::ClusterAnswer,
    replicas: u32,
    say: &mut impl FnMut(Severity, String, &str),
) {
    let voters: Vec<_> =
        leader.members.iter().filter(|member| member.membership == MembershipKind::Voter).collect();
    let silent = voters.iter().filter(|member| member.health == Health::Unreachable).count();
    let spare = (voters.len() - voters.len().min(silent)).saturating_sub(voters.len() / 2 + 1);
    if silent > 0 {
        let slots: Vec<String> = voters
            .iter()
            .filter(|member| member.health == Health::Unreachable)
            .map(|member| member.slot.to_string())
            .collect();
        let what = format!(
            "The leader does not hear slot {}; {spare} more may fail before the quorum is lost.",
            slots.join(", ")
        );
        let severity = if spare == 0 && voters.len() > 1 { Severity::Critical } else { Severity::Warning };
        say(
            severity,
            what,
            "A Pod that comes back catches up; one whose volume is lost heals under a new identity.",
        );
    }
    if let Some(why) = &leader.storage_full {
        let what = format!("Writes that need room are refused: {why}.");
        say(
            Severity::Critical,
            what,
            "Reads and deletes go on. Delete keys and compact, or grow the volumes.",
        );
    }
    for member in &leader.members {
        if member.disk_low {
            let what = format!("The disk of slot {} is nearly full.", member.slot);
            say(
                Severity::Warning,
                what,
                "Delete keys and compact, or grow its volume, before most disks are.",
            );
        }
        if member.health == Health::Healthy && member.lag.is_some_and(|lag| lag >= LAG_MAX) {
            let what = format!("Slot {} is {} entries behind.", member.slot, member.lag.unwrap_or_default());
            say(Severity::Warning, what, "It catches up; if not, its disk or its network is too slow.");
        }
        if member.membership != MembershipKind::Voter {
            say(
                Severity::Note,
                format!("Slot {} is a learner: it votes once it has caught up.", member.slot),
                "",
            );
        }
        if member.slot >= replicas {
            say(Severity::Note, format!("Slot {} is scaled in, and about to be removed.", member.slot), "");
        }
    }
    for slot in (0..replicas).filter(|slot| leader.members.iter().all(|member| member.slot != *slot)) {
        say(
            Severity::Warning,
            format!("Slot {slot} has no member yet."),
            "Its node joins by itself once it runs.",
        );
    }
    let mut versions: Vec<&str> =
        leader.members.iter().filter_map(|member| member.version.as_deref()).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        say(Severity::Note, format!("Versions differ: {}.", versions.join(", ")), "End the update.");
    }
    if leader.members.len() == 1 {
        say(Severity::Note, "One member survives no loss at all.".into(), "`scale 3` where that matters.");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        let number = |value: Option<u64>| text(value.map(|number| number.to_string()));
        writeln!(f, "cluster   {}", text(self.cluster.clone()))?;
        writeln!(f, "replicas  {}", number(self.replicas.map(u64::from)))?;
        writeln!(f, "leader    {}", text(self.leader.map(|slot| format!("slot {slot}"))))?;
        writeln!(f, "term      {}", number(self.term))?;
        writeln!(f, "revision  {}", number(self.revision))?;
        writeln!(f)?;
        let head =
            ["SLOT", "ROLE", "HEALTH", "LAG", "VERSION", "POD", "ON", "VOLUME", "MEMBER"].map(str::to_owned);
        let dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let mut table = vec![head];
        table.extend(self.rows.iter().map(|row| {
            [
                row.slot.to_string(),
                row.role.clone(),
                row.health.clone(),
                dash(row.lag.map(|lag| lag.to_string())),
                dash(row.version.clone()),
                row.pod.clone(),
                dash(row.on.clone()),
                row.volume.clone(),
                dash(row.member.clone()),
            ]
        }));
        let widths: [usize; 9] =
            std::array::from_fn(|at| table.iter().map(|row| row[at].len()).max().unwrap_or(0));
        for row in &table {
            let cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        writeln!(f)?;
        if self.findings.is_empty() {
            return write!(f, "All is well.");
        }
        let lines: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        write!(f, "{}", lines.join("\n"))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Critical => "CRITICAL",
        };
        write!(f, "{severity}: {}", self.what)?;
        if self.next.is_empty() { Ok(()) } else { write!(f, " {}", self.next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::installation;

    #[test]
    fn what_is_found() {
        // members, leader, replicas, the worst, words of the findings
        let table = [
            ("0 1 2", Some(0), 3, Severity::Note, ""),
            ("0 1 2?", Some(0), 3, Severity::Critical, "does not hear slot 2; 0 more may fail"),
            ("0 1 2 3 4?", Some(0), 5, Severity::Warning, "1 more may fail"),
            ("0 1? 2?", None, 3, Severity::Critical, "1 members answer, and 2 of 3 are needed"),
            ("0 1 2l", Some(0), 3, Severity::Note, "Slot 2 is a learner"),
            ("0 1< 2", Some(0), 3, Severity::Warning, "Slot 1 is 5000 entries behind"),
            ("0 1! 2", Some(0), 3, Severity::Warning, "The disk of slot 1 is nearly full"),
            ("0 1! 2!", Some(0), 3, Severity::Critical, "Writes that need room are refused"),
            ("0 1", Some(0), 3, Severity::Warning, "Slot 2 has no member yet"),
            ("0 1 2 3", Some(0), 3, Severity::Note, "Slot 3 is scaled in"),
            ("0", Some(0), 1, Severity::Note, "survives no loss"),
            ("", None, 0, Severity::Note, "The cluster sleeps"),
            ("", None, 1, Severity::Critical, "Cluster c1 was founded here"),
            ("0 1?", None, 1, Severity::Critical, "Fewer Pods are wanted than a quorum needs"),
            ("0 1 2?", Some(0), 3, Severity::Critical, "slot 2 could not be asked: connection refused"),
        ];
        for (members, leader, replicas, worst, words) in table {
            let report = diagnose(&installation(replicas, members, leader));
            let text = report.to_string();
            assert!(text.contains(words), "{members}: {text}");
            assert_eq!(report.severity(), worst, "{members}: {text}");
        }
        let well = diagnose(&installation(3, "0 1 2", Some(1))).to_string();
        assert!(well.contains("leader    slot 1") && well.ends_with("All is well."), "{well}");
        let mut unasked = installation(3, "0 1 2", Some(1));
        for pod in &mut unasked.pods {
            (pod.told, pod.silence) = (None, Some("pods/proxy is forbidden".into()));
        }
        let unknown = diagnose(&unasked).to_string();
        assert!(unknown.contains("slot 0 could not be asked: pods/proxy is forbidden"), "{unknown}");
        assert!(unknown.contains("is not known") && !unknown.contains("There is no leader"), "{unknown}");
        let mut unfounded = installation(1, "", None);
        unfounded.mark = None;
        assert!(!diagnose(&unfounded).to_string().contains("are to found"));
        unfounded.set.as_mut().unwrap().initial_size = Some(3);
        let few = diagnose(&unfounded).to_string();
        assert!(few.contains("only 1 Pods are wanted") && few.contains("`scale 3`"), "{few}");
        let mut beyond = installation(1, "", None);
        beyond.claims = installation(3, "0 1 2", None).claims;
        let text = diagnose(&beyond).to_string();
        assert!(text.contains("a volume of slot 2") && !text.contains("found an empty"), "{text}");
        let mut stopping = installation(3, "0 1 2", None);
        stopping.set.as_mut().unwrap().replicas = 0;
        assert!(diagnose(&stopping).to_string().contains("Pod 2 on node-2 has not stopped yet"));
        // A leader was lost a moment ago: its followers are ready, and answer.
        let mut election = installation(3, "0 1 2", None);
        election.pods.iter_mut().for_each(|pod| pod.ready = true);
        assert!(diagnose(&election).to_string().contains("An election takes about a second"));
        let mut held = installation(3, "0 1 2", Some(1));
        held.set.as_mut().unwrap().partition = 2;
        assert!(diagnose(&held).to_string().contains("held back"));
        held.set = None;
        assert_eq!(diagnose(&held).severity(), Severity::Critical);
    }
}
