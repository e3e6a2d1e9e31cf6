//! Connections: how many, for how long, and how they end.
use super::state::ApiState;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::net::TcpListener;

/// Bounds of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open connections; beyond, a connection is answered 503 and closed.
    pub connections: usize,
    /// From a request's first byte to the end of its head.
    pub head_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// How long requests in flight may take to finish once the node stops.
    pub drain_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            connections: 16_384,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(6),
        }
    }
}

/// Serves.
pub async fn serve(
    listener: TcpListener,
    state: ApiState,
    _limits: ConnectionLimits,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, super::router(state)).with_graceful_shutdown(shutdown).await
}
