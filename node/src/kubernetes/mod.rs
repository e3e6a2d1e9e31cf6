//! A node in a StatefulSet of Kubernetes: membership follows `kubectl scale`, and no blank disk founds a second cluster.
//!
//! [`decide`] is the whole of what follows from a StatefulSet, and is pure. Around it: [`api`] asks the API server,
//! [`follow()`] is the leader that carries decisions out, [`wanted_again`] what a removed node waits for, [`pre_stop`]
//! is what the kubelet runs before it stops the Pod. The founding's mark is used by [`crate::life`].
//!
//! Nothing here votes, counts a quorum, or touches a disk: a wrong answer of the API server can at worst ask the engine
//! for a removal, and the engine refuses what would cost the quorum.

pub mod api;
pub mod decide;
mod follow;
pub mod pre_stop;

pub use api::Api;
pub use follow::{follow, wanted_again};
