//! balsa-model: the real core (balsa-raft, not a copy of it), in every order of events within bounds.
//!
//! Several nodes, a network that is a set which only grows, timers that may run out whenever they like, disks that
//! complete writes one by one, crashes that lose what was not durable. Every world that can be reached is visited
//! breadth-first, and every property is checked at every step, so that what is found is found by a shortest way.
//!
//! What this does not show: anything beyond the bounds, anything of time but its order, and snapshots.

// In the order in which a newcomer should read them.
pub mod site;

pub mod properties;

pub mod world;

pub mod bounds;

pub mod search;

pub mod checker;
