//! The nemesis: faults on real processes, while clients record what they are told, and judgement.
//!
//! Pure: [`plan`] (which faults, on whom, for how long: all from a seed). The rest does: [`network`] and [`link`] lie
//! between the nodes, [`small_disk`] and [`power`] below them, [`clients`] put operations to them and keep a history,
//! [`strikes`] strike and heal, [`judge`] has the history judged and compares the nodes. The bar `nemesis`
//! (`acceptance/nemesis.rs`) puts them together; `docs/nemesis.md` is for whoever runs it.

pub mod plan;

pub mod link;
pub mod network;

pub mod power;
pub mod small_disk;

pub mod clients;

pub mod strikes;

pub mod judge;
