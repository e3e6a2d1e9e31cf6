//! Whole-system tests of Balsa.
//!
//! [`sim`] runs whole clusters of the production node on a simulated clock, network and disk: one thread, one seed.

pub mod sim;
