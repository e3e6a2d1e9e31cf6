//! Whole-system tests of Balsa.
//!
//! [`sim`] runs whole clusters of the production node on a simulated clock, network and disk: one thread, one seed.
//! [`fuzz`] feeds bent inputs to whatever reads bytes. The rest runs real processes on this machine: [`cluster`] starts,
//! kills and heals them, [`acceptance`] holds the bars that a release must clear.

pub mod random;

pub mod sim;

pub mod failure;

pub mod binary;
pub mod cluster;
pub mod http;
pub mod limp_disk;
pub mod members;
pub mod ports;
pub mod process;
pub mod proxy;

pub mod nemesis;
pub mod strike;

pub mod fuzz;
pub mod k8s;

pub mod acceptance;
