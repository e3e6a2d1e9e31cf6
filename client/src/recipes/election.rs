//! An election: one of many leads, everybody sees who, and the next one takes over when the leader is gone.

use super::lock::Lock;
use crate::client::Client;
use crate::error::{ReadError, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// An election among the candidates of one name. The leader's value is at a key of that name, while it leads.
#[derive(Clone, Debug)]
pub struct Election {
    client: Client,
    name: String,
    ttl: Duration,
}

impl Election {
    pub(crate) fn new(client: Client, name: String) -> Election {
        Election { client, name, ttl: Duration::from_secs(10) }
    }

    /// How long a leader that died stays in its place. Default 10 s.
    pub fn ttl(mut self, ttl: Duration) -> Election {
        self.ttl = ttl;
        self
    }

    /// Stands for it, and waits up to `wait` for its turn. `value` is what others see of this candidate once it leads.
    pub async fn campaign(
        &self,
        value: &(impl Serialize + ?Sized),
        wait: Duration,
    ) -> Result<Leadership, WriteError> {
        let request = self.client.lock(self.name.clone()).ttl(self.ttl).wait(wait);
        Ok(Leadership(request.show(self.name.clone(), value).await?))
    }

    /// What the leader said of itself; `None`: nobody leads.
    pub async fn leader<T: DeserializeOwned>(&self) -> Result<Option<T>, ReadError> {
        let item = self.client.get(self.name.clone()).await?;
        let value = item.map(|item| item.json::<T>()).transpose();
        value.map_err(|error| ReadError { cause: crate::Cause::Invalid(error.to_string()) })
    }
}

/// This candidate leads. Dropped, it resigns in the background.
#[derive(Debug)]
pub struct Leadership(Lock);

impl Leadership {
    /// The fencing token of this leadership: see [`Lock::token`].
    pub fn token(&self) -> u64 {
        self.0.token()
    }

    /// Whether it cannot be relied on any more.
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// Resolves once it cannot be relied on any more.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.0.lost()
    }

    /// Makes way for the next, and waits until that is done.
    pub async fn resign(self) -> Result<(), WriteError> {
        self.0.release().await
    }
}
