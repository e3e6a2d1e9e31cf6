//! A node's life before and around its engine: who it is, whose data folder it holds, how it becomes part of a cluster,
//! and what becomes of its data when it is removed.
//!
//! [`founding`] decides and is pure; [`identity`] is the record on disk; [`become_member()`] carries both out, over the
//! peers' control door and the clients' API.

mod become_member;
pub mod founding;
mod given_up;
pub mod identity;
pub mod incarnation;
mod join;
mod lock;
pub mod set_aside;
mod strangers;

pub use become_member::{ControlCall, Lobby, Member, MemberError, Settings, become_member};
pub(crate) use become_member::{answer_as_member, mint_id, tell_to_begin};
pub use given_up::given_up;
pub use lock::{FolderLock, LockError};
pub use strangers::among_strangers;
