//! What a node does in each of its roles. Terms have been compared before any of this is reached.
//!
//! ```text
//!              timer ran out,            a quorum          a quorum
//!              connection broke          would vote        voted
//!   Follower ──────────────▶ PreCandidate ────▶ Candidate ────▶ Leader
//!      ▲  ▲                       │                 │             │
//!      │  └── refused, a leader ──┴─────────────────┘             │
//!      └── a higher term, no quorum heard, disk stalled, removed ─┘
//! ```

mod candidate;
mod follower;
mod leader;
mod propose;
mod replicate;

pub(crate) use candidate::Candidacy;
pub use follower::SnapshotDecision;
pub(crate) use leader::Leader;
pub use replicate::SnapshotOutcome;

/// The role, with what only it needs.
#[derive(Clone, Debug)]
pub(crate) enum RoleState {
    Follower,
    PreCandidate(Candidacy),
    Candidate(Candidacy),
    Leader(Box<Leader>),
}
