//! What each setting may be, and how they relate.
//!
//! Pure, and fills nothing in: a config that passes is the config that runs. Each refusal is one sentence with the
//! setting, its value and what would be right.

use super::{Config, ConfigError};
use crate::address::{is_address, is_url};
use std::fmt;

/// The most founders: a larger cluster grows from a smaller one.
const INITIAL_PEERS_MAX: usize = 9;

impl Config {
    /// Checks every setting and how they relate.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_places()?;
        self.validate_kubernetes()?;
        self.validate_times()?;
        let levels = (balsa_store::FIRST_LEVEL.into(), balsa_store::FEATURE_LEVEL.into());
        between("feature_level", self.feature_level.into(), levels.0, levels.1)?;
        self.validate_sizes()
    }

    fn validate_places(&self) -> Result<(), ConfigError> {
        require(!self.data.as_os_str().is_empty(), "data", "empty", || "name a folder".into())?;
        for (name, advertised, listen_name, listen) in [
            ("advertise", &self.advertise, "listen", self.listen),
            ("peer_advertise", &self.peer_advertise, "peer_listen", self.peer_listen),
        ] {
            match advertised {
                Some(address) => require(is_address(address), name, address, || {
                    "it takes HOST:PORT, as others reach this node".into()
                })?,
                None => {
                    require(!listen.ip().is_unspecified() && listen.port() != 0, name, "not set", || {
                        format!("{listen_name} is {listen}, which nobody can reach; set {name} to HOST:PORT")
                    })?
                }
            }
        }
        let same = self.listen == self.peer_listen && self.listen.port() != 0;
        require(!same, "peer_listen", self.peer_listen, || "clients are there; take another port".into())?;
        match (&self.initial_peers, &self.join) {
            (Some(peers), None) => {
                let count = peers.0.len();
                require((1..=INITIAL_PEERS_MAX).contains(&count), "initial_peers", peers, || {
                    format!("1 to {INITIAL_PEERS_MAX} nodes found a cluster, these are {count}")
                })?;
                let slot = self.founding_slot();
                if self.kubernetes_stateful_set.is_some() {
                    return Ok(()); // a slot beyond the founders joins by them
                }
                require(peers.0.iter().any(|(founder, _)| *founder == slot), "slot", slot, || {
                    format!(
                        "a founder has one of the slots of initial_peers ({peers}); any other node takes join"
                    )
                })
            }
            (None, Some(url)) => require(is_url(url), "join", url, || {
                "it takes the client URL of a node of the cluster, as in http://balsa-0.example:3000".into()
            }),
            (Some(_), Some(url)) => {
                require(false, "join", url, || "initial_peers is set too; found a cluster or join one".into())
            }
            (None, None) => require(false, "initial_peers", "not set", || {
                format!(
                    "name the nodes that found the cluster ({}={} for a cluster of one), or set join",
                    self.founding_slot(),
                    self.peer_address()
                )
            }),
        }
    }

    fn validate_kubernetes(&self) -> Result<(), ConfigError> {
        let Some(name) = &self.kubernetes_stateful_set else { return Ok(()) };
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        let is_name = (1..=253).contains(&name.len()) && name.bytes().all(fits);
        require(is_name, "kubernetes_stateful_set", name, || "it takes the name of a StatefulSet".into())?;
        require(self.slot.is_some(), "slot", "not set", || {
            "in a StatefulSet it is the ordinal of the Pod".into()
        })?;
        require(self.join.is_none(), "join", self.join.as_deref().unwrap_or_default(), || {
            "in a StatefulSet nodes find one another by initial_peers".into()
        })?;
        let api = self.kubernetes_api.as_deref();
        require(api.is_some_and(is_api_url), "kubernetes_api", api.unwrap_or("not set"), || {
            "it takes https://HOST:PORT of the API server, or http://HOST:PORT of a proxy to it".into()
        })
    }

    fn validate_times(&self) -> Result<(), ConfigError> {
        let tick = self.tick_ms;
        between("tick_ms", tick, 1, 1_000)?;
        for (name, ms) in
            [("heartbeat_ms", self.heartbeat_ms), ("election_timeout_ms", self.election_timeout_ms)]
        {
            require(ms >= tick && ms % tick == 0 && ms <= 60_000, name, ms, || {
                format!("it must be a multiple of tick_ms ({tick}), at most 60000")
            })?;
        }
        let heartbeat = self.heartbeat_ms;
        require(
            self.election_timeout_ms >= 5 * heartbeat,
            "election_timeout_ms",
            self.election_timeout_ms,
            || {
                format!(
                    "it must be at least five times heartbeat_ms ({heartbeat}), so that one lost heartbeat elects nobody"
                )
            },
        )?;
        let election = self.election_timeout_ms;
        between("election_stretch_max", self.election_stretch_max.into(), 1, 100)?;
        let timeout = self.request_timeout_ms;
        require(timeout >= 2 * election && timeout <= 600_000, "request_timeout_ms", timeout, || {
            format!(
                "it must be at least twice election_timeout_ms ({election}), so that a request outlives an election, and at most 600000"
            )
        })?;
        between("head_timeout_ms", self.head_timeout_ms, 100, 600_000)?;
        between("idle_timeout_ms", self.idle_timeout_ms, 1_000, 86_400_000)?;
        // Clients take a node that is silent for half a minute for gone.
        between("watch_progress_ms", self.watch_progress_ms, 100, 10_000)?;
        between("snapshot_patience_ms", self.snapshot_patience_ms, 1_000, 86_400_000)?;
        between("drain_timeout_ms", self.drain_timeout_ms, 100, 600_000)
    }

    fn validate_sizes(&self) -> Result<(), ConfigError> {
        // A key travels percent-encoded in a path, up to three bytes for one, and paths end at 64 KiB.
        between("key_bytes_max", self.key_bytes_max as u64, 1, 16_384)?;
        // With its key and its command around it, it must fit in one record of the log and one frame to a peer.
        between("value_bytes_max", self.value_bytes_max as u64, 1, 3 << 20)?;
        between("door_threads", self.door_threads.unwrap_or_default() as u64, 0, 512)?;
        between("connections_max", self.connections_max as u64, 1, 1_000_000)?;
        between("writes_in_flight_max", self.writes_in_flight_max as u64, 1, 1_000_000)?;
        let value = self.value_bytes_max;
        let bytes = self.write_bytes_in_flight_max;
        require(bytes >= 2 * value, "write_bytes_in_flight_max", bytes, || {
            format!("it must be at least twice value_bytes_max ({value}), so that a largest value fits in")
        })?;
        between("watchers_max", self.watchers_max as u64, 1, 1_000_000)?;
        between("history_age_ms", self.history_age_ms, 0, u64::MAX >> 11)?;
        between("history_revisions", self.history_revisions, 1, u64::MAX >> 11)?;
        let overlay = self.overlay_bytes;
        require(overlay >= 4 * value, "overlay_bytes", overlay, || {
            format!("it must be at least four times value_bytes_max ({value})")
        })?;
        let segment = self.log_segment_bytes;
        between("log_segment_bytes", segment, 1 << 20, 1 << 30)?;
        let log = balsa_log::LogConfig { segment_bytes: segment, ..balsa_log::LogConfig::default() };
        let accepted = log.validate();
        require(accepted.is_ok(), "log_segment_bytes", segment, || {
            accepted.as_ref().err().map_or_else(String::new, ToString::to_string)
        })?;
        require(self.log_margin_bytes >= segment, "log_margin_bytes", self.log_margin_bytes, || {
            format!("it must be at least log_segment_bytes ({segment}): the log is cut by whole segments")
        })?;
        let (margin, hold) = (self.log_margin_bytes, self.log_hold_bytes);
        require(hold >= margin, "log_hold_bytes", hold, || {
            format!("it must be at least log_margin_bytes ({margin})")
        })?;
        between("snapshot_bytes_per_second", self.snapshot_bytes_per_second, 64 << 10, 1 << 40)?;
        let filter = tracing_subscriber::EnvFilter::try_new(&self.log_filter);
        require(filter.is_ok(), "log_filter", &self.log_filter, || {
            "it takes LEVEL or MODULE=LEVEL, by commas, with the levels error, warn, info, debug, trace"
                .into()
        })
    }
}

fn is_api_url(url: &str) -> bool {
    url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).is_some_and(is_address)
}

fn require(
    holds: bool,
    setting: &'static str,
    value: impl fmt::Display,
    right: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(ConfigError::Setting { setting, value: value.to_string(), right: right() })
    }
}

fn between(setting: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    require((least..=most).contains(&value), setting, value, || format!("it takes {least} to {most}"))
}
