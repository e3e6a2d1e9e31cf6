//! `seed-curl`: the four lines that every user knows, with the real curl, against each node of a `dev` cluster; and again
//! after a restart of everything, with the data still there.
//!
//! Answers are compared exactly, revisions included: nobody else writes.

use crate::binary;
use crate::cluster::{PATIENCE, eventually};
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::http::{Ask, send};
use crate::process::{Process, Recipe};
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

const NODES: u16 = 3;
/// Peers' ports lie so far above the clients' in a `dev` cluster.
const PEER_PORTS_ABOVE: u16 = 300;
const FOUND: u16 = 200;
const ABSENT: u16 = 404;

/// Runs the bar; gives its figures.
pub async fn run() -> Outcome<String> {
    let folder = tempfile::Builder::new().prefix("seed-curl-").tempdir_in(binary::scratch()?);
    let folder = folder.context("make a folder")?;
    let base_port = base_port()?;
    let data = folder.path().join("data");
    let arguments =
        ["dev", "--nodes", "3", "--base-port", &base_port.to_string(), "--data", binary::text(&data)?];
    let arguments = arguments.map(str::to_string).into();
    let log = folder.path().join("dev.log");
    let mut dev = Process::new(Recipe {
        data: data.clone(),
        log,
        runner: Vec::new(),
        arguments,
        environment: Vec::new(),
    });
    let outcome = lines(&mut dev, base_port).await;
    if dev.pid().is_some() {
        // Killed, it would leave its nodes behind; how it stops matters no more.
        let _ = dev.signal(Signal::INT);
        let _ = dev.wait_for_end(PATIENCE).await;
    }
    outcome.map_err(|Failure(why)| Failure(format!("{why}\n--- dev said:\n{}", dev.last_words(40))))
}

async fn lines(dev: &mut Process, base_port: u16) -> Outcome<String> {
    let mut session = Session::new();
    for round in ["first", "again, after a restart of everything"] {
        let started = Instant::now();
        dev.start()?;
        for node in 0..NODES {
            wait_until_ready(dev, base_port + node).await?;
        }
        println!("{round}: {NODES} nodes ready after {:.1} s", started.elapsed().as_secs_f64());
        if session.revision > 0 {
            for node in 0..NODES {
                session.is_there(base_port + node, "kept", "\"over the restart\"")?;
            }
        }
        for node in 0..NODES {
            session.four_lines(base_port + node)?;
        }
        session.put(base_port, "kept", "\"over the restart\"")?;
        dev.signal(Signal::INT)?;
        let stopping = Instant::now();
        let status = dev.wait_for_end(PATIENCE).await?;
        ensure(status.success(), || format!("dev ended with {status} at Ctrl-C"))?;
        println!("  stopped {:.1} s after Ctrl-C", stopping.elapsed().as_secs_f64());
    }
    Ok(format!(
        "{} answers of curl as they must be, on {NODES} nodes, before and after a restart",
        session.compared
    ))
}

/// What the answers must be, line after line.
pub(super) struct Session {
    revision: u64,
    compared: u64,
}

impl Session {
    /// With a cluster that nothing was written to yet.
    pub(super) fn new() -> Session {
        Session { revision: 0, compared: 0 }
    }

    /// How many answers were as they must be.
    pub(super) fn compared(&self) -> u64 {
        self.compared
    }

    /// The four lines of the README, in their very words, at this port of this machine.
    pub(super) fn four_lines(&mut self, port: u16) -> Outcome<()> {
        let before = self.compared;
        self.put(port, "exampleKey", "\"exampleValue\"")?;
        self.is_there(port, "exampleKey", "\"exampleValue\"")?;
        self.revision += 1;
        let gone = format!("{{\"key\":\"exampleKey\",\"deleted\":true,\"revision\":{}}}", self.revision);
        self.expect(&["-X", "DELETE", &url(port, "exampleKey")], FOUND, &gone)?;
        let still = format!("{{\"key\":\"exampleKey\",\"deleted\":false,\"revision\":{}}}", self.revision);
        self.expect(&["-X", "DELETE", &url(port, "exampleKey")], FOUND, &still)?;
        let absent = format!(
            "{{\"type\":\"urn:balsa:problem:key_not_found\",\"title\":\"The key does not exist\",\"status\":404,\
             \"detail\":\"the key does not exist at revision {}\",\"code\":\"key_not_found\"}}",
            self.revision
        );
        self.expect(&[&url(port, "exampleKey")], ABSENT, &absent)?;
        self.put(port, "exampleKey", "\"exampleValue\"")?;
        self.put(port, "otherKey", "{\"of\":[\"any\",1,null]}")?;
        // All keys: these two, and the one that is kept over a restart.
        let kept = u64::from(self.has_kept(port)?);
        self.revision += 1;
        let cleared = format!("{{\"deleted\":{},\"revision\":{}}}", 2 + kept, self.revision);
        self.expect(&["-X", "POST", &url(port, "clear")], FOUND, &cleared)?;
        let nothing = format!("{{\"deleted\":0,\"revision\":{}}}", self.revision);
        self.expect(&["-X", "POST", &url(port, "clear")], FOUND, &nothing)?;
        println!("  node at port {port}: {} answers compared", self.compared - before);
        Ok(())
    }

    fn put(&mut self, port: u16, key: &str, value: &str) -> Outcome<()> {
        self.revision += 1;
        let body = format!("{{\"value\":{value}}}");
        let answer = format!("{{\"key\":\"{key}\",\"revision\":{}}}", self.revision);
        let line = ["-X", "PUT", "-H", "Content-Type: application/json", "-d", &body, &url(port, key)];
        self.expect(&line, FOUND, &answer)
    }

    /// The key has the value; it was the last write, and the key's first.
    fn is_there(&mut self, port: u16, key: &str, value: &str) -> Outcome<()> {
        let revision = self.revision;
        let answer = format!(
            "{{\"key\":\"{key}\",\"value\":{value},\"revision\":{revision},\"create_revision\":{revision},\"version\":1}}"
        );
        self.expect(&[&url(port, key)], FOUND, &answer)
    }

    fn has_kept(&self, port: u16) -> Outcome<bool> {
        Ok(curl(&[&url(port, "kept")])?.0 == FOUND)
    }

    fn expect(&mut self, line: &[&str], status: u16, body: &str) -> Outcome<()> {
        let (got_status, got_body) = curl(line)?;
        ensure(got_status == status && got_body == body, || {
            format!("curl {}\n  must be {status} {body}\n  but is {got_status} {got_body}", line.join(" "))
        })?;
        self.compared += 1;
        Ok(())
    }
}

/// Runs curl as a user does; gives status and body.
fn curl(line: &[&str]) -> Outcome<(u16, String)> {
    let output =
        Command::new("curl").args(["-sS", "--max-time", "20", "-w", "\n%{http_code}"]).args(line).output();
    let output = output.context("run curl")?;
    ensure(output.status.success(), || {
        format!("curl {} failed: {}", line.join(" "), String::from_utf8_lossy(&output.stderr))
    })?;
    let text = String::from_utf8(output.stdout).context("read what curl said")?;
    let (body, status) = text.rsplit_once('\n').ok_or_else(|| Failure(format!("curl said only: {text}")))?;
    Ok((status.parse().context(format!("read the status {status}"))?, body.to_string()))
}

fn url(port: u16, path: &str) -> String {
    format!("http://localhost:{port}/{path}")
}

/// A base port at which clients' and peers' ports are all free.
fn base_port() -> Outcome<u16> {
    for _ in 0..100 {
        let base = crate::ports::free()?.min(31_000);
        let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (base..base + NODES).all(|port| free(port) && free(port + PEER_PORTS_ABOVE)) {
            return Ok(base);
        }
    }
    Err(Failure("no free ports for a dev cluster".to_string()))
}

/// Waits until the node of a `dev` cluster at this port is ready.
pub(super) async fn wait_until_ready(dev: &mut Process, port: u16) -> Outcome<()> {
    eventually("a node of the dev cluster to be ready", PATIENCE, async || {
        if let Some(status) = dev.ended()? {
            return Err(Failure(format!("dev ended ({status})")));
        }
        let answer = send(&format!("127.0.0.1:{port}"), Ask::get("/readyz"), Duration::from_secs(1)).await;
        Ok(answer.is_ok_and(|answer| answer.is_success()).then_some(()))
    })
    .await
}
