//! A session: a lease that lives as long as its owner, for keys and locks that shall end with it.

use super::keeper::{Keeper, Shared, in_background};
use crate::client::Client;
use crate::error::WriteError;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A lease that is kept alive while this is there. Dropped, it is revoked in the background: its keys and locks go.
#[derive(Debug)]
pub struct Session {
    client: Client,
    keeper: Shared,
    is_closed: bool,
}

impl Session {
    pub(crate) async fn open(client: Client, ttl: Duration) -> Result<Session, WriteError> {
        let asked = Instant::now();
        let granted = client.grant_lease(ttl).await?;
        let keeper = Arc::new(Keeper::start(client.clone(), granted.lease, ttl, asked));
        Ok(Session { client, keeper, is_closed: false })
    }

    /// The lease: give it to [`crate::Put::lease`], or to [`super::LockRequest::session`].
    pub fn lease(&self) -> u64 {
        self.keeper.lease()
    }

    /// Whether the session cannot be relied on any more.
    pub fn is_lost(&self) -> bool {
        self.keeper.is_lost()
    }

    /// Resolves once the session cannot be relied on any more.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.keeper.lost()
    }

    /// Ends it, and waits until that is done.
    pub async fn close(mut self) -> Result<(), WriteError> {
        self.is_closed = true;
        self.client.revoke_lease(self.lease()).await.map(drop)
    }

    pub(super) fn keeper(&self) -> Shared {
        Arc::clone(&self.keeper)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_closed || self.is_lost() {
            return;
        }
        let (client, lease) = (self.client.clone(), self.lease());
        in_background(async move {
            let _ = client.revoke_lease(lease).await; // else it ends by itself
        });
    }
}
