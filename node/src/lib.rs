//! balsa-node
pub mod engine;
pub mod http;
pub mod metrics;
pub mod peer;
