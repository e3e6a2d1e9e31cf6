//! A server that answers requests in order from a script; the last reply is given again and again.

use balsa_client::wire::problem::{CONTENT_TYPE, Code, Outcome, Problem};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// What to do with a request once all of it is there.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Answer this.
    Whole(String),
    /// Close the connection without a word.
    Close,
    /// Never answer.
    Hang,
    /// Answer a success whose body breaks off.
    Half,
}

impl Reply {
    pub(crate) fn ok(body: &str) -> Reply {
        Reply::answer(200, "application/json", body)
    }

    pub(crate) fn problem(status: u16, code: Code, outcome: Option<Outcome>) -> Reply {
        let problem = Problem {
            kind: format!("urn:balsa:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status,
            detail: "as the script says".to_owned(),
            code,
            outcome,
            current_revision: (code == Code::PreconditionFailed).then_some(9),
            path: None,
            oldest_revision: None,
            limit_bytes: None,
            checks: Vec::new(),
        };
        Reply::answer(status, CONTENT_TYPE, &serde_json::to_string(&problem).unwrap())
    }

    fn answer(status: u16, kind: &str, body: &str) -> Reply {
        Reply::Whole(format!(
            "HTTP/1.1 {status} Scripted\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nbalsa-cluster: c1\r\n\r\n{body}",
            body.len()
        ))
    }

    /// With a hint at the leader.
    pub(crate) fn leader(self, address: &str) -> Reply {
        match self {
            Reply::Whole(text) => {
                Reply::Whole(text.replacen("\r\n\r\n", &format!("\r\nbalsa-leader: {address}\r\n\r\n"), 1))
            }
            other => other,
        }
    }
}

pub(crate) struct Stub {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    pub(crate) async fn start(script: impl Into<Vec<Reply>>) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (seen, script) = (Arc::clone(&heads), Arc::new(script.into()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Stub { address, heads }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// An address at which nobody listens for as long as the socket is held: one that is only free may be somebody's in a moment.
pub(crate) fn dead_address() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

async fn talk(mut stream: TcpStream, script: Arc<Vec<Reply>>, heads: Arc<Mutex<Vec<String>>>) {
    loop {
        let Some(head) = read_request(&mut stream).await else { return };
        let reply = {
            let mut heads = heads.lock().unwrap();
            heads.push(head);
            script[(heads.len() - 1).min(script.len() - 1)].clone()
        };
        let written = match reply {
            Reply::Whole(text) => stream.write_all(text.as_bytes()).await,
            Reply::Close => return,
            Reply::Hang => std::future::pending().await,
            Reply::Half => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"del").await;
                return;
            }
        };
        if written.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}
