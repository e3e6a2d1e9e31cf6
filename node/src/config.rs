//! The settings of a node: one struct, from flags, environment and a file.
//!
//! A setting comes from the first of these that has it: flag (`--election-timeout-ms 1000`), environment
//! (`BALSA_ELECTION_TIMEOUT_MS=1000`), the file named by `--config` (JSON: `{"election_timeout_ms": 1000}`), default.
//! Names are the same everywhere, with their unit last. [`Config::validate`] (in `config/validate.rs`) checks how settings relate and
//! fills nothing in; a wrong one stops the start with one sentence that names it, its value and what would be right.
//!
//! This module opens no socket and no data folder, and does not know what is on the disk.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

mod parts;
#[cfg(test)]
mod tests;
mod validate;

use crate::address::is_address;

/// How `serve` is started.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// A JSON file with settings; flags and environment go before it.
    #[arg(long, env = "BALSA_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What flags and environment say.
    #[command(flatten)]
    pub settings: Settings,
}

impl ServeArgs {
    /// Flags, environment, file and defaults together, checked.
    pub fn load(self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            None => Settings::default(),
            Some(path) => read_file(path)?,
        };
        let mut config = Config::from_settings(self.settings.over(file));
        if config.kubernetes_stateful_set.is_some() && config.kubernetes_api.is_none() {
            config.kubernetes_api = api_of_this_pod();
        }
        config.validate()?;
        Ok(config)
    }
}

/// What Kubernetes tells every Pod in its environment.
fn api_of_this_pod() -> Option<String> {
    let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (host, port) = (said("KUBERNETES_SERVICE_HOST")?, said("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("https://{host}:{port}"))
}

fn read_file(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read(path)
        .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), why: error.to_string() })?;
    serde_json::from_slice(&text)
        .map_err(|error| ConfigError::Malformed { path: path.to_owned(), why: error.to_string() })
}

/// Why the settings do not make a node. One sentence for whoever starts it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the settings file {} cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// The file is not what it should be.
    #[error("the settings file {} is not a JSON object of settings: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was found, and where.
        why: String,
    },
    /// A setting that does not fit.
    #[error("{setting} is {value}: {right}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        right: String,
    },
}

/// Lists every setting once: its meaning, name, type, environment variable and default.
macro_rules! settings {
    (
        with_default { $($(#[$doc:meta])* $name:ident: $type:ty = $default:expr, $env:literal, $value:literal;)* }
        optional { $($(#[$odoc:meta])* $oname:ident: $otype:ty, $oenv:literal, $ovalue:literal;)* }
    ) => {
        /// Settings that may be absent: what one source says.
        #[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Settings {
            $($(#[$doc])* #[arg(long, env = $env, value_name = $value)] pub $name: Option<$type>,)*
            $($(#[$odoc])* #[arg(long, env = $oenv, value_name = $ovalue)] pub $oname: Option<$otype>,)*
        }

        /// The settings of a node.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($(#[$doc])* pub $name: $type,)*
            $($(#[$odoc])* pub $oname: Option<$otype>,)*
        }

        impl Settings {
            /// Each setting from `self`, or else from `below`.
            pub fn over(self, below: Settings) -> Settings {
                Settings {
                    $($name: self.$name.or(below.$name),)*
                    $($oname: self.$oname.or(below.$oname),)*
                }
            }
        }

        #[cfg(test)]
        impl Config {
            /// Names and defaults, for the test that help tells the truth.
            fn defaults() -> Vec<(&'static str, String)> {
                vec![$((stringify!($name), { let default: $type = $default; format!("{default:?}") }),)*]
            }
        }

        impl Config {
            /// The settings with defaults for what is absent; not yet checked.
            pub fn from_settings(settings: Settings) -> Config {
                Config {
                    $($name: settings.$name.unwrap_or_else(|| $default),)*
                    $($oname: settings.$oname,)*
                }
            }
        }
    };
}

settings! {
    with_default {
        /// The folder that holds the node's identity, log and store [default: balsa-data]
        data: PathBuf = PathBuf::from("balsa-data"), "BALSA_DATA", "DIR";
        /// Where to listen for clients [default: 127.0.0.1:3000]
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 3000)), "BALSA_LISTEN", "IP:PORT";
        /// Where to listen for peers [default: 127.0.0.1:3300]
        peer_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 3300)), "BALSA_PEER_LISTEN", "IP:PORT";

        /// Length of a tick of the consensus core, in milliseconds [default: 10]
        tick_ms: u64 = 10, "BALSA_TICK_MS", "MS";
        /// How often the leader tells that it lives, in milliseconds [default: 50]
        heartbeat_ms: u64 = 50, "BALSA_HEARTBEAT_MS", "MS";
        /// Without a leader for this long (up to twice as long, at random) a node asks for votes, in milliseconds
        /// [default: 500]
        election_timeout_ms: u64 = 500, "BALSA_ELECTION_TIMEOUT_MS", "MS";
        /// To how many times its length a node may stretch the election timeout, where links and disks show themselves slow;
        /// 1: never [default: 4]
        election_stretch_max: u32 = 4, "BALSA_ELECTION_STRETCH_MAX", "TIMES";

        /// The longest key, in bytes [default: 4096]
        key_bytes_max: usize = 4096, "BALSA_KEY_BYTES_MAX", "BYTES";
        /// The largest value, in bytes [default: 1048576]
        value_bytes_max: usize = 1 << 20, "BALSA_VALUE_BYTES_MAX", "BYTES";
        /// Open client connections; beyond: 503 [default: 16384]
        connections_max: usize = 16_384, "BALSA_CONNECTIONS_MAX", "N";
        /// Watches that are open; beyond: 503 [default: 12000]
        watchers_max: usize = 12_000, "BALSA_WATCHERS_MAX", "N";
        /// How often a watcher is told that it has got everything, which a quorum confirms, in milliseconds [default: 5000]
        watch_progress_ms: u64 = 5_000, "BALSA_WATCH_PROGRESS_MS", "MS";
        /// Writes in flight; beyond: 503 [default: 16384]
        writes_in_flight_max: usize = 16_384, "BALSA_WRITES_IN_FLIGHT_MAX", "N";
        /// Bytes of writes in flight; beyond: 503 [default: 67108864]
        write_bytes_in_flight_max: usize = 64 << 20, "BALSA_WRITE_BYTES_IN_FLIGHT_MAX", "BYTES";
        /// From a request's head to its answer, in milliseconds [default: 5000]
        request_timeout_ms: u64 = 5_000, "BALSA_REQUEST_TIMEOUT_MS", "MS";
        /// From a request's first byte to the end of its head, in milliseconds [default: 10000]
        head_timeout_ms: u64 = 10_000, "BALSA_HEAD_TIMEOUT_MS", "MS";
        /// How long a connection may stay open without a request, in milliseconds [default: 120000]
        idle_timeout_ms: u64 = 120_000, "BALSA_IDLE_TIMEOUT_MS", "MS";
        /// How long requests in flight may take to finish when the node stops, in milliseconds [default: 6000]
        drain_timeout_ms: u64 = 6_000, "BALSA_DRAIN_TIMEOUT_MS", "MS";

        /// A disk with less free space is nearly full: where a quorum's are, writes that need room are refused (507), and deletes
        /// go on from what is left, in bytes [default: 67108864]
        disk_headroom_bytes: u64 = 64 << 20, "BALSA_DISK_HEADROOM_BYTES", "BYTES";
        /// How large the leader's store may become on its disk, history included, before writes that need room are refused
        /// (507), in bytes; 0: as large as the disk allows [default: 0]
        quota_bytes: u64 = 0, "BALSA_QUOTA_BYTES", "BYTES";
        /// How long a leader that stops waits for another to take over, in milliseconds [default: 2000]
        handover_timeout_ms: u64 = 2_000, "BALSA_HANDOVER_TIMEOUT_MS", "MS";

        /// How many revisions of history are kept before they are compacted [default: 100000]
        history_revisions: u64 = 100_000, "BALSA_HISTORY_REVISIONS", "N";
        /// How long a revision of history is kept at most, in the log's time, in milliseconds; 0: no matter how old
        /// [default: 0]
        history_age_ms: u64 = 0, "BALSA_HISTORY_AGE_MS", "MS";
        /// The store's overlay in memory, before it is flushed, in bytes [default: 16777216]
        overlay_bytes: usize = 16 << 20, "BALSA_OVERLAY_BYTES", "BYTES";
        /// A segment of the log, in bytes [default: 16777216]
        log_segment_bytes: u64 = 16 << 20, "BALSA_LOG_SEGMENT_BYTES", "BYTES";
        /// Log kept behind what is durably applied, for members that are behind, in bytes [default: 33554432]
        log_margin_bytes: u64 = 32 << 20, "BALSA_LOG_MARGIN_BYTES", "BYTES";

        /// While the leader's log, which is held in memory, is smaller than this, it keeps what members that live have not got
        /// yet, also while a snapshot is on its way to one; one that needs more gets a snapshot, in bytes [default: 268435456]
        log_hold_bytes: u64 = 256 << 20, "BALSA_LOG_HOLD_BYTES", "BYTES";
        /// How fast snapshots are sent, all together, in bytes a second [default: 67108864]
        snapshot_bytes_per_second: u64 = 64 << 20, "BALSA_SNAPSHOT_BYTES_PER_SECOND", "BYTES";
        /// How fast backups are sent, all together, in bytes a second [default: 83886080]
        backup_bytes_per_second: u64 = 80 << 20, "BALSA_BACKUP_BYTES_PER_SECOND", "BYTES";
        /// How long a member to which a snapshot is on its way may be silent and still go on with it, in milliseconds
        /// [default: 60000]
        snapshot_patience_ms: u64 = 60_000, "BALSA_SNAPSHOT_PATIENCE_MS", "MS";

        /// The folder with token, ca.crt and namespace of this Pod's account in Kubernetes
        /// [default: /var/run/secrets/kubernetes.io/serviceaccount]
        kubernetes_account: PathBuf = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount"),
            "BALSA_KUBERNETES_ACCOUNT", "DIR";

        /// To which feature level the node goes. The cluster's is raised once all members go further, and nobody can go back
        /// to an older build then; lower than the default, it holds that off [default: 2]
        feature_level: u32 = balsa_store::FEATURE_LEVEL, "BALSA_FEATURE_LEVEL", "N";

        /// How the node's own log is written [default: text]
        log_format: LogFormat = LogFormat::Text, "BALSA_LOG_FORMAT", "FORMAT";
        /// What the node's own log holds: LEVEL or MODULE=LEVEL, by commas [default: info]
        log_filter: String = "info".to_owned(), "BALSA_LOG_FILTER", "FILTER";
    }
    optional {
        /// The node's stable place in the cluster, under which a lost node is replaced; not given: 0 when it founds, the
        /// lowest free one when it joins
        slot: u32, "BALSA_SLOT", "N";
        /// Where clients reach this node; not given: the address it listens on
        advertise: String, "BALSA_ADVERTISE", "HOST:PORT";
        /// Where peers reach this node; not given: the address it listens on
        peer_advertise: String, "BALSA_PEER_ADVERTISE", "HOST:PORT";
        /// The nodes that found the cluster together, as SLOT=HOST:PORT of their peer addresses, by commas; the same on all
        initial_peers: InitialPeers, "BALSA_INITIAL_PEERS", "SLOT=HOST:PORT,...";
        /// Threads that serve clients; 0: the thread of engine and peers serves them, too, which is the cheapest where
        /// processors are few; not given: one less than there are processors, 0 where there are no more than two
        door_threads: usize, "BALSA_DOOR_THREADS", "N";
        /// A client URL of a running cluster to join, in place of --initial-peers
        join: String, "BALSA_JOIN", "URL";
        /// The StatefulSet of Kubernetes whose Pod this node is: members follow its replicas, and blank disks found nothing
        /// where a cluster was founded before
        kubernetes_stateful_set: String, "BALSA_KUBERNETES_STATEFUL_SET", "NAME";
        /// The API server of Kubernetes; not given: the one that Kubernetes names in every Pod
        kubernetes_api: String, "BALSA_KUBERNETES_API", "URL";
    }
}

/// How the node's own log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// The founders: slot and peer address each, by slot.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct InitialPeers(pub Vec<(u32, String)>);

impl FromStr for InitialPeers {
    type Err = String;

    fn from_str(text: &str) -> Result<InitialPeers, String> {
        let mut peers = Vec::new();
        for part in text.split(',').map(str::trim) {
            let parsed = part.split_once('=').and_then(|(slot, address)| Some((slot.parse().ok()?, address)));
            let Some((slot, address)) = parsed else {
                return Err(format!("`{part}` is not SLOT=HOST:PORT, as in 0=balsa-0.example:3300"));
            };
            if !is_address(address) {
                return Err(format!("`{address}` is not HOST:PORT, as in balsa-0.example:3300"));
            }
            if peers.iter().any(|(other, _)| *other == slot) {
                return Err(format!("slot {slot} is given twice; each node has its own"));
            }
            if peers.iter().any(|(_, other)| other == address) {
                return Err(format!("`{address}` is given twice; each node has its own"));
            }
            peers.push((slot, address.to_owned()));
        }
        peers.sort();
        Ok(InitialPeers(peers))
    }
}

impl TryFrom<String> for InitialPeers {
    type Error = String;

    fn try_from(text: String) -> Result<InitialPeers, String> {
        text.parse()
    }
}

impl fmt::Display for InitialPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (slot, address)) in self.0.iter().enumerate() {
            write!(f, "{}{slot}={address}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Config {
    /// The slot of a node that founds.
    pub fn founding_slot(&self) -> u32 {
        self.slot.unwrap_or_default()
    }

    /// Where clients reach this node, `host:port`.
    pub fn client_address(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }

    /// Where peers reach this node, `host:port`.
    pub fn peer_address(&self) -> String {
        self.peer_advertise.clone().unwrap_or_else(|| self.peer_listen.to_string())
    }

    /// Threads that serve clients beside that of the engine.
    pub fn door_threads(&self) -> usize {
        self.door_threads.unwrap_or_else(|| {
            match std::thread::available_parallelism().map_or(1, usize::from) {
                0..=2 => 0,
                processors => processors - 1,
            }
        })
    }

    /// A tick of the core.
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_ms)
    }

    /// Ticks from one heartbeat to the next.
    pub fn heartbeat_ticks(&self) -> u32 {
        ticks(self.heartbeat_ms, self.tick_ms)
    }

    /// Ticks without a leader before an election.
    pub fn election_ticks(&self) -> u32 {
        ticks(self.election_timeout_ms, self.tick_ms)
    }

    /// The bounds of requests.
    pub fn limits(&self) -> crate::http::Limits {
        crate::http::Limits {
            key_bytes: self.key_bytes_max,
            value_bytes: self.value_bytes_max,
            writes_in_flight: self.writes_in_flight_max,
            write_bytes_in_flight: self.write_bytes_in_flight_max,
            request_timeout: Duration::from_millis(self.request_timeout_ms),
            backup_bytes_per_second: self.backup_bytes_per_second,
        }
    }

    /// The bounds of connections.
    pub fn connection_limits(&self) -> crate::http::ConnectionLimits {
        crate::http::ConnectionLimits {
            connections: self.connections_max,
            head_timeout: Duration::from_millis(self.head_timeout_ms),
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            drain_timeout: Duration::from_millis(self.drain_timeout_ms),
            ..crate::http::ConnectionLimits::default()
        }
    }
}

/// Whole ticks in `ms`; validated settings are far below what 32 bits hold.
fn ticks(ms: u64, tick_ms: u64) -> u32 {
    u32::try_from(ms / tick_ms.max(1)).unwrap_or(u32::MAX)
}
