//! A disk of a cluster that was given up: after a recovery its members must not come back as a second cluster beside the one
//! that goes on. On Kubernetes the mark of the founding names such clusters; elsewhere a person keeps their disks away.

use crate::engine::status::ClusterId;
use crate::kubernetes::Api;
use crate::kubernetes::api::Mark;
use std::time::Duration;

/// How often the mark is read: a node may have been out of reach while its cluster was given up.
const INTERVAL: Duration = Duration::from_secs(5);

/// Resolves, with a sentence for a person, once the mark says that the cluster `own` was given up; else never. An API server
/// that does not answer stops nobody.
pub async fn given_up(own: ClusterId, api: Option<&Api>) -> String {
    let Some(api) = api else { return std::future::pending().await };
    loop {
        if let Ok(mark) = api.mark().await
            && mark.given_up.contains(&own)
        {
            return sentence(own, &mark, &api.mark_name());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn sentence(own: ClusterId, mark: &Mark, mark_name: &str) -> String {
    let what =
        format!("this data folder belongs to cluster {own}, which was given up (ConfigMap {mark_name})");
    match mark.cluster {
        Some(other) if !mark.given_up.contains(&other) => format!(
            "{what}: cluster {other} goes on in its place. Once this folder holds nothing that you want, delete this Pod's \
             PersistentVolumeClaim and the Pod: it joins then"
        ),
        _ => format!(
            "{what}, but the recovery that gave it up has not ended, and no other goes on yet. Delete nothing: run \
             `kubectl balsa recover --yes` once more"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_delete_anything_before_another_cluster_goes_on() {
        let told = |cluster: Option<u64>, given_up: &[u64]| {
            let given_up = given_up.iter().copied().map(ClusterId).collect();
            let mut mark = Mark::default();
            (mark.cluster, mark.given_up) = (cluster.map(ClusterId), given_up);
            sentence(ClusterId(1), &mark, "kv-founding")
        };
        assert!(told(Some(2), &[1]).contains("0002 goes on in its place"), "{}", told(Some(2), &[1]));
        for unfinished in [told(Some(1), &[1]), told(None, &[1]), told(Some(3), &[3, 1])] {
            assert!(unfinished.contains("Delete nothing"), "{unfinished}");
        }
    }
}
