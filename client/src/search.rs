//! Looks for an endpoint that answers: probes of one beside the requests, and of all at once where nobody serves.
//!
//! A probe is a question that every node answers at once, whatever state its cluster is in. Its connection is kept, so that
//! the request that follows it finds one.

use crate::error::Cause;
use crate::transport::{Transport, no_answer};
use balsa_wire::cluster::ClusterAnswer;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long a probe may take.
const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(2);
/// How long the first probe of an endpoint in a search may take; doubles with each. Short, since the next one asks again
/// where its name leads.
const PROBE_TIMEOUT_FIRST: Duration = Duration::from_millis(250);
/// The pause after the first probe of an endpoint in a search that failed; doubles with each.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How a probe in a search ended.
struct Probed {
    address: String,
    /// How many came before it.
    before: u32,
    answered: Result<(), Cause>,
}

impl Transport {
    /// Waits until some endpoint answers and so serves; at the deadline gives why the last one did not.
    pub(crate) async fn find_one(self: &Arc<Self>, deadline: Instant) -> Result<(), Cause> {
        let alone = tokio::time::timeout_at(deadline.into(), self.search.lock());
        let _alone = alone.await.map_err(|_| Cause::Deadline)?;
        if self.with_endpoints(|endpoints| endpoints.choose() != crate::endpoints::Choice::Search) {
            return Ok(()); // found while this call waited
        }
        let mut probes = JoinSet::new();
        for (address, wait) in self.with_endpoints(|endpoints| endpoints.candidates(Instant::now())) {
            probes.spawn(Arc::clone(self).look_for(address, wait, 0));
        }
        let mut last = Cause::Deadline;
        while let Ok(Some(probed)) = tokio::time::timeout_at(deadline.into(), probes.join_next()).await {
            let Probed { address, before, answered } =
                probed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            match answered {
                Ok(()) => {
                    self.with_endpoints(|endpoints| endpoints.found(&address));
                    return Ok(());
                }
                Err(cause) => {
                    last = cause;
                    let wait = doubled(PAUSE_FIRST, before, PAUSE_MAX);
                    probes.spawn(Arc::clone(self).look_for(address, wait, before + 1));
                }
            }
        }
        Err(last)
    }

    async fn look_for(self: Arc<Self>, address: String, wait: Duration, before: u32) -> Probed {
        tokio::time::sleep(wait).await;
        let limit = doubled(PROBE_TIMEOUT_FIRST, before, PROBE_TIMEOUT_MAX);
        let answered = self.look_at(&address, limit).await.map(|_| ());
        Probed { address, before, answered }
    }

    /// Probes an endpoint without anybody waiting for it. `cluster`: what one that was not given must be a member of.
    pub(crate) fn probe_beside(self: &Arc<Self>, address: String, cluster: Option<String>) {
        let transport = Arc::clone(self);
        tokio::spawn(async move {
            let answered = transport.look_at(&address, PROBE_TIMEOUT_MAX).await;
            let seen = answered.as_ref().ok().and_then(|seen| seen.as_ref()?.cluster.as_ref());
            let is_member = cluster.is_some() && seen == cluster.as_ref();
            transport.with_endpoints(|endpoints| {
                let ok = answered.is_ok() && (is_member || endpoints.is_given(&address));
                endpoints.probed(&address, ok, Instant::now());
            });
        });
    }

    /// What the one at `address` says of its cluster; `None`: it answers something else.
    pub(crate) async fn look_at(
        &self,
        address: &str,
        limit: Duration,
    ) -> Result<Option<ClusterAnswer>, Cause> {
        let failed = |error: reqwest::Error| no_answer(address, &error);
        let asked = self.http.get(format!("http://{address}/v1/cluster")).timeout(limit);
        let answer = asked.send().await.and_then(|answer| answer.error_for_status()).map_err(failed)?;
        let body = answer.bytes().await.map_err(failed)?;
        Ok(serde_json::from_slice(&body).ok())
    }
}

/// `first`, doubled so many times, and `max` at most.
fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(max)
}
