//! Watches over real sockets: what comes, in which order, and how they end.

use super::server::{Mood, Server, Setup, eventually, start, start_with};
use balsa_node::engine::handle::ReadError;
use balsa_node::watch::HubConfig;
use balsa_wire::problem::Code;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

/// A watch that stands.
struct Watch {
    body: Incoming,
    text: String,
}

async fn watch(server: &Server, query: &str, last_id: Option<u64>) -> Watch {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().uri(format!("/v1/watch?{query}")).header("host", "balsa");
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(response.headers().contains_key("balsa-cluster"));
    Watch { body: response.into_body(), text: String::new() }
}

impl Watch {
    /// The next event or comment; `None`: the end.
    async fn next(&mut self) -> Option<String> {
        let reading = async {
            loop {
                if let Some((event, rest)) = self.text.split_once("\n\n") {
                    let (event, rest) = (event.to_owned(), rest.to_owned());
                    self.text = rest;
                    return Some(event);
                }
                let frame = self.body.frame().await?.ok()?;
                self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reading).await.expect("an event in time")
    }

    /// The next event in short: kind, revision, key.
    async fn short(&mut self) -> String {
        let event = self.next().await.expect("an event");
        let field = |name: &str| {
            let lines = event.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            lines.collect::<Vec<_>>().join("\n")
        };
        let data: serde_json::Value = serde_json::from_str(&field("data")).unwrap();
        let revision = data["revision"].as_u64().or(data["oldest_revision"].as_u64()).unwrap();
        if !field("id").is_empty() {
            assert_eq!(field("id"), revision.to_string());
        }
        format!("{} {revision} {}", field("event"), data["key"].as_str().unwrap_or_default())
            .trim_end()
            .to_owned()
    }
}

#[tokio::test]
async fn changes_come_as_they_are_made() {
    let server = start().await;
    server.put("/v1/kv/app/a", "1").await;
    let mut all = watch(&server, "prefix=app/", None).await;
    let mut one = watch(&server, "key=app/a&events=put&prev", None).await;
    assert_eq!(all.next().await.unwrap(), "id: 1\nevent: progress\ndata: {\"revision\":1}");
    assert_eq!(one.short().await, "progress 1");
    server.put("/v1/kv/app/b", "2").await;
    server.put("/v1/kv/other", "3").await;
    server.put("/v1/kv/app/a", "4").await;
    server.delete("/v1/kv/app/b").await;
    for event in ["put 2 app/b", "put 4 app/a", "delete 5 app/b"] {
        assert_eq!(all.short().await, event);
    }
    assert_eq!(
        one.next().await.unwrap(),
        "id: 4\nevent: put\ndata: {\"key\":\"app/a\",\"value\":4,\"revision\":4,\"create_revision\":1,\"version\":2,\
         \"prev\":{\"key\":\"app/a\",\"value\":1,\"revision\":1,\"create_revision\":1,\"version\":1}}"
    );
    assert_eq!(server.metrics.watchers.get(), 2);
    drop((all, one));
    eventually("the places are given back", || server.metrics.watchers.get() == 0).await;
}

#[tokio::test]
async fn a_watch_goes_on_from_history() {
    let server = start().await;
    for n in 1..=5 {
        server.put(&format!("/v1/kv/k{n}"), "1").await;
    }
    server.send("POST", "/clear", &[], "").await;
    let mut from = watch(&server, "prefix=&from=4", None).await;
    assert_eq!(from.short().await, "progress 3");
    assert_eq!(from.short().await, "put 4 k4");
    assert_eq!(from.short().await, "put 5 k5");
    for n in 1..=5 {
        let event = from.next().await.unwrap();
        assert!(event.contains(&format!("\"key\":\"k{n}\",\"revision\":6")), "{event}");
        assert_eq!(event.starts_with("id: 6\n"), n == 5, "{event}");
    }
    // Exclusive; and whichever is further.
    let mut resumed = watch(&server, "prefix=&from=2", Some(4)).await;
    assert_eq!((resumed.short().await, resumed.short().await), ("progress 4".into(), "put 5 k5".into()));
    let mut later = watch(&server, "key=k5&from=5&events=delete", Some(1)).await;
    assert_eq!((later.short().await, later.short().await), ("progress 4".into(), "delete 6 k5".into()));
}

#[tokio::test]
async fn a_watch_from_the_future_waits() {
    let server = start().await;
    server.put("/v1/kv/a", "1").await;
    let mut watch = watch(&server, "key=a&from=3", None).await;
    assert_eq!(watch.short().await, "progress 1");
    for value in ["2", "3"] {
        server.put("/v1/kv/a", value).await;
    }
    assert_eq!(watch.short().await, "put 3 a");
}

#[tokio::test]
async fn what_is_compacted_is_refused() {
    let server = start().await;
    for value in ["1", "2", "3"] {
        server.put("/v1/kv/a", value).await;
    }
    server.send("POST", "/v1/compact", &[], "{\"revision\":2}").await;
    for target in ["/v1/watch?key=a&from=2", "/v1/watch?prefix=&from=1"] {
        let problem = server.get(target).await.problem();
        assert_eq!((problem.status, problem.code, problem.oldest_revision), (410, Code::Compacted, Some(2)));
    }
    let mut watch = watch(&server, "key=a&from=3", None).await;
    assert_eq!((watch.short().await, watch.short().await), ("progress 2".into(), "put 3 a".into()));
}

#[tokio::test]
async fn progress_is_told_while_nothing_changes() {
    let watches = HubConfig { progress_interval: Duration::from_millis(20), ..Setup::default().watches };
    let server = start_with(Setup { watches, ..Setup::default() }).await;
    server.put("/v1/kv/a", "1").await;
    let mut nothing = watch(&server, "key=never", None).await;
    let mut waiting = watch(&server, "key=never&from=100", None).await;
    assert_eq!((nothing.short().await, waiting.short().await), ("progress 1".into(), "progress 1".into()));
    server.put("/v1/kv/a", "2").await;
    while nothing.short().await != "progress 2" {}
    while waiting.short().await != "progress 2" {}
}

#[tokio::test]
async fn without_a_leader_watches_end_and_begin_nowhere() {
    let watches = HubConfig { progress_interval: Duration::from_millis(20), ..Setup::default().watches };
    let server = start_with(Setup { watches, ..Setup::default() }).await;
    let mut watch = watch(&server, "prefix=", None).await;
    server.set_mood(Mood::FailsReads(ReadError::NoLeader));
    let mut last = String::new();
    while let Some(event) = watch.next().await {
        last = event;
    }
    assert_eq!(last, ": this node has no leader");
    let problem = server.get("/v1/watch?prefix=").await.problem();
    assert_eq!((problem.status, problem.code), (503, Code::NoLeader));
}

#[tokio::test]
async fn a_node_that_stops_ends_its_watches() {
    let mut server = start().await;
    let mut watch = watch(&server, "prefix=", None).await;
    assert_eq!(watch.short().await, "progress 0");
    server.stop();
    assert_eq!(watch.next().await.unwrap(), ": the node is stopping");
    assert_eq!(watch.next().await, None);
    (&mut server.served).await.unwrap();
}

#[tokio::test]
async fn watchers_are_bounded() {
    let watches = HubConfig { watchers_max: 2, ..Setup::default().watches };
    let server = start_with(Setup { watches, ..Setup::default() }).await;
    let held = (watch(&server, "prefix=", None).await, watch(&server, "prefix=", None).await);
    let problem = server.get("/v1/watch?prefix=").await.problem();
    assert_eq!((problem.status, problem.code), (503, Code::Overloaded));
    drop(held);
    eventually("places are free", || server.metrics.watchers.get() == 0).await;
    let _ = watch(&server, "prefix=", None).await;
}

#[tokio::test]
async fn what_a_watch_does_not_take() {
    let server = start().await;
    for (target, code) in [
        ("/v1/watch", Code::InvalidParameter),
        ("/v1/watch?key=a&prefix=b", Code::InvalidParameter),
        ("/v1/watch?key=", Code::InvalidKey),
        ("/v1/watch?key=a&from=0", Code::InvalidParameter),
        ("/v1/watch?key=a&from=x", Code::InvalidParameter),
        ("/v1/watch?key=a&events=all", Code::InvalidParameter),
        ("/v1/watch?key=a&foo", Code::UnknownParameter),
    ] {
        let problem = server.get(target).await.problem();
        assert_eq!((problem.status, problem.code), (400, code), "{target}");
    }
    let bad_id = server.send("GET", "/v1/watch?prefix=", &["last-event-id: x"], "").await.problem();
    assert_eq!(bad_id.code, Code::InvalidHeader);
    assert_eq!(server.send("POST", "/v1/watch?prefix=", &[], "").await.problem().status, 405);
}
