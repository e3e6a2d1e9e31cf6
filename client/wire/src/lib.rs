//! balsa-wire: the types of the HTTP API, shared by the node that answers and the client that asks.
//!
//! Shapes and names only: this crate never opens a socket, never retries and holds no rule of the store. What a
//! field means to users is the contract; here is how it is written.
//!
//! - [`kv`]: answers about keys and sessions
//! - [`history`]: compaction, and the events of watches
//! - [`cluster`]: the cluster's state, and requests to change its members
//! - [`problem`]: errors (RFC 9457), their stable codes and the outcome of the write
//! - [`repair`]: what the node's offline repair prints for programs
//! - [`percent`]: keys in paths; [`base64`]: bytes in JSON
//! - [`header`]: names of headers of our own
//!
//! Invariant: readers tolerate members and codes they do not know, so that an old client can talk to a new node; the
//! node refuses members it does not know, so that nothing a user asks for is ignored.

pub mod base64;
pub mod cluster;
pub mod header;
pub mod history;
pub mod kv;
pub mod percent;
pub mod problem;
pub mod repair;
