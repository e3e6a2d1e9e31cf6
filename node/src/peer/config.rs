//! The bounds and timings of the peer transport, and the relations between them.

use super::frame::HEADER_BYTES;

/// Settings of the peer transport. [`PeerConfig::default`] suits a cluster in one region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerConfig {
    /// How long one address may take to connect, and then to accept the stream, in milliseconds. Also the limit
    /// of a name lookup.
    pub connect_timeout_ms: u64,
    /// The shortest wait before a peer is dialled again, in milliseconds; doubled at each failure, jittered.
    pub backoff_min_ms: u64,
    /// The longest wait before a peer is dialled again, in milliseconds.
    pub backoff_max_ms: u64,
    /// The wait after a peer refused us (another cluster, another node, another protocol), in milliseconds, jittered.
    pub refused_backoff_ms: u64,
    /// What may wait in memory for one peer on the message lane, in bytes; beyond it messages are dropped.
    pub message_queue_bytes_max: usize,
    /// What may wait in memory for one peer on the bulk lane, in bytes; beyond it the sender waits.
    pub bulk_queue_bytes_max: usize,
    /// The largest payload of a frame, and of a control call, in bytes; checked before memory is taken for it.
    pub frame_bytes_max: usize,
    /// How many inbound connections may be open at once; one more is closed on arrival.
    pub inbound_connections_max: usize,
    /// How often an idle stream says that it lives, in milliseconds, each way.
    pub keepalive_interval_ms: u64,
    /// After how much silence a stream is closed, in milliseconds. At least three keepalive intervals: a healthy
    /// stream may be silent for nearly two.
    pub dead_peer_timeout_ms: u64,
    /// How long an inbound connection may take to state its request (headers; the whole body of a control call), in
    /// milliseconds.
    pub request_timeout_ms: u64,
}

impl Default for PeerConfig {
    fn default() -> PeerConfig {
        PeerConfig {
            connect_timeout_ms: 1_000,
            backoff_min_ms: 20,
            backoff_max_ms: 1_000,
            refused_backoff_ms: 3_000,
            message_queue_bytes_max: 32 << 20,
            bulk_queue_bytes_max: 8 << 20,
            frame_bytes_max: 8 << 20,
            inbound_connections_max: 256,
            keepalive_interval_ms: 500,
            dead_peer_timeout_ms: 3_000,
            request_timeout_ms: 5_000,
        }
    }
}

/// A frame and its header fit into what a length can say.
const FRAME_BYTES_LIMIT: u64 = u32::MAX as u64 - HEADER_BYTES as u64;
/// More descriptors than any process here has.
const INBOUND_LIMIT: u64 = 1 << 20;
/// No wait of this transport makes sense beyond a day, in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// A setting that cannot work: one sentence with its name, its value and what would be right.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{setting} is {value}, but must be {must}")]
pub struct ConfigError {
    /// The field's name.
    pub setting: &'static str,
    /// What it was set to.
    pub value: u64,
    /// What would be right.
    pub must: String,
}

impl PeerConfig {
    /// Checks each setting and the relations between them; changes nothing.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let at_most = |setting, value: u64, max: u64| {
            if value <= max {
                return Ok(());
            }
            Err(ConfigError { setting, value, must: format!("at most {max}") })
        };
        let at_least = |setting, value: u64, min: u64, why: &str| {
            if value >= min {
                return Ok(());
            }
            Err(ConfigError { setting, value, must: format!("at least {min} ({why})") })
        };
        at_least("connect_timeout_ms", self.connect_timeout_ms, 1, "zero never connects")?;
        at_least("backoff_min_ms", self.backoff_min_ms, 1, "zero would dial in a loop")?;
        at_least("backoff_max_ms", self.backoff_max_ms, self.backoff_min_ms, "backoff_min_ms")?;
        at_least("refused_backoff_ms", self.refused_backoff_ms, self.backoff_min_ms, "backoff_min_ms")?;
        at_least("frame_bytes_max", self.frame_bytes_max as u64, 1_024, "a message needs room")?;
        at_most("frame_bytes_max", self.frame_bytes_max as u64, FRAME_BYTES_LIMIT)?;
        let frame = self.frame_bytes_max as u64;
        at_least("message_queue_bytes_max", self.message_queue_bytes_max as u64, frame, "frame_bytes_max")?;
        at_least("bulk_queue_bytes_max", self.bulk_queue_bytes_max as u64, frame, "frame_bytes_max")?;
        let inbound = self.inbound_connections_max as u64;
        at_least("inbound_connections_max", inbound, 2, "a peer needs two")?;
        at_most("inbound_connections_max", inbound, INBOUND_LIMIT)?;
        at_least("keepalive_interval_ms", self.keepalive_interval_ms, 1, "zero would never rest")?;
        let three = self.keepalive_interval_ms.saturating_mul(3);
        at_least(
            "dead_peer_timeout_ms",
            self.dead_peer_timeout_ms,
            three,
            "three times keepalive_interval_ms",
        )?;
        at_least("request_timeout_ms", self.request_timeout_ms, 1, "zero refuses everyone")?;
        let times = [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("backoff_max_ms", self.backoff_max_ms),
            ("refused_backoff_ms", self.refused_backoff_ms),
            ("dead_peer_timeout_ms", self.dead_peer_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
        ];
        for (setting, value) in times {
            at_most(setting, value, DAY_MS)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(PeerConfig::default().validate(), Ok(()));
    }

    #[test]
    fn an_error_names_the_setting_its_value_and_what_would_be_right() {
        let config = PeerConfig { dead_peer_timeout_ms: 700, ..PeerConfig::default() };
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(
            error,
            "dead_peer_timeout_ms is 700, but must be at least 1500 (three times keepalive_interval_ms)"
        );
    }

    #[test]
    fn each_bound_is_checked() {
        type Break = fn(&mut PeerConfig);
        let cases: [(&str, Break); 14] = [
            ("connect_timeout_ms", |c| c.connect_timeout_ms = 0),
            ("backoff_min_ms", |c| c.backoff_min_ms = 0),
            ("backoff_max_ms", |c| c.backoff_max_ms = 1),
            ("refused_backoff_ms", |c| c.refused_backoff_ms = 1),
            ("frame_bytes_max", |c| c.frame_bytes_max = 10),
            ("frame_bytes_max", |c| c.frame_bytes_max = usize::MAX),
            ("message_queue_bytes_max", |c| c.message_queue_bytes_max = 2_048),
            ("bulk_queue_bytes_max", |c| c.bulk_queue_bytes_max = 2_048),
            ("inbound_connections_max", |c| c.inbound_connections_max = 1),
            ("inbound_connections_max", |c| c.inbound_connections_max = usize::MAX),
            ("backoff_max_ms", |c| c.backoff_max_ms = u64::MAX),
            ("dead_peer_timeout_ms", |c| c.keepalive_interval_ms = u64::MAX),
            ("keepalive_interval_ms", |c| c.keepalive_interval_ms = 0),
            ("request_timeout_ms", |c| c.request_timeout_ms = 0),
        ];
        for (setting, spoil) in cases {
            let mut config = PeerConfig::default();
            spoil(&mut config);
            assert_eq!(config.validate().unwrap_err().setting, setting);
        }
    }
}
