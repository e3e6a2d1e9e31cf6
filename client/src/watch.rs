//! Watches: changes as they come, over as many connections as it takes.
//!
//! A watch that breaks goes on behind the last revision whose end it heard, at whichever node answers. What it had given of
//! a revision in the middle is not given again: nodes tell the changes of a revision in the same order.

use crate::client::{Client, plain};
use crate::error::Cause;
use crate::sse::{Event as Received, Parser};
use crate::transport::{Retry, random};
use balsa_wire::history::{CompactedEvent, DeleteEvent, Previous, ProgressEvent};
use balsa_wire::kv::Item;
use balsa_wire::percent;
use balsa_wire::problem::Code;
use reqwest::Method;
use std::collections::VecDeque;
use std::time::Duration;

/// A node that says nothing for so long is not there any more: it tells progress more often.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The longest pause before a connection that gave nothing is made again.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a watch gives.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// A key was set.
    Put {
        /// The key as it is since.
        item: Item,
        /// What it was before, where [`Watch::prev`] asked for that; `None`: it was not there.
        prev: Option<Item>,
    },
    /// A key was deleted.
    Delete {
        /// The key.
        key: String,
        /// The store's revision since.
        revision: u64,
        /// As with [`WatchEvent::Put`].
        prev: Option<Item>,
    },
    /// Everything up to this revision has been given; comes first, and now and then while nothing changes.
    Progress {
        /// The revision.
        revision: u64,
    },
}

impl WatchEvent {
    /// The store's revision after it.
    pub fn revision(&self) -> u64 {
        match self {
            WatchEvent::Put { item, .. } => item.revision,
            WatchEvent::Delete { revision, .. } | WatchEvent::Progress { revision } => *revision,
        }
    }
}

/// Why a watch gives nothing more.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WatchError {
    /// What comes next is compacted: read what there is, at the oldest revision or later, and watch from behind that.
    #[error(
        "the watch was left behind by compaction; the oldest revision that can be read is {oldest_revision}"
    )]
    Compacted {
        /// The oldest readable revision.
        oldest_revision: u64,
    },
    /// No node would go on with it before the client's deadline; asking for the next event tries again.
    #[error("the watch failed: {0}")]
    Failed(Cause),
}

/// A watch. Ask for one event after the other with [`Watch::next`].
#[derive(Debug)]
#[must_use = "a watch gives nothing unless it is asked"]
pub struct Watch {
    client: Client,
    /// As in the URL, encoded.
    query: Vec<String>,
    prev: bool,
    from: Option<u64>,
    connection: Option<Connection>,
    ready: VecDeque<WatchEvent>,
    /// All up to here was given, and the end of that was heard.
    last: Option<u64>,
    /// Events that were given of the revision after that.
    given: usize,
    /// Connections in a row that gave nothing new.
    in_vain: u32,
}

#[derive(Debug)]
struct Connection {
    answer: reqwest::Response,
    endpoint: String,
    parser: Parser,
    /// Events that were given on an earlier connection, and come again.
    again: usize,
    has_given: bool,
}

impl Watch {
    pub(crate) fn of_key(client: Client, key: &str) -> Watch {
        Watch::new(client, "key", key)
    }

    pub(crate) fn of_prefix(client: Client, prefix: &str) -> Watch {
        Watch::new(client, "prefix", prefix)
    }

    fn new(client: Client, what: &str, name: &str) -> Watch {
        Watch {
            client,
            query: vec![format!("{what}={}", percent::encode_segment(name))],
            prev: false,
            from: None,
            connection: None,
            ready: VecDeque::new(),
            last: None,
            given: 0,
            in_vain: 0,
        }
    }

    /// From this revision on, itself included, instead of from now on; one that has not come yet is waited for.
    pub fn from(mut self, revision: u64) -> Watch {
        self.from = Some(revision);
        self
    }

    /// Only that keys were set.
    pub fn puts(mut self) -> Watch {
        self.query.push("events=put".to_owned());
        self
    }

    /// Only that keys were deleted.
    pub fn deletes(mut self) -> Watch {
        self.query.push("events=delete".to_owned());
        self
    }

    /// With what was there before.
    pub fn prev(mut self) -> Watch {
        self.query.push("prev".to_owned());
        self.prev = true;
        self
    }

    /// The next event. Cancelling it loses nothing. After [`WatchError::Failed`] it may be called again.
    pub async fn next(&mut self) -> Result<WatchEvent, WatchError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if self.connection.is_none() {
                self.connect().await?;
            }
            let Some(connection) = &mut self.connection else { continue };
            let piece = tokio::time::timeout(SILENCE_MAX, connection.answer.chunk()).await;
            match piece {
                Ok(Ok(Some(piece))) => {
                    for received in connection.parser.take(&piece) {
                        if let Err(error) = self.receive(received) {
                            self.connection = None;
                            return Err(error);
                        }
                    }
                }
                // It ended, broke, or fell silent.
                Ok(Ok(None) | Err(_)) | Err(_) => self.connection = None,
            }
        }
    }

    async fn connect(&mut self) -> Result<(), WatchError> {
        if self.in_vain > 0 {
            // Somewhere between half of it and all.
            let pause = PAUSE_MAX.min(Duration::from_millis(50) * 2u32.saturating_pow(self.in_vain));
            tokio::time::sleep(pause.mul_f64(0.5 + f64::from(random()) / f64::from(u32::MAX) / 2.0)).await;
        }
        self.in_vain = self.in_vain.saturating_add(1);
        let mut query = self.query.clone();
        query.extend(self.from.map(|from| format!("from={from}")));
        let mut request = plain(Method::GET, format!("/v1/watch?{}", query.join("&")), Retry::Harmless);
        request.headers.extend(self.last.map(|last| ("last-event-id", last.to_string())));
        let opened = self.client.transport().open(&request, self.client.timeout()).await;
        let (answer, endpoint) = opened.map_err(|cause| match cause.problem() {
            Some(problem) if problem.code == Code::Compacted => {
                WatchError::Compacted { oldest_revision: problem.oldest_revision.unwrap_or_default() }
            }
            _ => WatchError::Failed(cause),
        })?;
        let (parser, again) = (Parser::default(), self.given);
        self.connection = Some(Connection { answer, endpoint, parser, again, has_given: false });
        Ok(())
    }

    fn receive(&mut self, received: Received) -> Result<(), WatchError> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let foreign = |endpoint: &str, what: String| {
            WatchError::Failed(Cause::Foreign { endpoint: endpoint.to_owned(), what })
        };
        let endpoint = connection.endpoint.clone();
        let wrong = |error: serde_json::Error| foreign(&endpoint, error.to_string());
        let event = match received.kind.as_str() {
            "put" => {
                let Previous { prev } = serde_json::from_str(&received.data).map_err(wrong)?;
                WatchEvent::Put { item: serde_json::from_str(&received.data).map_err(wrong)?, prev }
            }
            "delete" => {
                let DeleteEvent { key, revision, prev } =
                    serde_json::from_str(&received.data).map_err(wrong)?;
                WatchEvent::Delete { key, revision, prev }
            }
            "progress" => {
                let ProgressEvent { revision } = serde_json::from_str(&received.data).map_err(wrong)?;
                WatchEvent::Progress { revision }
            }
            "compacted" => {
                let CompactedEvent { oldest_revision } =
                    serde_json::from_str(&received.data).map_err(wrong)?;
                return Err(WatchError::Compacted { oldest_revision });
            }
            _ => return Ok(()), // of another time
        };
        let is_change = !matches!(event, WatchEvent::Progress { .. });
        // The first progress only says where it begins.
        if is_change || std::mem::replace(&mut connection.has_given, true) {
            self.in_vain = 0;
        }
        let is_told_again = is_change && connection.again > 0;
        connection.again -= usize::from(is_told_again);
        if !is_told_again {
            self.given += usize::from(is_change);
            self.ready.push_back(event);
        }
        if let Some(id) = received.id {
            let id = id.parse().map_err(|_| foreign(&endpoint, format!("`{id}` is no revision")))?;
            if is_change {
                (self.given, connection.again) = (0, 0);
            }
            self.last = Some(self.last.map_or(id, |last| last.max(id)));
        }
        Ok(())
    }
}
