//! `GET /v1/backup`: one stream that proves itself whole, no older than the request, and only a few at once.

use super::client::Answered;
use super::server::{self, Mood, Server};
use balsa_node::engine::handle::ReadError;
use balsa_node::http::Limits;
use balsa_store::{SUCCESSION_STEP, SnapshotSink};
use balsa_wire::backup::{Header, Piece, Reader};
use balsa_wire::problem::Code;
use bytes::Bytes;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Takes a backup apart; all of it must be good.
fn take_apart(bytes: &[u8]) -> (Header, SnapshotSink) {
    let (mut reader, mut sink, mut header) = (Reader::default(), SnapshotSink::checking(), None);
    let mut input = bytes;
    while let Some(piece) = reader.take(&mut input).unwrap() {
        match piece {
            Piece::Header(is_of) => header = Some(is_of),
            Piece::Chunk(chunk) => sink.add_chunk(&Bytes::from(chunk)).unwrap(),
            Piece::End(_) => {}
        }
    }
    reader.finish().unwrap();
    (header.unwrap(), sink)
}

/// Looks until it holds.
async fn until(holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "waited in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn backup(server: &Server) -> Answered {
    let answered = server.get("/v1/backup").await;
    assert_eq!(answered.status, 200, "{}", answered.text());
    answered
}

#[tokio::test]
async fn it_holds_all_that_was_written_before_it_and_says_so() {
    let server = server::start().await;
    for value in 0..20 {
        server.put(&format!("/key-{}", value % 7), &value.to_string()).await;
    }
    let answered = backup(&server).await;
    let (header, sink) = take_apart(&answered.body);
    assert_eq!((header.revision, header.keys, header.feature_level), (20, 7, 1));
    assert_eq!((header.cluster.as_str(), header.node.as_str()), ("00000000000000c1", "1"));
    assert_eq!(answered.header("balsa-backup-revision"), Some("20"));
    assert_eq!(answered.header("content-type"), Some("application/octet-stream"));
    let name = "attachment; filename=\"balsa-00000000000000c1-20.backup\"";
    assert_eq!(answered.header("content-disposition"), Some(name));
    let (position, keys) = sink.arrived().unwrap().expect("the state is whole");
    assert_eq!((position.revision, keys), (20, 7));
    assert_eq!(header.digest, format!("{:032x}", position.digest));
    assert!(position.revision < SUCCESSION_STEP);
    until(|| server.metrics.backups_in_progress.get() == 0).await;
    let text = server.get("/metrics").await;
    assert!(text.text().contains("balsa_backups_total{event=\"sent\"} 1"), "{}", text.text());
}

#[tokio::test]
async fn what_it_does_not_know_is_refused() {
    let server = server::start().await;
    assert_eq!(server.get("/v1/backup?prefix=a").await.problem().code, Code::UnknownParameter);
    for header in ["If-Match: *", "Idempotency-Key: k"] {
        assert_eq!(server.send("GET", "/v1/backup", &[header], "").await.status, 400, "{header}");
    }
    for method in ["HEAD", "POST", "DELETE"] {
        let answered = server.send(method, "/v1/backup", &[], "").await;
        assert_eq!((answered.status, answered.header("allow")), (405, Some("GET")), "{method}");
    }
    *server.engine.mood.lock().unwrap() = Mood::FailsReads(ReadError::NoLeader);
    assert_eq!(server.get("/v1/backup").await.problem().code, Code::NoLeader);
}

/// Asks for a backup and takes no more of it than the head.
async fn stalled(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /v1/backup HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    stream
}

#[tokio::test]
async fn a_third_at_once_is_refused_until_one_of_them_ends() {
    // So slow that none of them ends by itself.
    let limits = Limits { backup_bytes_per_second: 1_000, ..Limits::default() };
    let server = server::start_with(server::Setup { limits, ..server::Setup::default() }).await;
    let value = format!("\"{}\"", "x".repeat(400_000));
    for key in ["/a", "/b", "/c"] {
        server.put(key, &value).await;
    }
    let (first, second) = (stalled(&server).await, stalled(&server).await);
    assert_eq!(server.metrics.backups_in_progress.get(), 2);
    let refused = server.get("/v1/backup").await.problem();
    assert_eq!(refused.code, Code::Overloaded);
    let text = server.get("/metrics").await;
    assert!(text.text().contains("balsa_rejected_total{reason=\"backups\"} 1"), "{}", text.text());
    drop((first, second));
}

/// A client that goes away is noticed at the next chunk, and its place is free again.
#[tokio::test]
async fn a_client_that_went_away_gives_its_place_back() {
    let server = server::start().await;
    let value = format!("\"{}\"", "x".repeat(1_000_000));
    for number in 0..40 {
        server.put(&format!("/key-{number}"), &value).await;
    }
    drop((stalled(&server).await, stalled(&server).await));
    until(|| server.metrics.backups_in_progress.get() == 0).await;
    assert_eq!(server.metrics.backups_failed.get(), 2);
    take_apart(&backup(&server).await.body);
}
