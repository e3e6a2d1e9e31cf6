//! The settings of a node: one struct, from flags, environment and a file.
//!
//! A setting comes from the first of these that has it: flag (`--election-timeout-ms 1000`), environment
//! (`BALSA_ELECTION_TIMEOUT_MS=1000`), the file named by `--config` (JSON: `{"election_timeout_ms": 1000}`), default.
//! Names are the same everywhere, with their unit last. [`Config::validate`] checks how settings relate and fills
//! nothing in; a wrong one stops the start with one sentence that names it, its value and what would be right.
//!
//! This module opens no socket and no data folder, and does not know what is on the disk.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

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
        let config = Config::from_settings(self.settings.over(file));
        config.validate()?;
        Ok(config)
    }
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
        /// The node's stable place in the cluster, under which a lost node is replaced [default: 0]
        slot: u32 = 0, "BALSA_SLOT", "N";
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

        /// The longest key, in bytes [default: 4096]
        key_bytes_max: usize = 4096, "BALSA_KEY_BYTES_MAX", "BYTES";
        /// The largest value, in bytes [default: 1048576]
        value_bytes_max: usize = 1 << 20, "BALSA_VALUE_BYTES_MAX", "BYTES";
        /// Open client connections; beyond: 503 [default: 16384]
        connections_max: usize = 16_384, "BALSA_CONNECTIONS_MAX", "N";
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

        /// How many revisions of history are kept before they are compacted [default: 100000]
        history_revisions: u64 = 100_000, "BALSA_HISTORY_REVISIONS", "N";
        /// The store's overlay in memory, before it is flushed, in bytes [default: 33554432]
        overlay_bytes: usize = 32 << 20, "BALSA_OVERLAY_BYTES", "BYTES";
        /// A segment of the log, in bytes [default: 33554432]
        log_segment_bytes: u64 = 32 << 20, "BALSA_LOG_SEGMENT_BYTES", "BYTES";
        /// Log kept behind what is durably applied, for members that are behind, in bytes [default: 134217728]
        log_margin_bytes: u64 = 128 << 20, "BALSA_LOG_MARGIN_BYTES", "BYTES";

        /// How the node's own log is written [default: text]
        log_format: LogFormat = LogFormat::Text, "BALSA_LOG_FORMAT", "FORMAT";
        /// What the node's own log holds: LEVEL or MODULE=LEVEL, by commas [default: info]
        log_filter: String = "info".to_owned(), "BALSA_LOG_FILTER", "FILTER";
    }
    optional {
        /// Where clients reach this node; not given: the address it listens on
        advertise: String, "BALSA_ADVERTISE", "HOST:PORT";
        /// Where peers reach this node; not given: the address it listens on
        peer_advertise: String, "BALSA_PEER_ADVERTISE", "HOST:PORT";
        /// The nodes that found the cluster together, as SLOT=HOST:PORT of their peer addresses, by commas; the same on all
        initial_peers: InitialPeers, "BALSA_INITIAL_PEERS", "SLOT=HOST:PORT,...";
        /// A client URL of a running cluster to join, in place of --initial-peers
        join: String, "BALSA_JOIN", "URL";
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

/// The most founders: a larger cluster grows from a smaller one.
const INITIAL_PEERS_MAX: usize = 9;

impl Config {
    /// Where clients reach this node, `host:port`.
    pub fn client_address(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }

    /// Where peers reach this node, `host:port`.
    pub fn peer_address(&self) -> String {
        self.peer_advertise.clone().unwrap_or_else(|| self.peer_listen.to_string())
    }

    /// A tick of the core.
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_ms)
    }

    /// Ticks from one heartbeat to the next.
    pub fn heartbeat_ticks(&self) -> u64 {
        self.heartbeat_ms / self.tick_ms
    }

    /// Ticks without a leader before an election.
    pub fn election_ticks(&self) -> u64 {
        self.election_timeout_ms / self.tick_ms
    }

    /// The bounds of requests.
    pub fn limits(&self) -> crate::http::Limits {
        crate::http::Limits {
            key_bytes: self.key_bytes_max,
            value_bytes: self.value_bytes_max,
            writes_in_flight: self.writes_in_flight_max,
            write_bytes_in_flight: self.write_bytes_in_flight_max,
            request_timeout: Duration::from_millis(self.request_timeout_ms),
        }
    }

    /// The bounds of connections.
    pub fn connection_limits(&self) -> crate::http::ConnectionLimits {
        crate::http::ConnectionLimits {
            connections: self.connections_max,
            head_timeout: Duration::from_millis(self.head_timeout_ms),
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            drain_timeout: Duration::from_millis(self.drain_timeout_ms),
        }
    }

    /// Checks every setting and how they relate.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_places()?;
        self.validate_times()?;
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
                    self.slot,
                    self.peer_address()
                )
            }),
        }
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
        let timeout = self.request_timeout_ms;
        require(timeout >= 2 * election && timeout <= 600_000, "request_timeout_ms", timeout, || {
            format!(
                "it must be at least twice election_timeout_ms ({election}), so that a request outlives an election, and at most 600000"
            )
        })?;
        between("head_timeout_ms", self.head_timeout_ms, 100, 600_000)?;
        between("idle_timeout_ms", self.idle_timeout_ms, 1_000, 86_400_000)?;
        between("drain_timeout_ms", self.drain_timeout_ms, 100, 600_000)
    }

    fn validate_sizes(&self) -> Result<(), ConfigError> {
        // A key travels percent-encoded in a path, up to three bytes for one, and paths end at 64 KiB.
        between("key_bytes_max", self.key_bytes_max as u64, 1, 16_384)?;
        between("value_bytes_max", self.value_bytes_max as u64, 1, 16 << 20)?;
        between("connections_max", self.connections_max as u64, 1, 1_000_000)?;
        between("writes_in_flight_max", self.writes_in_flight_max as u64, 1, 1_000_000)?;
        let value = self.value_bytes_max;
        let bytes = self.write_bytes_in_flight_max;
        require(bytes >= 2 * value, "write_bytes_in_flight_max", bytes, || {
            format!("it must be at least twice value_bytes_max ({value}), so that a largest value fits in")
        })?;
        between("history_revisions", self.history_revisions, 1, u64::MAX >> 11)?;
        let overlay = self.overlay_bytes;
        require(overlay >= 4 * value, "overlay_bytes", overlay, || {
            format!("it must be at least four times value_bytes_max ({value})")
        })?;
        let segment = self.log_segment_bytes;
        require(segment >= 2 * value as u64 && segment <= 1 << 30, "log_segment_bytes", segment, || {
            format!(
                "it must be at least twice value_bytes_max ({value}), so that every entry fits in one segment, and at most 1073741824"
            )
        })?;
        require(self.log_margin_bytes >= segment, "log_margin_bytes", self.log_margin_bytes, || {
            format!("it must be at least log_segment_bytes ({segment}): the log is cut by whole segments")
        })?;
        let filter = tracing_subscriber::EnvFilter::try_new(&self.log_filter);
        require(filter.is_ok(), "log_filter", &self.log_filter, || {
            "it takes LEVEL or MODULE=LEVEL, by commas, with the levels error, warn, info, debug, trace"
                .into()
        })
    }
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

/// `host:port` with a port that can be dialled; an IPv6 host in brackets.
pub(crate) fn is_address(text: &str) -> bool {
    const BYTES_MAX: usize = 253 + 6; // a DNS name and a port
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let (bare, colons) = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(bare) => (bare, true),
        None => (host, false),
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_') || (colons && b == b':');
    text.len() <= BYTES_MAX
        && !bare.is_empty()
        && bare.bytes().all(fits)
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// `http://host:port`, with nothing after it but a slash.
fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://") else {
        return false;
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    is_address(authority) || is_address(&format!("{authority}:80"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn valid() -> Config {
        let peers = "0=a:3300,1=b:3300,2=c:3300".parse().unwrap();
        Config::from_settings(Settings { initial_peers: Some(peers), ..Settings::default() })
    }

    #[test]
    fn defaults_are_valid_but_for_the_founders() {
        assert_eq!(valid().validate(), Ok(()));
        let error = Config::from_settings(Settings::default()).validate().unwrap_err().to_string();
        assert!(error.starts_with("initial_peers is not set: name the nodes"), "{error}");
        assert!(error.contains("0=127.0.0.1:3300 for a cluster of one"), "{error}");
        assert_eq!((valid().heartbeat_ticks(), valid().election_ticks()), (5, 50));
    }

    #[test]
    fn every_setting_has_a_flag_and_an_environment_variable_of_its_name() {
        let command = Line::command();
        let mut settings = 0;
        for argument in command.get_arguments().filter(|a| a.get_id() != "help") {
            let name = argument.get_id().as_str().to_owned();
            let flag = argument.get_long().map(str::to_owned);
            assert_eq!(flag, Some(name.replace('_', "-")));
            let variable = argument.get_env().map(|v| v.to_string_lossy().into_owned());
            assert_eq!(variable, Some(format!("BALSA_{}", name.to_uppercase())));
            settings += 1;
        }
        assert!(settings > 20, "{settings}");
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.json");
        let text =
            r#"{"slot": 1, "election_timeout_ms": 900, "initial_peers": "1=h:3300", "log_format": "json"}"#;
        std::fs::write(&file, text).unwrap();
        let line = ["serve", "--config", file.to_str().unwrap(), "--slot", "2"];
        let config = Line::try_parse_from(line).unwrap().serve.load().unwrap();
        assert_eq!((config.slot, config.election_timeout_ms, config.heartbeat_ms), (2, 900, 50));
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.initial_peers, Some(InitialPeers(vec![(1, "h:3300".to_owned())])));
    }

    #[test]
    fn a_file_that_is_wrong_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.json");
        for (text, says) in [
            ("{\"slots\": 1}", "unknown field `slots`"),
            ("{\"slot\": \"x\"}", "line 1"),
            ("{\"initial_peers\": \"x\"}", "`x` is not SLOT=HOST:PORT"),
            ("slot: 1", "expected value"),
        ] {
            std::fs::write(&file, text).unwrap();
            let args = ServeArgs { config: Some(file.clone()), settings: Settings::default() };
            let error = args.load().unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("settings.json"), "{text}: {error}");
        }
        let missing = ServeArgs { config: Some(folder.path().join("no")), settings: Settings::default() };
        assert!(matches!(missing.load(), Err(ConfigError::Unreadable { .. })));
    }

    /// Changes a valid config and tells what is said about it.
    fn said(change: impl FnOnce(&mut Config)) -> String {
        let mut config = valid();
        change(&mut config);
        config.validate().map_or_else(|error| error.to_string(), |()| "nothing".to_owned())
    }

    #[test]
    fn errors_name_the_setting_its_value_and_what_would_be_right() {
        let any = SocketAddr::from(([0, 0, 0, 0], 3000));
        for (said, starts) in [
            (
                said(|c| c.listen = any),
                "advertise is not set: listen is 0.0.0.0:3000, which nobody can reach; set",
            ),
            (said(|c| c.advertise = Some("h".into())), "advertise is h: it takes HOST:PORT"),
            (said(|c| c.peer_advertise = Some("h:0".into())), "peer_advertise is h:0: it takes HOST:PORT"),
            (said(|c| c.peer_listen = c.listen), "peer_listen is 127.0.0.1:3000: clients are there"),
            (
                said(|c| c.join = Some("http://h:3000".into())),
                "join is http://h:3000: initial_peers is set too",
            ),
            (said(|c| c.data = PathBuf::new()), "data is empty: name a folder"),
            (said(|c| c.tick_ms = 0), "tick_ms is 0: it takes 1 to 1000"),
            (said(|c| c.heartbeat_ms = 15), "heartbeat_ms is 15: it must be a multiple of tick_ms (10)"),
            (
                said(|c| c.election_timeout_ms = 240),
                "election_timeout_ms is 240: it must be at least five times",
            ),
            (
                said(|c| c.request_timeout_ms = 999),
                "request_timeout_ms is 999: it must be at least twice election",
            ),
            (said(|c| c.key_bytes_max = 0), "key_bytes_max is 0: it takes 1 to 16384"),
            (said(|c| c.value_bytes_max = 64 << 20), "value_bytes_max is 67108864: it takes 1 to 16777216"),
            (
                said(|c| c.write_bytes_in_flight_max = 1),
                "write_bytes_in_flight_max is 1: it must be at least twice",
            ),
            (
                said(|c| c.overlay_bytes = 1),
                "overlay_bytes is 1: it must be at least four times value_bytes_max",
            ),
            (
                said(|c| c.log_segment_bytes = 1),
                "log_segment_bytes is 1: it must be at least twice value_bytes_max",
            ),
            (
                said(|c| c.log_margin_bytes = 1),
                "log_margin_bytes is 1: it must be at least log_segment_bytes",
            ),
            (said(|c| c.log_filter = "a=b=c".into()), "log_filter is a=b=c: it takes LEVEL or MODULE=LEVEL"),
            (said(|c| c.connections_max = 0), "connections_max is 0: it takes 1 to 1000000"),
            (said(|c| c.listen = any).replace("advertise", "x"), "x is not set"),
        ] {
            assert!(said.starts_with(starts), "{said}\n{starts}");
        }
        let joins = |url: &str| {
            said(|c| {
                c.initial_peers = None;
                c.join = Some(url.to_owned());
            })
        };
        for url in ["http://h:3000", "http://h", "http://h:3000/", "http://[::1]:3000"] {
            assert_eq!(joins(url), "nothing");
        }
        for url in ["", "h:3000", "https://h:3000", "http://", "http://h:3000/v1", "http://h:x"] {
            assert!(
                joins(url).starts_with(&format!("join is {url}: it takes the client URL")),
                "{}",
                joins(url)
            );
        }
    }

    #[test]
    fn founders() {
        let parsed: InitialPeers = "2=c:1, 0=a:1,1=[::1]:1".parse().unwrap();
        assert_eq!(parsed.to_string(), "0=a:1,1=[::1]:1,2=c:1");
        for (text, says) in [
            ("", "`` is not SLOT=HOST:PORT"),
            ("0=a:1,", "`` is not SLOT=HOST:PORT"),
            ("a:1", "`a:1` is not SLOT=HOST:PORT"),
            ("x=a:1", "`x=a:1` is not SLOT=HOST:PORT"),
            ("0=a", "`a` is not HOST:PORT"),
            ("0=a:1,0=b:1", "slot 0 is given twice"),
            ("0=a:1,1=a:1", "`a:1` is given twice"),
        ] {
            let error = text.parse::<InitialPeers>().unwrap_err();
            assert!(error.starts_with(says), "{text}: {error}");
        }
    }

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:3300", "balsa-0.balsa:3300", "[::1]:3300", "h:1", "h:65535"] {
            assert!(is_address(text), "{text}");
        }
        for text in ["", "h", "h:", ":1", "h:0", "h:65536", "h:+1", "http://h:1", "h h:1", "[]:1", "::1:1"] {
            assert!(!is_address(text), "{text}");
        }
    }
}
