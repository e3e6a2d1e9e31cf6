//! The node as one deterministic state machine: events in, effects out.
pub mod handle;
pub mod status;
