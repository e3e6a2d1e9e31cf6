//! The HTTP API over real sockets: every route and every error, against an engine that applies at once.

mod client;
mod cluster;
mod conditions;
mod connections;
mod exactly_once;
mod failures;
mod garbage;
mod keys;
mod past;
mod refusals;
mod server;
mod values;
mod watch;
