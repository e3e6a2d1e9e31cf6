//! Who may talk to whom: what a stream's headers state and how the receiver judges them. Pure; knows no sockets.
//!
//! | header | meaning |
//! | --- | --- |
//! | `Balsa-Protocol` | [`PROTOCOL_VERSION`], decimal |
//! | `Balsa-Cluster`, `Balsa-From`, `Balsa-To` | cluster, sender, receiver; hexadecimal |
//! | `Balsa-Incarnation` | how often the sender has started, decimal |
//! | `Balsa-Stream` | a number that grows with every stream the sender opens; the newest one counts |
//!
//! A refusal is a problem document with the reason in its `code` and in `Balsa-Refused`. That its sender was removed is
//! said to a node of the same cluster alone, and whoever it took us for: the member that it looks for may be gone, too.

use balsa_raft::NodeId;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// The version of the transport that this node speaks.
pub const PROTOCOL_VERSION: u64 = 1;

pub(super) const PROTOCOL: HeaderName = HeaderName::from_static("balsa-protocol");
pub(super) const CLUSTER: HeaderName = HeaderName::from_static("balsa-cluster");
pub(super) const FROM: HeaderName = HeaderName::from_static("balsa-from");
pub(super) const TO: HeaderName = HeaderName::from_static("balsa-to");
pub(super) const INCARNATION: HeaderName = HeaderName::from_static("balsa-incarnation");
pub(super) const STREAM: HeaderName = HeaderName::from_static("balsa-stream");
pub(super) const REFUSED: HeaderName = HeaderName::from_static("balsa-refused");

/// Who this node is; known only after founding or joining.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalIdentity {
    /// The cluster it belongs to.
    pub cluster: u64,
    /// Its id in it.
    pub node: NodeId,
    /// How often it has started; grows with every start of the process.
    pub incarnation: u64,
}

/// Why a stream was refused. The words are those of metric labels and problem codes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Refusal {
    /// A header is missing or is not a number.
    Malformed,
    /// Another protocol version.
    Protocol,
    /// Another cluster.
    Cluster,
    /// The stream is meant for another node: an address that was reused, or is stale.
    Receiver,
    /// A node that dials itself.
    Itself,
    /// The sender was removed from the cluster: committed, and never to be undone.
    Removed,
    /// A newer stream of the same sender stands.
    Superseded,
    /// The receiver does not know its identity yet; worth trying again soon.
    NotReady,
    /// An answer that no Balsa node gives: something else listens there.
    Foreign,
}

impl Refusal {
    /// All of them, in order.
    pub const ALL: [Refusal; 9] = [
        Refusal::Malformed,
        Refusal::Protocol,
        Refusal::Cluster,
        Refusal::Receiver,
        Refusal::Itself,
        Refusal::Removed,
        Refusal::Superseded,
        Refusal::NotReady,
        Refusal::Foreign,
    ];

    /// Its word in problem codes, logs and metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::Protocol => "protocol",
            Refusal::Cluster => "cluster",
            Refusal::Receiver => "receiver",
            Refusal::Itself => "itself",
            Refusal::Removed => "removed",
            Refusal::Superseded => "superseded",
            Refusal::NotReady => "not_ready",
            Refusal::Foreign => "foreign",
        }
    }

    pub(super) fn from_name(name: &[u8]) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|refusal| refusal.name().as_bytes() == name)
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// Whether the same dial may well succeed a moment later.
    pub(super) fn is_passing(self) -> bool {
        matches!(self, Refusal::NotReady | Refusal::Superseded)
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Refusal::Malformed | Refusal::Protocol | Refusal::Itself | Refusal::Foreign => {
                StatusCode::BAD_REQUEST
            }
            Refusal::Receiver => StatusCode::MISDIRECTED_REQUEST,
            Refusal::Removed => StatusCode::GONE,
            Refusal::Cluster | Refusal::Superseded => StatusCode::CONFLICT,
            Refusal::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// What the headers of a stream state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hello {
    pub(super) cluster: u64,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) incarnation: u64,
    pub(super) stream: u64,
}

impl Hello {
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        write_protocol(headers);
        for (name, id) in [(CLUSTER, self.cluster), (FROM, self.from.0), (TO, self.to.0)] {
            headers.insert(name, hex(id));
        }
        headers.insert(INCARNATION, self.incarnation.into());
        headers.insert(STREAM, self.stream.into());
    }

    /// Reads and judges the headers of a stream that arrived at `local`. The error's text names what did not match.
    pub(super) fn check(
        headers: &HeaderMap,
        local: Option<LocalIdentity>,
        was_removed: impl Fn(NodeId) -> bool,
    ) -> Result<Hello, (Refusal, String)> {
        check_protocol(headers)?;
        let hello = Hello {
            cluster: number(headers, &CLUSTER, 16)?,
            from: NodeId(number(headers, &FROM, 16)?),
            to: NodeId(number(headers, &TO, 16)?),
            incarnation: number(headers, &INCARNATION, 10)?,
            stream: number(headers, &STREAM, 10)?,
        };
        let Some(local) = local else {
            return Err((Refusal::NotReady, "this node does not belong to a cluster yet".into()));
        };
        if hello.cluster != local.cluster {
            let text = format!("this node is of cluster {:x}, not {:x}", local.cluster, hello.cluster);
            return Err((Refusal::Cluster, text));
        }
        if was_removed(hello.from) {
            return Err((Refusal::Removed, format!("{} was removed from this cluster", hello.from)));
        }
        if hello.to != local.node {
            return Err((Refusal::Receiver, format!("this node is {}, not {}", local.node, hello.to)));
        }
        if hello.from == local.node {
            return Err((Refusal::Itself, format!("the sender {} is this node itself", hello.from)));
        }
        Ok(hello)
    }
}

pub(super) fn write_protocol(headers: &mut HeaderMap) {
    headers.insert(PROTOCOL, PROTOCOL_VERSION.into());
}

pub(super) fn check_protocol(headers: &HeaderMap) -> Result<(), (Refusal, String)> {
    let protocol = number(headers, &PROTOCOL, 10)?;
    if protocol == PROTOCOL_VERSION {
        return Ok(());
    }
    let text = format!("this node speaks peer protocol {PROTOCOL_VERSION}, not {protocol}");
    Err((Refusal::Protocol, text))
}

pub(super) fn hex(id: u64) -> HeaderValue {
    let text = format!("{id:x}");
    HeaderValue::from_str(&text).unwrap_or_else(|_| unreachable!("{text} is visible ASCII"))
}

fn number(headers: &HeaderMap, name: &HeaderName, radix: u32) -> Result<u64, (Refusal, String)> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .filter(|text| !text.starts_with('+'))
        .and_then(|text| u64::from_str_radix(text, radix).ok())
        .ok_or_else(|| (Refusal::Malformed, format!("the header {name} is missing or not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: LocalIdentity = LocalIdentity { cluster: 0xabc, node: NodeId(2), incarnation: 9 };

    fn headers(change: impl FnOnce(&mut HeaderMap)) -> HeaderMap {
        let mut headers = HeaderMap::new();
        Hello { cluster: 0xabc, from: NodeId(1), to: NodeId(2), incarnation: 3, stream: 4 }
            .write(&mut headers);
        change(&mut headers);
        headers
    }

    fn refusal(change: impl FnOnce(&mut HeaderMap)) -> (Refusal, String) {
        Hello::check(&headers(change), Some(LOCAL), |id| id == NodeId(9)).unwrap_err()
    }

    #[test]
    fn what_is_written_is_read() {
        let hello = Hello::check(&headers(|_| ()), Some(LOCAL), |_| false).unwrap();
        let expected = Hello { cluster: 0xabc, from: NodeId(1), to: NodeId(2), incarnation: 3, stream: 4 };
        assert_eq!(hello, expected);
    }

    #[test]
    fn each_mismatch_is_named() {
        let value = HeaderValue::from_static;
        assert_eq!(
            refusal(|h| _ = h.insert(PROTOCOL, value("2"))),
            (Refusal::Protocol, "this node speaks peer protocol 1, not 2".into())
        );
        assert_eq!(
            refusal(|h| _ = h.insert(CLUSTER, value("abd"))),
            (Refusal::Cluster, "this node is of cluster abc, not abd".into())
        );
        assert_eq!(
            refusal(|h| _ = h.insert(TO, value("3"))),
            (Refusal::Receiver, "this node is 2, not 3".into())
        );
        assert_eq!(
            refusal(|h| _ = h.insert(FROM, value("2"))),
            (Refusal::Itself, "the sender 2 is this node itself".into())
        );
        let removed = |headers: &mut HeaderMap| _ = headers.insert(FROM, value("9"));
        assert_eq!(refusal(removed), (Refusal::Removed, "9 was removed from this cluster".into()));
        let removed_and_lost = |headers: &mut HeaderMap| {
            removed(headers);
            headers.insert(TO, value("3"));
        };
        assert_eq!(refusal(removed_and_lost).0, Refusal::Removed, "whoever it looked for");
        let foreign = |headers: &mut HeaderMap| {
            removed(headers);
            headers.insert(CLUSTER, value("abd"));
        };
        assert_eq!(refusal(foreign).0, Refusal::Cluster, "an identity of another cluster says nothing");
        for name in [PROTOCOL, CLUSTER, FROM, TO, INCARNATION, STREAM] {
            let (missing, text) = refusal(|h| _ = h.remove(&name));
            assert_eq!(missing, Refusal::Malformed);
            assert!(text.contains(name.as_str()), "{text}");
            for garbage in ["", "-1", "+1", "1 2", "zz", "11111111111111111111111"] {
                assert_eq!(
                    refusal(|h| _ = h.insert(&name, value(garbage))).0,
                    Refusal::Malformed,
                    "{garbage}"
                );
            }
        }
        assert_eq!(Hello::check(&headers(|_| ()), None, |_| true).unwrap_err().0, Refusal::NotReady);
    }

    #[test]
    fn names_are_unique_and_read_back() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_name(refusal.name().as_bytes()), Some(refusal));
            assert_eq!(Refusal::ALL[refusal.index()], refusal);
        }
        assert_eq!(Refusal::from_name(b"nonsense"), None);
    }
}
