//! balsa-node
pub mod engine;
pub mod peer;
