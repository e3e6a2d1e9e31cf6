//! The settings of the core. All times are in ticks, all sizes in bytes; what a tick is, only the driver
//! knows.

use crate::types::NodeId;
use thiserror::Error;

/// The settings of one node's core.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's identity; not 0.
    pub id: NodeId,
    /// The shortest election timeout in ticks, where links and disks are quick; each one is drawn anew from
    /// `[election_ticks, 2 * election_ticks)`. Also the time after which a leader that hears from no quorum, or whose disk has
    /// stalled, steps down.
    pub election_ticks: u32,
    /// To how many times its length `election_ticks` may be stretched where links or disks are slow; 1: never.
    pub election_stretch_max: u32,
    /// Ticks between a leader's heartbeats; at least 1 and below half of `election_ticks`.
    pub heartbeat_ticks: u32,
    /// Entries of one append message, in bytes by [`crate::Entry::size_bytes`]; one entry is sent whatever
    /// its size.
    pub max_append_bytes: usize,
    /// Appends to one peer that may be unanswered.
    pub max_inflight_appends: usize,
    /// Whether entries wait for the answer to the append before them, a tick at most, and go together: more of them in one
    /// write to a disk, and fewer messages, for a little more delay where many write at once.
    pub gather_appends: bool,
    /// Bytes of entries to one peer that may be unanswered.
    pub max_inflight_bytes: usize,
    /// Bytes of proposals that may be uncommitted before further ones are refused; one is taken whatever its
    /// size.
    pub max_uncommitted_bytes: usize,
    /// Bytes of entries that may be handed out and not yet reported applied; one entry is handed out whatever
    /// its size.
    pub max_apply_bytes: usize,
    /// Reads that may wait for their confirmation before further ones are refused.
    pub max_pending_reads: usize,
    /// Seeds the election timeouts; equal seeds and inputs give equal outputs.
    pub seed: u64,
}

/// A setting that cannot work; the message names it, its value and what would be right.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConfigError {
    /// Identity 0.
    #[error("id is 0: a node's identity is any other number")]
    ZeroId,
    /// A limit of 0.
    #[error("{setting} is 0: it must be at least 1")]
    Zero {
        /// The setting's name.
        setting: &'static str,
    },
    /// Too few heartbeats in an election timeout.
    #[error(
        "heartbeat_ticks is {heartbeat} with election_ticks {election}: it must be less than half of that, so that one \
         lost heartbeat causes no election"
    )]
    HeartbeatTooSlow {
        /// `heartbeat_ticks`.
        heartbeat: u32,
        /// `election_ticks`.
        election: u32,
    },
}

impl Config {
    /// Settings that suit a node on a local network; the driver chooses identity and seed.
    pub fn with_defaults(id: NodeId, seed: u64) -> Config {
        Config {
            id,
            election_ticks: 10,
            election_stretch_max: 1,
            heartbeat_ticks: 2,
            max_append_bytes: 1 << 20,
            max_inflight_appends: 64,
            gather_appends: false,
            max_inflight_bytes: 8 << 20,
            max_uncommitted_bytes: 64 << 20,
            max_apply_bytes: 16 << 20,
            max_pending_reads: 1 << 16,
            seed,
        }
    }

    /// Checks the relations between the settings; fills nothing in.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.id == NodeId(0) {
            return Err(ConfigError::ZeroId);
        }
        let limits = [
            ("election_stretch_max", self.election_stretch_max as usize),
            ("heartbeat_ticks", self.heartbeat_ticks as usize),
            ("max_append_bytes", self.max_append_bytes),
            ("max_inflight_appends", self.max_inflight_appends),
            ("max_inflight_bytes", self.max_inflight_bytes),
            ("max_uncommitted_bytes", self.max_uncommitted_bytes),
            ("max_apply_bytes", self.max_apply_bytes),
            ("max_pending_reads", self.max_pending_reads),
        ];
        if let Some(&(setting, _)) = limits.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { setting });
        }
        if self.heartbeat_ticks.saturating_mul(2) >= self.election_ticks {
            return Err(ConfigError::HeartbeatTooSlow {
                heartbeat: self.heartbeat_ticks,
                election: self.election_ticks,
            });
        }
        Ok(())
    }
}
