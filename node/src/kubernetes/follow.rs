//! The leader follows its StatefulSet; a node that was removed while it ran waits to be wanted again.

use super::Api;
use super::decide::{Decision, Reason, Seen, decide};
use crate::engine::handle::{AdminError, AdminRequest, Handle};
use crate::engine::status::{ClusterId, Phase, Role, Status};
use std::time::{Duration, Instant};

/// How often a leader looks at its StatefulSet.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How soon it looks again after something was done: there may be more to do.
const NEXT_INTERVAL: Duration = Duration::from_millis(50);
/// How long a change may wait for its turn.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// As long as this node leads: keeps the members as the StatefulSet wants them, and the mark of the founding as it
/// should be. Never ends.
pub async fn follow(api: Api, handle: Handle) {
    let mut follower = Follower {
        api,
        handle,
        known_uid: None,
        marked: false,
        told: Told::default(),
        told_of_mark: Told::default(),
    };
    loop {
        let interval = follower.turn().await;
        tokio::time::sleep(interval).await;
    }
}

struct Follower {
    api: Api,
    handle: Handle,
    /// Of the StatefulSet that was seen last.
    known_uid: Option<String>,
    /// The mark is known to be there, since this node leads.
    marked: bool,
    told: Told,
    told_of_mark: Told,
}

/// What was logged last about something: only transitions are.
#[derive(Default)]
struct Told(Option<String>);

impl Told {
    fn warn(&mut self, what: String) {
        if self.0.as_ref() != Some(&what) {
            tracing::warn!("{what}");
            self.0 = Some(what);
        }
    }

    /// Nothing is wrong any more; whether anything was.
    fn over(&mut self) -> bool {
        self.0.take().is_some()
    }
}

impl Follower {
    async fn turn(&mut self) -> Duration {
        if !leads(&self.handle.status()) {
            (self.known_uid, self.marked) = (None, false);
            (self.told, self.told_of_mark) = (Told::default(), Told::default());
            return LOOK_INTERVAL;
        }
        self.maybe_mark().await;
        let seen = self.api.stateful_set().await;
        let status = self.handle.status(); // as it is now: it may have changed while the server thought
        if !leads(&status) {
            return LOOK_INTERVAL;
        }
        let decision = decide(&seen, self.known_uid.as_deref(), &status);
        if let Seen::Found(set) = seen {
            self.known_uid = Some(set.uid);
        }
        let (request, what) = match decision {
            Decision::Nobody(reason) => {
                self.tell_nobody(&reason);
                return LOOK_INTERVAL;
            }
            Decision::Remove { id, slot } => {
                (AdminRequest::Remove { id }, format!("remove slot {slot} ({id})"))
            }
            Decision::HandOver { to, slot } => {
                let request = AdminRequest::TransferLeadership { to: Some(to) };
                (request, format!("hand over to slot {slot} ({to}), since this node's Pod is scaled in"))
            }
        };
        match self.handle.admin(request, Instant::now() + CHANGE_TIMEOUT).await {
            Ok(_) => {
                tracing::info!("as the StatefulSet wants it: {what}: done");
                self.told.over();
                NEXT_INTERVAL
            }
            Err(error) => {
                self.told.warn(format!("the StatefulSet wants it, but not now: {what}: {error}"));
                match error {
                    AdminError::Busy => NEXT_INTERVAL,
                    _ => LOOK_INTERVAL,
                }
            }
        }
    }

    /// A cluster that leads its StatefulSet was founded: the mark says so, also where it was wiped, or names the cluster
    /// that this one was recovered from.
    async fn maybe_mark(&mut self) {
        let Some(cluster) = self.handle.status().cluster.filter(|_| !self.marked) else { return };
        match mark(&self.api, cluster).await {
            Ok(()) => self.marked = true,
            Err(why) => {
                self.told_of_mark.warn(format!("the mark of the founding is not known to be there: {why}"));
            }
        }
    }

    fn tell_nobody(&mut self, reason: &Reason) {
        match reason {
            Reason::AllWanted if self.told.over() => {
                tracing::info!("the members are as the StatefulSet wants them")
            }
            Reason::AllWanted => {}
            reason => self.told.warn(format!("nobody is removed: {reason}")),
        }
    }
}

fn leads(status: &Status) -> bool {
    status.phase == Phase::Running && status.role == Role::Leader
}

async fn mark(api: &Api, cluster: ClusterId) -> Result<(), String> {
    let read = api.mark().await?;
    if read.cluster == Some(cluster) {
        return Ok(());
    }
    if read.given_up.contains(&cluster) {
        return Err(format!("cluster {cluster} was given up")); // this node is about to stop
    }
    match read.cluster {
        Some(other) => {
            tracing::warn!(%cluster, %other, "the mark of the founding named another cluster than the one that leads here")
        }
        None => tracing::warn!(%cluster, "the mark of the founding was missing, and is left again"),
    }
    match api.leave_mark(&read, cluster).await? {
        super::api::Marked::Done => Ok(()),
        super::api::Marked::Conflict => Err("it is being changed".to_owned()),
    }
}

/// Resolves once the Pod of `slot` is wanted: for a node that was removed while it ran. It was removed because it was
/// not wanted, and Kubernetes mostly ends it next; where it does not, since the StatefulSet was scaled out again at
/// once, or because a person removed the member by hand, the Pod would stay idle for good.
pub async fn wanted_again(api: &Api, slot: u32) {
    loop {
        if api.stateful_set().await.wants(slot) == Ok(true) {
            return;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
