//! Requests that are broken in any way: each connection ends, and the server goes on.

use super::server::{Setup, start_with};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request in which some bytes were changed, taken out or put in, cut off anywhere.
fn broken() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop_oneof![
        Just(
            "PUT /v1/kv/a HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"value\":1}"
        ),
        Just(
            "PUT /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nb\r\n{\"value\":1}\r\n0\r\n\r\n"
        ),
        Just(
            "GET /a?raw&consistency=stale HTTP/1.1\r\nhost: h\r\nif-none-match: \"1\"\r\n\r\nGET /b HTTP/1.1\r\nhost: h\r\n\r\n"
        ),
        Just("POST /v1/cluster/members HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n{\"id\":\"1\"}"),
    ];
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..6);
    (whole, edits, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(whole, edits, cut, cuts)| {
        let mut bytes = whole.as_bytes().to_vec();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_requests_end() {
    let mut setup = Setup::default();
    setup.limits.request_timeout = Duration::from_millis(200);
    setup.connections.head_timeout = Duration::from_millis(200);
    setup.connections.idle_timeout = Duration::from_millis(200);
    let server = Arc::new(start_with(setup).await);
    let runtime = tokio::runtime::Handle::current();
    let asked = Arc::clone(&server);
    let run = tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(ProptestConfig { cases: 100, ..ProptestConfig::default() });
        runner.run(&(broken(), any::<bool>()), |(bytes, closes)| {
            runtime.block_on(async {
                let mut stream = TcpStream::connect(asked.address).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                if closes {
                    stream.shutdown().await.unwrap();
                }
                let mut answered = Vec::new();
                let reading = stream.read_to_end(&mut answered);
                let ended = tokio::time::timeout(Duration::from_secs(20), reading).await;
                prop_assert!(ended.is_ok(), "the connection did not end");
                prop_assert!(answered.is_empty() || answered.starts_with(b"HTTP/1."), "{answered:?}");
                Ok(())
            })
        })
    });
    run.await.unwrap().unwrap();
    assert_eq!(server.get("/livez").await.status, 200);
    super::server::eventually("no connection is left", || server.metrics.connections.get() == 0).await;
}
