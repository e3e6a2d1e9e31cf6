//! balsa-store
pub mod command;
