//! What is made of leases and locks: a [`Session`] that lives as long as its owner, a [`Lock`], an [`Election`].
//!
//! Each is a guard. It keeps its lease alive in the background, and says at once when it cannot be sure of it any more:
//! by its own monotonic clock from when the last sign of life was *sent*, which is before the cluster counts from. What is
//! done under a lock should carry its fencing token all the same ([`Lock::token`]): a process that was paused learns of the
//! loss only when it goes on.

mod election;
mod keeper;
mod lock;
mod session;

pub use election::{Election, Leadership};
pub(crate) use lock::target as lock_target;
pub use lock::{Lock, LockRequest};
pub use session::Session;
