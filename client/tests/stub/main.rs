//! The client against stub servers that answer what a script says: retries, sessions, hints, and the three outcomes.

mod server;

use balsa_client::wire::problem::{Code, Outcome};
use balsa_client::{Cause, Client, ExactlyOnce, WriteError};
use server::{Reply, Stub, dead_address};
use std::time::Duration;

/// A deadline that is met only where the test is about it.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(900);

fn client(addresses: &[&str], timeout: Duration, exactly_once: ExactlyOnce) -> Client {
    let building = Client::builder().endpoints(addresses.iter().copied());
    building.timeout(timeout).exactly_once(exactly_once).build().unwrap()
}

fn put_done() -> Reply {
    Reply::ok(r#"{"key":"a","revision":7}"#)
}

fn session(number: u64) -> Reply {
    Reply::ok(&format!("{{\"session\":{number}}}"))
}

#[tokio::test]
async fn a_key_is_read_and_absence_is_no_error() {
    let item = r#"{"key":"a/b c","value":{"x":[1]},"revision":3,"create_revision":2,"version":2}"#;
    let stub = Stub::start([Reply::ok(item), Reply::problem(404, Code::KeyNotFound, None)]).await;
    let client = client(&[stub.address()], LONG, ExactlyOnce::Session);
    let found = client.get("a/b c").await.unwrap().unwrap();
    assert_eq!(found.json::<serde_json::Value>().unwrap()["x"][0], 1);
    assert!(client.get("none").stale().await.unwrap().is_none());
    let heads = stub.heads();
    assert!(heads[0].starts_with("GET /v1/kv/a/b%20c HTTP/1.1"), "{heads:?}");
    assert!(heads[1].starts_with("GET /v1/kv/none?consistency=stale HTTP/1.1"), "{heads:?}");
}

#[tokio::test]
async fn a_write_whose_connection_broke_is_sent_again_under_its_number() {
    let stub = Stub::start([session(5), Reply::Close, Reply::Close, put_done(), put_done()]).await;
    let client = client(&[stub.address()], LONG, ExactlyOnce::Session);
    assert_eq!(client.put("a", &1).if_absent().await.unwrap().revision, 7);
    client.put("a", &2).await.unwrap();
    let heads = stub.heads();
    assert!(heads[0].starts_with("POST /v1/sessions "), "{heads:?}");
    for head in &heads[1..4] {
        assert!(head.contains("balsa-session: 5:1:1\r\n") && head.contains("if-none-match: *"), "{head}");
    }
    assert!(heads[4].contains("balsa-session: 5:2:2\r\n"), "the first is finished: {}", heads[4]);
}

#[tokio::test]
async fn an_idempotency_key_stays_the_same_over_retries() {
    let lost = Reply::problem(504, Code::OutcomeUnknown, Some(Outcome::Unknown));
    let stub = Stub::start([lost, put_done(), put_done()]).await;
    let client = client(&[stub.address()], LONG, ExactlyOnce::IdempotencyKey);
    client.put("a", &1).await.unwrap();
    client.put("a", &1).await.unwrap();
    let key =
        |head: &String| head.lines().find(|line| line.starts_with("idempotency-key: ")).map(str::to_owned);
    let keys: Vec<_> = stub.heads().iter().map(key).collect();
    assert!(keys[0].is_some() && keys[0] == keys[1] && keys[1] != keys[2], "{keys:?}");
}

#[tokio::test]
async fn an_expired_session_is_replaced_where_nothing_is_in_doubt() {
    let expired = Reply::problem(409, Code::SessionExpired, Some(Outcome::NotApplied));
    let stub = Stub::start([session(5), expired, session(6), put_done()]).await;
    let client = client(&[stub.address()], LONG, ExactlyOnce::Session);
    client.put("a", &1).await.unwrap();
    assert!(stub.heads()[3].contains("balsa-session: 6:1:1\r\n"), "{:?}", stub.heads());
}

#[tokio::test]
async fn an_expired_session_after_doubt_is_unknown() {
    let expired = Reply::problem(409, Code::SessionExpired, Some(Outcome::NotApplied));
    let stub = Stub::start([session(5), Reply::Close, expired]).await;
    let client = client(&[stub.address()], LONG, ExactlyOnce::Session);
    let error = client.put("a", &1).await.unwrap_err();
    assert_eq!((error.outcome(), error.cause().code()), (Outcome::Unknown, Some(Code::SessionExpired)));
}

#[tokio::test]
async fn a_refusal_is_not_applied_and_says_why() {
    let refused = Reply::problem(412, Code::PreconditionFailed, Some(Outcome::NotApplied));
    let stub = Stub::start([session(1), refused]).await;
    let client = client(&[stub.address()], LONG, ExactlyOnce::Session);
    let error = client.delete("a").if_revision(3).await.unwrap_err();
    assert_eq!((error.outcome(), error.current_revision()), (Outcome::NotApplied, Some(9)));
    assert!(stub.heads()[1].contains("if-match: \"3\"\r\n"));
}

#[tokio::test]
async fn at_the_deadline_the_truth_depends_on_what_was_sent() {
    let (_held, nobody) = dead_address();
    let unreachable = client(&[&nobody], SHORT, ExactlyOnce::IdempotencyKey);
    assert!(matches!(unreachable.clear().await.unwrap_err(), WriteError::NotApplied(Cause::NoAnswer { .. })));

    let mute = Stub::start([Reply::Hang]).await;
    let error = client(&[mute.address()], SHORT, ExactlyOnce::IdempotencyKey).clear().await.unwrap_err();
    assert!(matches!(error, WriteError::Unknown(Cause::NoAnswer { .. })), "{error:?}");

    let half = Stub::start([Reply::Half]).await;
    let error = client(&[half.address()], SHORT, ExactlyOnce::IdempotencyKey).clear().await.unwrap_err();
    assert!(matches!(error, WriteError::Applied(_)), "{error:?}");

    let other = Stub::start([Reply::ok("[]")]).await;
    let error = client(&[other.address()], LONG, ExactlyOnce::IdempotencyKey).clear().await.unwrap_err();
    assert!(matches!(error, WriteError::Applied(Cause::Foreign { .. })), "{error:?}");
}

#[tokio::test]
async fn a_change_of_members_is_not_repeated_in_doubt() {
    let stub = Stub::start([Reply::Close, put_done()]).await;
    let error = client(&[stub.address()], LONG, ExactlyOnce::Session).remove_member("1f").await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(stub.heads().len(), 1);
}

#[tokio::test]
async fn a_dead_endpoint_and_a_dead_leader_are_not_noticed() {
    let (_held, nobody) = dead_address();
    let item = r#"{"key":"a","value":1,"revision":3,"create_revision":3,"version":1}"#;
    let stub = Stub::start([Reply::ok(item).leader(&nobody)]).await;
    for addresses in [[stub.address(), nobody.as_str()], [nobody.as_str(), stub.address()]] {
        let client = client(&addresses, LONG, ExactlyOnce::Session);
        for _ in 0..5 {
            assert!(client.get("a").await.unwrap().is_some());
        }
    }
    // Through a port-forward: the hint leads nowhere, or to a node of another cluster.
    let stranger = Stub::start([Reply::ok("{}")]).await;
    for hint in [nobody.as_str(), stranger.address()] {
        let stub = Stub::start([Reply::ok(item).leader(hint)]).await;
        let client = client(&[stub.address()], LONG, ExactlyOnce::Session);
        for _ in 0..5 {
            assert!(client.get("a").await.unwrap().is_some());
        }
        assert!(stranger.heads().iter().all(|head| head.starts_with("GET /v1/cluster ")), "only probed");
    }
}

#[tokio::test]
async fn a_leader_among_the_endpoints_is_followed() {
    let item = r#"{"key":"a","value":1,"revision":3,"create_revision":3,"version":1}"#;
    let leader = Stub::start([Reply::ok(item)]).await;
    let follower = Stub::start([Reply::ok(item).leader(leader.address())]).await;
    let client = client(&[leader.address(), follower.address()], LONG, ExactlyOnce::Session);
    for _ in 0..6 {
        client.get("a").await.unwrap();
    }
    assert!(follower.heads().len() <= 1 && leader.heads().len() >= 5);
}
