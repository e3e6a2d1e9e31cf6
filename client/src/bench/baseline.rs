//! What HTTP alone costs here: a server that reads the body and answers 60 bytes, with the settings of the node's door
//! (`node/src/http/serve.rs`), in a process of its own.
//!
//! It lives as long as its standard input is open, so that it never outlives whoever started it.

use super::{Failure, Kind, Target};
use axum::Router;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::io::BufRead;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tokio::net::{TcpListener, TcpStream};

/// The subcommand that runs the server.
pub const SUBCOMMAND: &str = "bench-baseline";

/// What it answers: as long as the answer to a put.
pub(super) const ANSWER: &[u8; 60] = b"{\"key\":\"bench/00000\",\"revision\":1000000000,\"baseline\":true}\n";

/// The largest head of a request, in bytes, as at the node's door.
const HEAD_BYTES_MAX: usize = 128 * 1024;

/// A server in a process of its own. Dropped, it ends.
#[derive(Debug)]
pub struct Baseline {
    child: Child,
    address: String,
}

impl Baseline {
    /// Starts `program`, which is this command line tool, as a server on a free port.
    pub fn start(program: &Path) -> Result<Baseline, Failure> {
        let failed = |error| Failure(format!("cannot start {} {SUBCOMMAND}: {error}", program.display()));
        let mut command = Command::new(program);
        command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let mut address = String::new();
        let said = child.stdout.take().map(std::io::BufReader::new);
        let read = said.map_or(Ok(0), |mut said| said.read_line(&mut address));
        let baseline = Baseline { child, address: address.trim().to_owned() };
        match read {
            Ok(_) if !baseline.address.is_empty() => Ok(baseline),
            Ok(_) => Err(Failure(format!("{} {SUBCOMMAND} told no address", program.display()))),
            Err(error) => Err(failed(error)),
        }
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl From<&Baseline> for Target {
    fn from(baseline: &Baseline) -> Target {
        Target { kind: Kind::Baseline, endpoints: vec![baseline.address.clone()], pids: vec![baseline.pid()] }
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// Runs the server on a free port of loopback, tells its address on standard output, and ends with standard input.
pub async fn serve() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let router = Router::new().fallback(answer);
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let mut ended = std::pin::pin!(ended);
    loop {
        tokio::select! {
            accepted = listener.accept() => drop(tokio::spawn(speak(accepted?.0, router.clone()))),
            // However it ended, nobody is left who wants an answer.
            _ = &mut ended => return Ok(()),
        }
    }
}

/// As the node's door serves a connection, without its bounds.
async fn speak(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.half_close(true).max_buf_size(HEAD_BYTES_MAX).header_read_timeout(None);
    let service = TowerToHyperService::new(router);
    let _ = http.serve_connection(TokioIo::new(stream), service).await; // how it ended is the client's affair
}

/// Axum reads the whole body before it calls this.
async fn answer(_body: Bytes) -> Response {
    let mut response = Response::new(Bytes::from_static(ANSWER).into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
