//! balsa-node
pub mod engine;
