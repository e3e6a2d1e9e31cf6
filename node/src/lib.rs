//! balsa-node
pub mod config;
pub mod engine;
pub mod http;
pub mod metrics;
