//! balsa-client: talks to a Balsa cluster, and does not notice when its leader changes.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use balsa_client::Client;
//!
//! let client = Client::connect("http://127.0.0.1:3000,http://127.0.0.1:3001")?;
//! client.put("app/config", &["a", "b"]).await?;
//! if let Some(item) = client.get("app/config").await? {
//!     let config: Vec<String> = item.json()?;
//!     // Change only what was seen; nothing is lost if somebody else was faster.
//!     let done = client.put("app/config", &config[..1]).if_revision(item.revision).await?;
//!     println!("now at revision {}", done.revision);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - Every call has a deadline, and is retried until then: the first time at once, then with jittered back-off.
//! - A watch ([`Client::watch_key`], [`Client::watch_prefix`]) outlives its connections, and misses nothing.
//! - It learns the leader from answers and asks it directly; where that cannot be reached, as behind a port-forward to
//!   one node, the endpoints that were given are enough.
//! - Writes carry a place in a session (or an idempotency key), so that a retry never applies twice.
//! - An error of a write is one of three truths: not applied, applied, unknown ([`WriteError`]).
//!
//! Modules in reading order: `endpoints` (whom to ask), `course` (what to do after an attempt), `session` (a write's
//! place), all three pure; then `transport` and `client`, which do as they say; [`recipes`], what is made of leases and locks;
//! [`failover`], the failover test; [`mod@bench`]; `cli`.
//!
//! Deliberately not here: caching, and any rule of the store. Nothing is read but what a node answered.

// Pure, and no part of the API: open so that the simulator and other tests run the very same logic.
#[doc(hidden)]
pub mod endpoints;

#[doc(hidden)]
pub mod course;
#[doc(hidden)]
pub mod session;
#[doc(hidden)]
pub mod sse;

mod transport;

mod client;
mod error;
mod request;
mod several;

pub mod recipes;

mod backup;
mod watch;
mod whole_file;

pub mod bench;
pub mod cli;
pub mod failover;

pub use backup::{Backup, VerifyError, verify as verify_backup};
pub use balsa_wire as wire;
pub use client::{Builder, Client, ExactlyOnce};
pub use error::{BuildError, Cause, ReadError, WriteError};
pub use request::{Clear, Delete, Get, GetRaw, Put, Raw};
pub use several::{DeleteRange, Range, Txn};
pub use watch::{Watch, WatchError, WatchEvent};
pub use whole_file::WholeFile;
