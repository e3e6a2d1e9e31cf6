//! balsa-node: the server binary and its library.
//!
//! A request comes in by a door, is decided by the engine, and leaves by the same door:
//!
//! ```text
//!   http ──► engine ──► shell: log, apply ──► http
//!              ▲ ▼
//!             peer
//! ```
//!
//! Modules in reading order: [`engine`] (the node as one deterministic state machine), [`shell`] (threads that run it),
//! [`watch`] (changes, to whoever watches), [`peer`] and [`http`] (the doors), [`life`] (identity, founding, joining), [`kubernetes`] (a node in a StatefulSet), [`server`] (a process of all that),
//! [`config`], [`metrics`], [`dev`] (a cluster on one machine), [`repair`] (of a
//! data folder, offline).

pub mod engine;

pub mod shell;

pub mod watch;

pub mod http;
pub mod peer;

pub mod life;

pub mod kubernetes;

pub mod config;
pub mod metrics;
pub mod server;

pub mod dev;
pub mod repair;

mod address;
mod durable_file;
mod http_call;
mod resolve;
