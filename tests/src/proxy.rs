//! A stretch of network between nodes that a test can cut: forwards connections, and breaks bulk streams after so many
//! bytes.

use crate::failure::{Context, Outcome};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How a stream of snapshots begins.
const BULK: &[u8] = b"POST /peer/v1/bulk";

/// Forwards what comes to its address. Dropped, it takes no more connections.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens, `host:port`.
    pub address: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: String,
    /// Forwarded on bulk streams, towards the target.
    bulk_bytes: AtomicU64,
    /// Bulk streams break when so many bytes have been forwarded in all.
    cuts: Mutex<VecDeque<u64>>,
}

impl Proxy {
    /// Starts one before `target`; bulk streams towards it break each time one of `cuts` bytes have gone through.
    pub async fn start(target: String, cuts: &[u64]) -> Outcome<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("open a proxy")?;
        let address = listener.local_addr().context("open a proxy")?.to_string();
        let shared = Arc::new(Shared {
            target,
            bulk_bytes: AtomicU64::new(0),
            cuts: Mutex::new(cuts.iter().copied().collect()),
        });
        let forwarding = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(forward(Arc::clone(&forwarding), stream));
            }
        });
        Ok(Proxy { address, shared, task })
    }

    /// Bytes that went through on bulk streams, towards the target.
    pub fn bulk_bytes(&self) -> u64 {
        self.shared.bulk_bytes.load(Ordering::Relaxed)
    }

    /// Cuts that have not come yet.
    pub fn cuts_left(&self) -> usize {
        self.shared.cuts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Counts what goes through; true: the stream breaks here.
    fn count(&self, bytes: usize) -> bool {
        let all = self.bulk_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        cuts.pop_front_if(|cut| *cut <= all).is_some()
    }
}

/// Both directions of one connection, until either ends or it is cut.
async fn forward(shared: Arc<Shared>, near: TcpStream) {
    let Ok(far) = TcpStream::connect(&shared.target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true)); // only slower without
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    let there = async {
        let mut buffer = vec![0; 64 << 10];
        let mut is_bulk = None;
        while let Ok(length @ 1..) = near_in.read(&mut buffer).await {
            let bulk = *is_bulk.get_or_insert_with(|| buffer.starts_with(BULK));
            if bulk && shared.count(length) {
                return;
            }
            if far_out.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let _ = tokio::io::copy(&mut far_in, &mut near_out).await;
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}
