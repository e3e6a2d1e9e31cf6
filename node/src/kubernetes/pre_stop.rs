//! What the kubelet runs before it stops a Pod: `balsa-node pre-stop`.
//!
//! A member whose Pod was scaled in stays until its removal has committed: its vote and its log may be needed for that.
//! In every other case (a rolling update, a drain, a deleted Pod or StatefulSet, `replicas: 0`) it hands leadership over
//! and lets go at once: it comes back as the same member (hazard 51). It removes nobody itself; that is the leader's.

use super::Api;
use super::decide::{Seen, Unsaid};
use crate::config::Config;
use crate::http_call;
use balsa_wire::cluster::{ClusterAnswer, Phase, Role};
use hyper::{Method, StatusCode};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

const LOOK_INTERVAL: Duration = Duration::from_millis(300);
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an API server or a node that does not answer is asked again before the Pod stops as in an update: its removal
/// may be wanted, and then it is done better before than after.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long another node may take to take over.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(3);

/// Why the Pod may stop now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Released {
    /// It was scaled in, and is no member any more.
    Removed,
    /// It was scaled in, and is no member (yet).
    NoMember,
    /// It was not scaled in: it comes back. Leadership is with another, where that was possible.
    HandedOver,
    /// The node does not answer: there is nothing to wait for.
    NodeGone,
}

impl fmt::Display for Released {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Released::Removed => "it was scaled in, and its member is removed",
            Released::NoMember => "it was scaled in, and is no member",
            Released::HandedOver => "it comes back, and leads no more where another could take over",
            Released::NodeGone => "its node does not answer any more",
        })
    }
}

/// What to do now: pure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Release(Released),
    HandOver,
    AskAgain,
    Wait,
}

fn step(wanted: &Result<bool, Unsaid>, node: Option<Phase>, silent_for: Duration) -> Step {
    match (wanted, node) {
        (Err(Unsaid::Unanswered(_)), _) | (Ok(false), None) if silent_for < PATIENCE => Step::AskAgain,
        (Err(_) | Ok(true), _) => Step::HandOver,
        (Ok(false), None) => Step::Release(Released::NodeGone),
        (Ok(false), Some(Phase::Removed)) => Step::Release(Released::Removed),
        (Ok(false), Some(Phase::Running)) => Step::Wait,
        (Ok(false), Some(_)) => Step::Release(Released::NoMember),
    }
}

/// Waits until the Pod of the node with these settings may stop. On a scale-in that is until the member is removed,
/// however long; the kubelet ends the wait after the Pod's grace period.
pub async fn wait(config: &Config) -> Result<Released, String> {
    let Some(api) = config.kubernetes() else {
        return Err("setting kubernetes_stateful_set is not set: this node is in no StatefulSet".to_owned());
    };
    wait_for(&api, config.founding_slot(), own_address(config.listen)).await
}

async fn wait_for(api: &Api, slot: u32, node: SocketAddr) -> Result<Released, String> {
    let node = node.to_string();
    let mut answered = Instant::now();
    loop {
        let seen = api.stateful_set().await;
        let told = ask(&node).await;
        if told.is_some() && !matches!(seen, Seen::Unanswered(_)) {
            answered = Instant::now();
        }
        match step(&seen.wants(slot), told.map(|told| told.phase), answered.elapsed()) {
            Step::Release(released) => return Ok(released),
            Step::HandOver => {
                hand_over(&node).await;
                return Ok(Released::HandedOver);
            }
            Step::AskAgain | Step::Wait => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    }
}

/// Hands leadership over, if the node leads and somebody takes it.
async fn hand_over(node: &str) {
    let until = Instant::now() + HANDOVER_PATIENCE;
    while Instant::now() < until && ask(node).await.is_some_and(|told| told.role == Role::Leader) {
        let path = "/v1/cluster/transfer-leadership";
        let asked = http_call::call(Method::POST, node, path, b"{}".to_vec(), NODE_TIMEOUT).await;
        if !matches!(asked, Ok((StatusCode::OK, _))) {
            return; // nobody can take over: the node tries once more when it is told to stop
        }
    }
}

async fn ask(node: &str) -> Option<ClusterAnswer> {
    let asked = http_call::call(Method::GET, node, "/v1/cluster", Vec::new(), NODE_TIMEOUT).await;
    match asked {
        Ok((StatusCode::OK, body)) => serde_json::from_slice(&body).ok(),
        _ => None,
    }
}

/// Where a node that listens there is reached from its own Pod.
fn own_address(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_scale_in_waits() {
        let unanswered = || Err(Unsaid::Unanswered("timeout".into()));
        let (soon, late) = (Duration::from_secs(1), Duration::from_secs(11));
        let released = |released| Step::Release(released);
        let table = [
            (Ok(true), Some(Phase::Running), soon, Step::HandOver),
            (Ok(true), Some(Phase::Joining), soon, Step::HandOver),
            (Ok(true), Some(Phase::Removed), soon, Step::HandOver),
            (Ok(false), Some(Phase::Running), soon, Step::Wait),
            (Ok(false), Some(Phase::Running), late, Step::Wait),
            (Ok(false), Some(Phase::Removed), soon, released(Released::Removed)),
            (Ok(false), Some(Phase::Joining), soon, released(Released::NoMember)),
            (Ok(false), Some(Phase::Stopping), soon, released(Released::NoMember)),
            (Err(Unsaid::Missing), Some(Phase::Running), soon, Step::HandOver),
            (Err(Unsaid::BeingDeleted), Some(Phase::Running), soon, Step::HandOver),
            (Err(Unsaid::NoReplicas), Some(Phase::Running), soon, Step::HandOver),
            (unanswered(), Some(Phase::Running), soon, Step::AskAgain),
            (unanswered(), Some(Phase::Running), late, Step::HandOver),
            (Ok(false), None, soon, Step::AskAgain),
            (Ok(false), None, late, released(Released::NodeGone)),
            (Ok(true), None, soon, Step::HandOver),
        ];
        for (wanted, node, silent, expected) in table {
            assert_eq!(step(&wanted, node, silent), expected, "{wanted:?} {node:?} {silent:?}");
        }
    }

    #[test]
    fn a_node_is_asked_on_its_own_address() {
        for (listen, own) in [
            ("0.0.0.0:3000", "127.0.0.1:3000"),
            ("[::]:3000", "[::1]:3000"),
            ("10.0.0.7:3000", "10.0.0.7:3000"),
        ] {
            assert_eq!(own_address(listen.parse().unwrap()), own.parse().unwrap());
        }
    }
}
