//! The little of the Kubernetes API that a node uses: it reads its own StatefulSet, and reads and marks its own ConfigMap.
//!
//! One request a connection: a leader asks once a second, everybody else at moments of their life. Token and CA are read
//! again for each request, since Kubernetes replaces them. What comes back is decided on elsewhere.

use super::decide::{Seen, StatefulSet};
use crate::engine::status::ClusterId;
use crate::life::identity::hex_id;
use crate::resolve;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

const TIMEOUT: Duration = Duration::from_secs(3);
/// More Pods than this are not asked whether they are members.
const PEERS_MAX: u32 = 64;
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Where the API server is, who this Pod is to it, and which StatefulSet it belongs to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    /// `https://host:port`, or `http://host:port` of a proxy that adds the credentials.
    url: Arc<str>,
    /// The folder with `token`, `ca.crt` and `namespace`.
    account: Arc<PathBuf>,
    stateful_set: Arc<str>,
}

/// The mark that a cluster leaves when it is founded: outside its volumes, so that it outlives them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// The cluster that was founded; `None`: none was.
    pub cluster: Option<ClusterId>,
    /// Clusters that were given up: a recovery made another of what was left of them.
    pub given_up: Vec<ClusterId>,
    /// The version of the object that was read: a change of it is conditional on that.
    version: String,
}

/// What came of leaving a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Marked {
    /// It is there, durably.
    Done,
    /// Somebody else changed it meanwhile: read it again.
    Conflict,
}

#[derive(Deserialize)]
struct StatefulSetObject {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Spec {
    replicas: u32,
    ordinals: Option<Ordinals>,
}

#[derive(Deserialize)]
struct Ordinals {
    #[serde(default)]
    start: u32,
}

#[derive(Deserialize)]
struct ConfigMapObject {
    metadata: Metadata,
    data: Option<MarkData>,
}

#[derive(Default, Deserialize)]
struct MarkData {
    #[serde(default, with = "optional_cluster")]
    cluster: Option<ClusterId>,
    /// By commas.
    #[serde(default)]
    given_up: String,
}

impl Api {
    /// An API server, the folder of this Pod's account, and the name of its StatefulSet.
    pub fn new(url: &str, account: PathBuf, stateful_set: &str) -> Api {
        Api {
            url: url.trim_end_matches('/').into(),
            account: Arc::new(account),
            stateful_set: stateful_set.into(),
        }
    }

    /// The name of the ConfigMap that holds the mark.
    pub fn mark_name(&self) -> String {
        format!("{}-founding", self.stateful_set)
    }

    /// This Pod's StatefulSet, as it is now.
    pub async fn stateful_set(&self) -> Seen {
        let asked = async {
            let path =
                format!("/apis/apps/v1/namespaces/{}/statefulsets/{}", self.namespace()?, self.stateful_set);
            self.call(Method::GET, &path, None).await
        };
        match asked.await {
            Ok((StatusCode::OK, body)) => read_stateful_set(&body),
            Ok((StatusCode::NOT_FOUND, _)) => Seen::Missing,
            Ok((status, body)) => Seen::Unanswered(refusal(status, &body)),
            Err(why) => Seen::Unanswered(why),
        }
    }

    /// Where the nodes in the StatefulSet's other Pods are, by slot: their names differ by the ordinal from this Pod's own
    /// address. Empty where that is not a Pod's name, or the StatefulSet is not known.
    pub async fn peers(&self, own_address: &str, own_slot: u32) -> Vec<(u32, String)> {
        match self.stateful_set().await {
            Seen::Found(set) => pod_addresses(&self.stateful_set, &set, own_address, own_slot),
            Seen::Missing | Seen::Unanswered(_) => Vec::new(),
        }
    }

    /// The mark; the error is a sentence for a person.
    pub async fn mark(&self) -> Result<Mark, String> {
        let (status, body) = self.call(Method::GET, &self.mark_path()?, None).await?;
        match status {
            StatusCode::OK => read_mark(&body),
            status => Err(self.explain(status, &body)),
        }
    }

    /// Leaves the mark of `cluster`, where it is still as `read`.
    pub async fn leave_mark(&self, read: &Mark, cluster: ClusterId) -> Result<Marked, String> {
        let patch = json!({
            "metadata": {"resourceVersion": read.version},
            "data": {"cluster": cluster.to_string()},
        });
        let (status, body) = self.call(Method::PATCH, &self.mark_path()?, Some(patch)).await?;
        match status {
            StatusCode::OK => Ok(Marked::Done),
            StatusCode::CONFLICT => Ok(Marked::Conflict),
            status => Err(self.explain(status, &body)),
        }
    }

    fn mark_path(&self) -> Result<String, String> {
        Ok(format!("/api/v1/namespaces/{}/configmaps/{}", self.namespace()?, self.mark_name()))
    }

    fn explain(&self, status: StatusCode, body: &Bytes) -> String {
        match status {
            StatusCode::NOT_FOUND => format!(
                "there is no ConfigMap {}: the chart makes it, empty; without it nobody can tell whether this cluster \
                 was founded before",
                self.mark_name()
            ),
            status => refusal(status, body),
        }
    }

    fn namespace(&self) -> Result<String, String> {
        Ok(self.account_file("namespace")?.trim().to_owned())
    }

    fn account_file(&self, name: &str) -> Result<String, String> {
        let path = self.account.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        patch: Option<serde_json::Value>,
    ) -> Result<(StatusCode, Bytes), String> {
        let say = |why: String| format!("{}: {why}", self.url);
        let exchange = async {
            let (scheme, address) = self.url.split_once("://").ok_or("not a URL")?;
            let token = self.account_file("token")?;
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::HOST, address)
                .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
                .header(header::ACCEPT, "application/json")
                .header(header::CONTENT_TYPE, "application/merge-patch+json")
                .body(Full::new(patch.map_or_else(Bytes::new, |patch| patch.to_string().into())))
                .map_err(|error| error.to_string())?;
            let found = resolve::resolve(address).await.map_err(|error| error.to_string())?;
            let stream = TcpStream::connect(&found[..]).await.map_err(|error| error.to_string())?;
            if scheme == "http" {
                return send(stream, request).await;
            }
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
            let stream = self.tls()?.connect(name, stream).await.map_err(|error| error.to_string())?;
            send(stream, request).await
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(outcome) => outcome.map_err(say),
            Err(_) => Err(say(format!("no answer within {} s", TIMEOUT.as_secs()))),
        }
    }

    fn tls(&self) -> Result<TlsConnector, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.account_file("ca.crt")?.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("ca.crt is not understood: {error}"))?;
            roots.add(certificate).map_err(|error| format!("ca.crt is not understood: {error}"))?;
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    };
    let answered = answered.await;
    driver.abort();
    answered
}

fn pod_addresses(name: &str, set: &StatefulSet, own_address: &str, own_slot: u32) -> Vec<(u32, String)> {
    let Some(service) = own_address.strip_prefix(&format!("{name}-{own_slot}.")) else { return Vec::new() };
    let slots = set.first_ordinal..set.first_ordinal.saturating_add(set.replicas.min(PEERS_MAX));
    slots.filter(|slot| *slot != own_slot).map(|slot| (slot, format!("{name}-{slot}.{service}"))).collect()
}

fn read_stateful_set(body: &Bytes) -> Seen {
    match serde_json::from_slice::<StatefulSetObject>(body) {
        Ok(object) => Seen::Found(StatefulSet {
            uid: object.metadata.uid,
            replicas: object.spec.replicas,
            first_ordinal: object.spec.ordinals.map_or(0, |ordinals| ordinals.start),
            being_deleted: object.metadata.deletion_timestamp.is_some(),
        }),
        Err(error) => Seen::Unanswered(format!("its StatefulSet is not understood: {error}")),
    }
}

fn read_mark(body: &Bytes) -> Result<Mark, String> {
    let not_understood = |error: &dyn Display| format!("the founding mark is not understood: {error}");
    let object: ConfigMapObject = serde_json::from_slice(body).map_err(|error| not_understood(&error))?;
    let MarkData { cluster, given_up } = object.data.unwrap_or_default();
    let ids = given_up.split(',').map(str::trim).filter(|id| !id.is_empty());
    let ids = ids.map(|id| u64::from_str_radix(id, 16).map(ClusterId));
    let given_up = ids.collect::<Result<_, _>>().map_err(|error| not_understood(&error))?;
    Ok(Mark { cluster, given_up, version: object.metadata.resource_version })
}

/// What the API server says, in a sentence: its `message`, where it sent a Status object.
fn refusal(status: StatusCode, body: &Bytes) -> String {
    #[derive(Deserialize)]
    struct Told {
        message: String,
    }
    match serde_json::from_slice::<Told>(body) {
        Ok(told) => format!("the API server says {status}: {}", told.message),
        Err(_) => format!("the API server says {status}"),
    }
}

/// A cluster id in a mark; a mark that names none is no mark.
mod optional_cluster {
    use super::{ClusterId, hex_id};
    use serde::{Deserialize, Deserializer};

    #[derive(Deserialize)]
    struct Hex(#[serde(with = "hex_id")] u64);

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ClusterId>, D::Error> {
        Ok(Option::<Hex>::deserialize(deserializer)?.map(|Hex(id)| ClusterId(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_pods_are_found_by_their_ordinals() {
        let set = StatefulSet { uid: "a".into(), replicas: 3, first_ordinal: 0, being_deleted: false };
        let found = pod_addresses("kv", &set, "kv-1.kv-peers.ns.svc:3300", 1);
        let expected = [(0, "kv-0.kv-peers.ns.svc:3300"), (2, "kv-2.kv-peers.ns.svc:3300")];
        assert_eq!(found, expected.map(|(slot, address)| (slot, address.to_owned())));
        assert!(pod_addresses("kv", &set, "10.0.0.1:3300", 1).is_empty());
    }

    #[test]
    fn what_the_api_server_sends() {
        let found = |text: &'static str| read_stateful_set(&Bytes::from(text));
        let set = StatefulSet { uid: "u".into(), replicas: 3, first_ordinal: 0, being_deleted: false };
        assert_eq!(found(r#"{"metadata":{"uid":"u"},"spec":{"replicas":3}}"#), Seen::Found(set.clone()));
        let text = r#"{"metadata":{"uid":"u","deletionTimestamp":"t"},"spec":{"replicas":3,"ordinals":{"start":2}}}"#;
        assert_eq!(found(text), Seen::Found(StatefulSet { being_deleted: true, first_ordinal: 2, ..set }));
        for text in ["", "{}", r#"{"metadata":{},"spec":{}}"#, r#"{"metadata":{},"spec":{"replicas":-1}}"#] {
            assert!(matches!(found(text), Seen::Unanswered(_)), "{text}");
        }
        let mark = |text: &'static str| read_mark(&Bytes::from(text)).map(|mark| mark.cluster);
        assert_eq!(mark(r#"{"metadata":{"resourceVersion":"1"}}"#), Ok(None));
        assert_eq!(mark(r#"{"metadata":{},"data":{"other":"x"}}"#), Ok(None));
        assert_eq!(mark(r#"{"metadata":{},"data":{"cluster":"00ff"}}"#), Ok(Some(ClusterId(255))));
        assert!(
            mark(r#"{"metadata":{},"data":{"cluster":"?"}}"#).is_err(),
            "a damaged mark is not read as none"
        );
        let given_up = |text: &'static str| read_mark(&Bytes::from(text)).map(|mark| mark.given_up);
        let two = r#"{"metadata":{},"data":{"cluster":"3","given_up":"1, 00000000000000ff"}}"#;
        assert_eq!(given_up(two), Ok(vec![ClusterId(1), ClusterId(255)]));
        assert_eq!(given_up(r#"{"metadata":{},"data":{"cluster":"3"}}"#), Ok(Vec::new()));
        assert!(given_up(r#"{"metadata":{},"data":{"given_up":"x"}}"#).is_err());
    }
}
