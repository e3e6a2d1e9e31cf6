//! From the one config to what each part of the node is told.

use super::Config;
use crate::engine::EngineConfig;
use crate::engine::boot::BootConfig;
use crate::kubernetes::Api;
use crate::life::{Member, Settings};
use crate::peer::PeerConfig;
use crate::shell::StreamSettings;
use crate::watch::HubConfig;
use balsa_log::LogConfig;
use balsa_store::StoreConfig;
use std::collections::BTreeMap;
use std::time::Duration;

/// Writes and reads under way in the engine at once, on one node.
const UNDER_WAY_MAX: usize = 65_536;
/// The age at which an unanswered question to the leader is put again, in ms.
const READ_RETRY_MS: u64 = 250;
/// Snapshots on their way to peers at once: each keeps files of the store that would otherwise go, and staged data there.
const SNAPSHOTS_MAX: usize = 2;
/// Deadlines are looked at this often, in ms.
const DEADLINE_INTERVAL_MS: u64 = 50;

impl Config {
    /// The node's place among others.
    pub fn membership(&self) -> Settings {
        let initial_peers: BTreeMap<u32, String> =
            self.initial_peers.iter().flat_map(|peers| peers.0.iter().cloned()).collect();
        Settings {
            slot: if self.join.is_some() { self.slot } else { Some(self.founding_slot()) },
            initial_peers,
            join: self.join.clone(),
            peer_address: self.peer_address(),
            client_address: self.client_address(),
            log: self.log(),
            kubernetes: self.kubernetes(),
        }
    }

    /// The Kubernetes around this node; `None`: it runs elsewhere.
    pub fn kubernetes(&self) -> Option<Api> {
        let (url, stateful_set) = (self.kubernetes_api.as_ref()?, self.kubernetes_stateful_set.as_ref()?);
        Some(Api::new(url, self.kubernetes_account.clone(), stateful_set))
    }

    /// The peers' door.
    pub fn peer(&self) -> PeerConfig {
        PeerConfig::default()
    }

    /// Everything that booting needs; `incarnation` rises with every start on one disk.
    pub fn boot(&self, member: &Member, incarnation: u64) -> BootConfig {
        let mut raft = balsa_raft::Config::with_defaults(member.node, incarnation ^ member.node.0);
        raft.election_ticks = self.election_ticks();
        raft.election_stretch_max = self.election_stretch_max;
        raft.heartbeat_ticks = self.heartbeat_ticks();
        raft.gather_appends = true;
        let fixed_addresses = self.membership().initial_peers;
        let engine = EngineConfig {
            id: member.node,
            cluster: member.cluster,
            slot: member.slot,
            incarnation,
            fixed_addresses,
            feature_level: self.feature_level,
            max_writes: UNDER_WAY_MAX,
            max_reads: UNDER_WAY_MAX,
            read_retry_ms: READ_RETRY_MS,
            forwarded_ttl_ms: 2 * self.request_timeout_ms,
            deadline_ticks: (DEADLINE_INTERVAL_MS / self.tick_ms).max(1),
            log_margin_bytes: usize::try_from(self.log_margin_bytes).unwrap_or(usize::MAX),
            log_hold_bytes: usize::try_from(self.log_hold_bytes).unwrap_or(usize::MAX),
            disk_headroom_bytes: self.disk_headroom_bytes,
            quota_bytes: self.quota_bytes,
            max_snapshots: SNAPSHOTS_MAX,
            alive_ms: 2 * self.election_timeout_ms,
            handover_ms: self.handover_timeout_ms,
        };
        BootConfig {
            engine,
            raft,
            log: self.log(),
            store: self.store(),
            disk_headroom_bytes: self.disk_headroom_bytes,
        }
    }

    /// The watchers of this node.
    pub fn watches(&self) -> HubConfig {
        HubConfig {
            watchers_max: self.watchers_max,
            progress_interval: Duration::from_millis(self.watch_progress_ms),
            progress_timeout: Duration::from_millis(self.request_timeout_ms),
        }
    }

    /// How snapshots are sent; `incarnation` as above.
    pub fn snapshots(&self, incarnation: u64) -> StreamSettings {
        StreamSettings {
            bytes_per_second: self.snapshot_bytes_per_second,
            patience: Duration::from_millis(self.snapshot_patience_ms),
            first_id: incarnation << 12,
        }
    }

    /// The store.
    pub fn store(&self) -> StoreConfig {
        StoreConfig {
            overlay_bytes: self.overlay_bytes,
            history_revisions: self.history_revisions,
            history_age_ms: self.history_age_ms,
            ..StoreConfig::default()
        }
    }

    /// The log.
    pub fn log(&self) -> LogConfig {
        LogConfig {
            segment_bytes: self.log_segment_bytes,
            salt: crate::life::mint_id(),
            ..LogConfig::default()
        }
    }
}
