//! What follows from the volumes of an installation whose quorum is lost. Pure.

use crate::observed::Mark;
use crate::{Failure, Outcome};
use balsa_wire::repair::{RecoveryAnswer, RecoveryLook};
use std::cmp::Reverse;

/// What follows from the volumes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Choice {
    /// The slot whose volume goes on.
    pub(super) survivor: u32,
    /// Its cluster.
    pub(super) cluster: String,
    /// It is to be made a cluster of one. If not, the volumes that are there are a quorum, and need no more than to be started.
    pub(super) goes_on: bool,
    /// The cluster that it becomes, where that was chosen before.
    pub(super) heir: Option<String>,
    /// Clusters that must not come back.
    pub(super) abandoned: Vec<String>,
    /// The slots whose volumes are set aside.
    pub(super) aside: Vec<u32>,
    /// How many Pods the cluster had, as far as the volumes say.
    size: u32,
    /// The fewest Pods with which what goes on can serve.
    size_min: u32,
}

impl Choice {
    /// How many Pods are started, where so many are asked for.
    pub(super) fn replicas(&self, wanted: Option<u32>) -> u32 {
        wanted.unwrap_or(self.size).max(self.size_min)
    }
}

/// A volume that holds something.
struct Volume<'a> {
    slot: u32,
    found: &'a RecoveryAnswer,
    /// A recovery has chosen it, and was cut off.
    begun: bool,
}

impl Volume<'_> {
    fn holds(&self, voter: &str) -> bool {
        self.found.node == voter
    }
}

/// Which of the volumes goes on: of a cluster that was not given up, of the latest generation, of the cluster that the mark
/// names, that with the highest term, then index, of the last entry. Only where each was looked at, since one that could not be
/// may have most, and where nothing speaks against it that a person should know first.
pub(super) fn choose(looks: &[(u32, Outcome<RecoveryLook>)], mark: &Mark) -> Outcome<Choice> {
    let mut volumes = Vec::new();
    let mut unseen = Vec::new();
    for (slot, look) in looks {
        match look {
            Ok(RecoveryLook::Member(found)) => volumes.push(Volume { slot: *slot, found, begun: false }),
            Ok(RecoveryLook::Begun(found)) => volumes.push(Volume { slot: *slot, found, begun: true }),
            Ok(RecoveryLook::Restoring | RecoveryLook::Nothing { .. }) => {}
            Err(Failure(why)) => unseen.push((*slot, why)),
        }
    }
    if !unseen.is_empty() {
        return Err(refuse_unseen(&unseen));
    }
    let lives = |volume: &&Volume<'_>| !mark.gave_up(&volume.found.cluster);
    let is_marked = |volume: &&Volume<'_>| mark.cluster.as_ref() == Some(&volume.found.cluster);
    // Of those that were given up the marked one lived last; of the others a later generation has all, whatever the terms say.
    let rank = |volume: &&Volume<'_>| {
        let RecoveryAnswer { generation, last_term, last_index, .. } = volume.found;
        let (lives, is_marked) = (lives(volume), is_marked(volume));
        (lives, !lives && is_marked, *generation, is_marked, *last_term, *last_index)
    };
    let has_most = |volume: &&Volume<'_>| (rank(volume), Reverse(volume.slot));
    let Some(most) = volumes.iter().max_by_key(has_most) else {
        return Err(unchanged(
            "no volume holds what can be recovered",
            "`scale` starts them, a backup restores",
        ));
    };
    let chosen = volumes.iter().filter(|volume| volume.begun).max_by_key(has_most);
    if let Some(begun) = chosen {
        let against =
            |other: &&Volume<'_>| other.slot != begun.slot && (other.begun || rank(other) > rank(&begun));
        if let Some(other) = volumes.iter().find(against) {
            let (begun, other, cluster) = (begun.slot, other.slot, &other.found.cluster);
            return Err(unchanged(
                &format!(
                    "slot {begun} holds a recovery that was begun and never ended, but slot {other}, of cluster {cluster}, has \
                     more, or lived since"
                ),
                &format!(
                    "go on without the one with --give-up {begun}, or without the other with --give-up {other}"
                ),
            ));
        }
    }
    let goes = chosen.unwrap_or(most);
    let cluster = &goes.found.cluster;
    // In the order in which they were given up: one behind it, too, lived since.
    let gave_up_at = |wanted: &String| mark.given_up.iter().position(|given_up| given_up == wanted);
    if let (Some(living), Some(at)) =
        (mark.cluster.as_ref().filter(|living| *living != cluster), gave_up_at(cluster))
        && gave_up_at(living).is_none_or(|living_at| living_at > at)
    {
        return Err(unchanged(
            &format!(
                "cluster {living} lived since cluster {cluster} was given up, and no volume that was looked at is of it: all \
                 that was written since would be lost"
            ),
            &format!(
                "bring a volume of it back, or restore a backup; or, to go back to {cluster}, take it out of `given_up` in the \
                 data of the mark's ConfigMap"
            ),
        ));
    }
    let is_majority = |voters: &[String]| {
        let there = |voter: &&String| volumes.iter().any(|volume| volume.holds(voter));
        voters.iter().filter(there).count() > voters.len() / 2
    };
    let RecoveryAnswer { voters, outgoing, .. } = goes.found;
    // One that was begun is ended: whatever has more speaks against it above.
    let is_quorum = !goes.begun && is_majority(voters) && (outgoing.is_empty() || is_majority(outgoing));
    let votes = |volume: &&Volume<'_>| match is_quorum {
        true => voters.iter().chain(outgoing).any(|voter| volume.holds(voter)),
        false => volume.slot == goes.slot,
    };
    let is_own =
        |slot: u32| volumes.iter().any(|volume| volume.slot == slot && volume.found.cluster == *cluster);
    let stays = |slot: u32| if is_quorum { is_own(slot) } else { slot == goes.slot };
    let slots = || looks.iter().map(|(slot, _)| *slot);
    let mut abandoned: Vec<String> = volumes.iter().map(|volume| volume.found.cluster.clone()).collect();
    abandoned.extend(mark.cluster.iter().chain(&mark.heir).cloned());
    let heir = goes.found.new_cluster.clone().filter(|_| goes.begun);
    abandoned.retain(|other| (!is_quorum || other != cluster) && heir.as_ref() != Some(other));
    // Who lived last comes last.
    let is = |wanted: &Option<String>, id: &String| wanted.as_ref() == Some(id);
    abandoned.sort_by_key(|id| (is(&mark.heir, id), is(&mark.cluster, id), id.clone()));
    abandoned.dedup();
    Ok(Choice {
        survivor: goes.slot,
        cluster: cluster.clone(),
        goes_on: !is_quorum,
        heir,
        abandoned,
        aside: slots().filter(|slot| !stays(*slot)).collect(),
        // In the old cluster; one that votes alone was recovered before, in a run that was cut off.
        size: match volumes.iter().map(|volume| volume.found.voters.len()).max().map(u32::try_from) {
            Some(Ok(size @ 2..)) => size,
            _ => slots().max().map_or(1, |slot| slot + 1),
        },
        size_min: volumes
            .iter()
            .filter(|volume| votes(volume))
            .map(|volume| volume.slot + 1)
            .max()
            .unwrap_or(1),
    })
}

fn refuse_unseen(unseen: &[(u32, &String)]) -> Failure {
    let told: Vec<String> = unseen.iter().map(|(slot, why)| format!("slot {slot} ({why})")).collect();
    let slots: Vec<String> = unseen.iter().map(|(slot, _)| slot.to_string()).collect();
    let what = format!(
        "not every volume could be looked at, and one that could not may have most: {}",
        told.join(", ")
    );
    let next = format!(
        "run this again when it can be; or, if what it holds is lost, with --give-up {}",
        slots.join(",")
    );
    unchanged(&what, &next)
}

fn unchanged(what: &str, next: &str) -> Failure {
    Failure(format!("{what}. Nothing was changed but that all Pods are stopped: {next}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Look = (u32, Outcome<RecoveryLook>);

    fn answer(cluster: &str, slot: u32, generation: u64, last: (u64, u64)) -> RecoveryAnswer {
        RecoveryAnswer {
            cluster: cluster.into(),
            node: format!("{cluster}{slot}"),
            last_term: last.0,
            last_index: last.1,
            generation,
            voters: (0..5).map(|slot| format!("{cluster}{slot}")).collect(),
            ..RecoveryAnswer::default()
        }
    }

    fn member(cluster: &str, slot: u32, generation: u64, last: (u64, u64)) -> Look {
        (slot, Ok(RecoveryLook::Member(answer(cluster, slot, generation, last))))
    }

    fn begun(cluster: &str, slot: u32, last: (u64, u64)) -> Look {
        let heir = Some(format!("heir-of-{cluster}"));
        let left = RecoveryAnswer { new_cluster: heir, ..answer(cluster, slot, 0, last) };
        (slot, Ok(RecoveryLook::Begun(left)))
    }

    /// The only voter of its cluster, as a recovery leaves it.
    fn alone(cluster: &str, slot: u32) -> Look {
        let voters = vec![format!("{cluster}{slot}")];
        let answer = RecoveryAnswer { voters, ..answer(cluster, slot, 1, (5, 1_000_000_000_000)) };
        (slot, Ok(RecoveryLook::Member(answer)))
    }

    fn nothing(slot: u32) -> Look {
        (slot, Ok(RecoveryLook::Nothing { why: "it is blank".into() }))
    }

    fn mark(cluster: &str, given_up: &[&str]) -> Mark {
        let given_up = given_up.iter().map(|id| (*id).to_owned()).collect();
        Mark { cluster: Some(cluster.into()), given_up, heir: None }
    }

    fn refusal(looks: &[Look], mark: &Mark) -> String {
        choose(looks, mark).unwrap_err().to_string()
    }

    #[test]
    fn the_volume_with_most_goes_on() {
        let first = mark("a", &[]);
        let a = |slot, term, index| member("a", slot, 0, (term, index));
        let chosen = choose(&[a(0, 3, 9), a(1, 4, 7)], &first).unwrap();
        assert_eq!((chosen.survivor, chosen.aside.clone(), chosen.goes_on), (1, vec![0], true));
        assert_eq!((chosen.cluster.as_str(), chosen.abandoned.clone()), ("a", vec!["a".to_owned()]));
        assert_eq!((chosen.replicas(None), chosen.replicas(Some(1)), chosen.replicas(Some(7))), (5, 2, 7));
        let chosen = choose(&[nothing(0), a(1, 4, 8), a(2, 4, 8)], &first).unwrap();
        assert_eq!((chosen.survivor, chosen.aside), (1, vec![0, 2]));
        assert!(refusal(&[nothing(0)], &first).contains("no volume holds"));
        let why = refusal(&[a(0, 3, 9), (1, Err(Failure("its log is damaged".into())))], &first);
        assert!(why.contains("slot 1 (its log is damaged)") && why.contains("--give-up 1"), "{why}");
    }

    #[test]
    fn a_later_generation_and_the_marked_cluster_come_before_terms() {
        let (old, new) = (member("a", 1, 0, (9, 5_000)), member("b", 0, 1, (6, 1_000_000_000_100)));
        let chosen = choose(&[new, old], &Mark::default()).unwrap();
        assert_eq!((chosen.survivor, chosen.abandoned), (0, vec!["a".to_owned(), "b".to_owned()]));
        let (this, that) = (member("b", 0, 1, (6, 100)), member("c", 1, 1, (9, 200)));
        assert_eq!(choose(&[this, that], &mark("b", &[])).unwrap().survivor, 0);
        // A cluster that was given up comes last, whatever it has.
        let (stray, lives) = (member("a", 1, 1, (9, 5_000)), member("b", 0, 0, (1, 1)));
        assert_eq!(choose(&[lives, stray], &mark("b", &["a"])).unwrap().survivor, 0);
    }

    #[test]
    fn a_quorum_of_volumes_is_only_started() {
        let a = |slot| member("a", slot, 0, (4, 8));
        let first = mark("a", &[]);
        let whole = choose(&[a(0), a(1), a(4), nothing(3)], &first).unwrap();
        assert_eq!((whole.goes_on, whole.aside.clone(), whole.abandoned.len()), (false, vec![3], 0));
        assert_eq!(
            (whole.replicas(None), whole.replicas(Some(1))),
            (5, 5),
            "its highest member needs its Pod"
        );
        assert!(choose(&[a(0), a(1)], &first).unwrap().goes_on);
        // In the middle of a change both sets must be there.
        let mut joint = a(2);
        if let Ok(RecoveryLook::Member(answer)) = &mut joint.1 {
            answer.last_index = 9;
            answer.outgoing = ["a1", "a2", "a9"].map(str::to_owned).into();
        }
        assert!(!choose(&[a(0), a(1), joint.clone()], &first).unwrap().goes_on);
        assert!(choose(&[a(0), a(3), joint], &first).unwrap().goes_on, "a2 alone of the outgoing");
    }

    #[test]
    fn a_run_that_was_cut_off_is_ended_by_the_next() {
        let a = |slot| member("a", slot, 0, (4, 8));
        // Before the survivor's recovery, in the middle of it, behind it, and behind the others'.
        let given_up = mark("a", &["a"]);
        assert!(choose(&[a(0), a(1)], &given_up).unwrap().goes_on);
        let middle = choose(&[a(0), begun("a", 1, (4, 8))], &given_up).unwrap();
        assert_eq!((middle.survivor, middle.goes_on, middle.aside.clone()), (1, true, vec![0]));
        assert_eq!((middle.heir.as_deref(), middle.replicas(None)), (Some("heir-of-a"), 5));
        let behind = choose(&[a(0), a(1), alone("b", 2)], &given_up).unwrap();
        assert_eq!((behind.survivor, behind.goes_on, behind.aside.clone()), (2, false, vec![0, 1]));
        assert_eq!(behind.replicas(None), 5, "as many as voted");
        assert_eq!((behind.cluster.as_str(), behind.abandoned), ("b", vec!["a".to_owned()]));
        let end = choose(&[nothing(0), nothing(1), alone("b", 2), nothing(3)], &mark("b", &["a"])).unwrap();
        assert_eq!((end.goes_on, end.aside.clone(), end.replicas(None)), (false, vec![0, 1, 3], 4));
    }

    #[test]
    fn what_may_have_been_made_and_was_not_seen_since_is_given_up() {
        let unseen = Mark { heir: Some("b".into()), ..mark("a", &["a"]) };
        let a = |slot| member("a", slot, 0, (4, 8));
        let again = choose(&[a(1)], &unseen).unwrap();
        assert_eq!((again.goes_on, again.abandoned), (true, vec!["a".to_owned(), "b".to_owned()]));
        let quorum = choose(&[a(1), a(2), a(3)], &unseen).unwrap();
        assert_eq!((quorum.goes_on, quorum.abandoned), (false, vec!["b".to_owned()]));
        let seen = choose(&[a(1), alone("b", 0)], &unseen).unwrap();
        assert_eq!((seen.cluster.as_str(), seen.abandoned), ("b", vec!["a".to_owned()]));
        let mut begun = [a(1), begun("a", 0, (4, 8))];
        if let Ok(RecoveryLook::Begun(left)) = &mut begun[1].1 {
            left.new_cluster = Some("b".into());
        }
        assert_eq!(choose(&begun, &unseen).unwrap().abandoned, ["a"]);
        // It is ended also where a quorum has come back, none of which has more.
        let back = [a(0), a(1), a(2), a(3)];
        let [_, one, two, three] = back;
        let ended = choose(&[begun[1].clone(), one, two, three], &unseen).unwrap();
        assert_eq!((ended.goes_on, ended.survivor, ended.heir.as_deref()), (true, 0, Some("b")));
        assert_eq!(ended.aside, [1, 2, 3]);
    }

    #[test]
    fn of_clusters_that_were_given_up_the_marked_one_lived_last() {
        let both = mark("a", &["a", "b"]);
        let back = choose(&[member("a", 0, 0, (4, 8)), alone("b", 1)], &both).unwrap();
        assert_eq!((back.survivor, back.goes_on), (0, true));
        assert_eq!(choose(&[begun("a", 0, (4, 8)), alone("b", 1)], &both).unwrap().survivor, 0);
        // A removed member that never learned of it makes no cluster larger.
        let stale = [0, 1, 2, 7].map(|slot| member("a", slot, 0, (4, 8)));
        assert_eq!(choose(&stale, &mark("a", &[])).unwrap().replicas(Some(3)), 3);
    }

    #[test]
    fn what_was_begun_does_not_win_over_what_has_more_or_lived_since() {
        let given_up = mark("a", &["a"]);
        let why = refusal(&[member("a", 0, 0, (4, 9)), begun("a", 1, (4, 8))], &given_up);
        assert!(why.contains("--give-up 1") && why.contains("--give-up 0"), "{why}");
        let why = refusal(&[begun("a", 0, (4, 8)), begun("a", 1, (4, 9))], &given_up);
        assert!(why.contains("slot 1 holds") && why.contains("slot 0"), "{why}");
        let why = refusal(&[begun("a", 0, (9, 9)), member("b", 1, 0, (1, 1))], &mark("b", &["a"]));
        assert!(why.contains("cluster b"), "{why}");
    }

    #[test]
    fn nobody_goes_back_behind_a_cluster_that_lived_since_without_being_asked() {
        let a = |slot| member("a", slot, 0, (4, 8));
        for looks in [vec![a(0)], vec![a(0), a(1), a(2)]] {
            let why = refusal(&looks, &mark("b", &["a"]));
            assert!(why.contains("cluster b lived since cluster a") && why.contains("`given_up`"), "{why}");
            let unfinished = refusal(&looks, &mark("b", &["a", "b"]));
            assert!(
                unfinished.contains("cluster b lived since"),
                "given up by a run that was cut off: {unfinished}"
            );
            let back = choose(&looks, &mark("b", &[])).unwrap();
            assert!(back.abandoned.contains(&"b".to_owned()), "{back:?}");
        }
    }
}
