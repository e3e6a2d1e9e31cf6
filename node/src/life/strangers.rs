//! A disk of another cluster: found out before it does harm to nobody but itself, and said aloud.
//!
//! A node whose configured peers are all members of a cluster that is not its own has the wrong disk, or the wrong
//! addresses. It looks only while it has not heard of a leader since it started, and believes only unanimous answers that
//! come twice: one address that was given to a node of another cluster since (hazard 48) stops nobody.

use super::become_member::{Settings, hello};
use super::founding::Reply;
use crate::engine::handle::Handle;
use crate::engine::status::ClusterId;
use std::time::Duration;

/// How often the peers are asked.
const INTERVAL: Duration = Duration::from_secs(2);

/// Resolves, with a sentence for a person, where this node of `own` is among members of another cluster; never, once it
/// has heard of a leader.
pub async fn among_strangers(own: ClusterId, slot: u32, settings: &Settings, handle: &Handle) -> String {
    let mut seen_before = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        if handle.status().leader_changes > 0 {
            return std::future::pending().await;
        }
        let mut answers = Vec::new();
        for (_, address) in settings.initial_peers.iter().filter(|(peer, _)| **peer != slot) {
            match hello(address).await {
                Ok(Reply::Member { cluster, .. }) => answers.push(Some(ClusterId(cluster))),
                Ok(_) => answers.push(None),
                Err(_) => {} // nobody there
            }
        }
        let seen = stranger(own, &answers);
        if let Some(other) = seen
            && seen_before == Some(other)
        {
            return format!(
                "this data folder belongs to cluster {own}, but its peers are members of cluster {other}: give another \
                 data folder, or the peers' right addresses"
            );
        }
        seen_before = seen;
    }
}

/// The one other cluster that all who answered are members of.
fn stranger(own: ClusterId, answers: &[Option<ClusterId>]) -> Option<ClusterId> {
    let first = (*answers.first()?)?;
    (first != own && answers.iter().all(|answer| *answer == Some(first))).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unanimous_answers_count() {
        let (own, other, third) = (ClusterId(1), ClusterId(2), ClusterId(3));
        for (answers, expected) in [
            (vec![], None),
            (vec![Some(own)], None),
            (vec![Some(other)], Some(other)),
            (vec![Some(other), Some(other)], Some(other)),
            (vec![Some(other), Some(own)], None),
            (vec![Some(other), Some(third)], None),
            (vec![Some(other), None], None),
            (vec![None], None),
        ] {
            assert_eq!(stranger(own, &answers), expected, "{answers:?}");
        }
    }
}
