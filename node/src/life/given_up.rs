//! A disk of a cluster that was given up: after a recovery its members must not come back as a second cluster beside the one
//! that goes on. On Kubernetes the mark of the founding names such clusters; elsewhere a person keeps their disks away.

use crate::engine::status::ClusterId;
use crate::kubernetes::Api;
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
            let goes_on = mark.cluster.map_or_else(|| "another".to_owned(), |cluster| cluster.to_string());
            return format!(
                "this data folder belongs to cluster {own}, which was given up (ConfigMap {}): cluster {goes_on} was \
                 recovered from what was left. Once it holds nothing that you want, delete this Pod's \
                 PersistentVolumeClaim and the Pod: it joins then",
                api.mark_name()
            );
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
