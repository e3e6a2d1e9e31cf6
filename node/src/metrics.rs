//! What is measured: every metric of the node, registered once, with its meaning and unit.
//!
//! This module knows no owner of a number: doors and engine hold the fields and feed them. Labels come from closed
//! sets, so the number of series is fixed when the process starts; the series of hot paths are looked up here once,
//! never at a request. Names have the prefix `balsa_`, base units, and `_total` on counters.

use crate::http::Route;
use crate::peer::Refusal;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};
use std::time::Duration;

mod labels;

pub use labels::{Method, Rejected, RoleLabel, SnapshotEvent};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Bounds of latency histograms, in seconds: from a page-cache hit to the default request timeout.
const LATENCY_SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// How many slots have series of their own; members in higher slots share the label `other`.
pub const SLOTS_MAX: u32 = 16;

/// The series of one route and method.
#[derive(Debug)]
struct HttpSeries {
    /// By hundreds of the status: 2xx to 5xx.
    requests: [IntCounter; 4],
    seconds: Histogram,
}

/// Every metric of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Of the methods that each route takes, and one for all others.
    http: Vec<HttpSeries>,
    /// By [`Route`], then by [`Method`]: where in `http`.
    http_at: Vec<usize>,
    /// By [`Rejected`].
    rejected: Vec<IntCounter>,
    /// By [`RoleLabel`]: 1 for the present role, 0 for the others.
    role: Vec<IntGauge>,
    /// By [`Refusal`].
    peer_refused: Vec<IntCounter>,
    /// By slot, the last one for all slots from [`SLOTS_MAX`].
    peer_lag: Vec<IntGauge>,
    /// By slot, as `peer_lag`.
    member_level: Vec<IntGauge>,
    /// By [`SnapshotEvent`].
    snapshots: Vec<IntCounter>,

    /// Client connections that are open.
    pub connections: IntGauge,
    /// Writes that are in flight: taken, not yet answered.
    pub writes_in_flight: IntGauge,
    /// Bytes that the bodies of writes in flight may take.
    pub write_bytes_in_flight: IntGauge,

    /// Seconds of each fdatasync of the log.
    pub fsync_seconds: Histogram,
    /// Seconds from propose to commit of own proposals.
    pub commit_seconds: Histogram,
    /// Seconds to apply a batch of committed entries.
    pub apply_seconds: Histogram,
    /// Entries in a synced batch of the log.
    pub append_batch_entries: Histogram,

    /// The current term.
    pub term: IntGauge,
    /// 1: a leader is known.
    pub has_leader: IntGauge,
    /// Leader changes seen since start.
    pub leader_changes: IntCounter,
    /// The cluster's feature level.
    pub feature_level: IntGauge,
    /// The oldest entry in the log.
    pub first_index: IntGauge,
    /// The newest entry in the log.
    pub last_index: IntGauge,
    /// Committed up to here.
    pub commit_index: IntGauge,
    /// Applied up to here.
    pub applied_index: IntGauge,
    /// Members that vote.
    pub voters: IntGauge,
    /// Members that do not.
    pub learners: IntGauge,
    /// On the leader: voters that answer it, itself included. 0 where this node does not lead.
    pub voters_answering: IntGauge,
    /// On the leader: members that do not answer it. 0 where this node does not lead.
    pub members_silent: IntGauge,
    /// Where in the log `digest` was taken: a multiple of [`crate::engine::apply_stage::DIGEST_INTERVAL`]; 0: not yet since start.
    pub digest_index: IntGauge,
    /// What of the state's digest fits into a sample: equal on all nodes at equal `digest_index`.
    pub digest: IntGauge,

    /// Bytes that the data folder's disk has left.
    pub disk_available_bytes: IntGauge,
    /// Bytes below which writes are refused.
    pub disk_headroom_bytes: IntGauge,
    /// 1: writes that need room are refused.
    pub storage_full: IntGauge,
    /// 1: the store waits for room on the disk.
    pub flush_waits: IntGauge,

    /// The store's revision.
    pub revision: IntGauge,
    /// Bytes of the log on disk.
    pub log_bytes: IntGauge,
    /// Bytes of the store on disk.
    pub store_bytes: IntGauge,
    /// Bytes of the store's overlay in memory.
    pub overlay_bytes: IntGauge,
    /// Recorded replies under idempotency keys.
    pub reply_table_entries: IntGauge,
    /// Open sessions.
    pub sessions: IntGauge,
    /// Leases.
    pub leases: IntGauge,
    /// Keys that end with leases.
    pub leased_keys: IntGauge,
    /// Places in the queues of locks: held, and waited for.
    pub lock_places: IntGauge,
    /// The oldest revision that can be read.
    pub compacted_revision: IntGauge,

    /// Watches that are open.
    pub watchers: IntGauge,
    /// Events sent to watchers.
    pub watch_events: IntCounter,

    /// Backups on their way to clients.
    pub backups_in_progress: IntGauge,
    /// Backups that were sent whole.
    pub backups_sent: IntCounter,
    /// Backups that were cut off.
    pub backups_failed: IntCounter,
    /// Bytes of backups.
    pub backup_sent_bytes: IntCounter,

    /// Snapshots on their way to peers.
    pub snapshots_out: IntGauge,
    /// Snapshots that are being received.
    pub snapshots_in: IntGauge,
    /// Bytes of snapshots sent, those sent again included.
    pub snapshot_sent_bytes: IntCounter,
    /// Bytes of snapshots received and taken.
    pub snapshot_received_bytes: IntCounter,

    /// Bytes sent to peers.
    pub peer_sent_bytes: IntCounter,
    /// Bytes received from peers.
    pub peer_received_bytes: IntCounter,
    /// Messages to peers that were dropped because a queue was full.
    pub peer_dropped: IntCounter,
    /// Dials of peers that failed.
    pub peer_dial_failures: IntCounter,
}

/// Raises a counter to what another one, which is kept elsewhere, has come to.
pub(crate) fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

/// Registers collectors; a name given twice is a bug that the first test finds.
struct Register {
    registry: Registry,
}

impl Register {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> prometheus::Result<C> {
        let collector = made?;
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::new(name, help))
    }

    fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> prometheus::Result<Histogram> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec())))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }
}

impl Metrics {
    /// Registers everything. Fails only where a name is not valid or given twice.
    pub fn new() -> prometheus::Result<Metrics> {
        let r = Register { registry: Registry::new() };
        let requests = r.counters(
            "balsa_http_requests_total",
            "HTTP requests answered, by route, method and class of the status.",
            &["route", "method", "status"],
        )?;
        let seconds = r.add(HistogramVec::new(
            HistogramOpts::new(
                "balsa_http_request_duration_seconds",
                "From the end of a request's head to its answer being handed to the connection, in seconds.",
            )
            .buckets(LATENCY_SECONDS.to_vec()),
            &["route", "method"],
        ))?;
        let (mut http, mut http_at) = (Vec::new(), Vec::new());
        for route in Route::ALL {
            let add = |http: &mut Vec<HttpSeries>, method: Method| {
                let class = |class| requests.with_label_values(&[route.label(), method.label(), class]);
                http.push(HttpSeries {
                    requests: ["2xx", "3xx", "4xx", "5xx"].map(class),
                    seconds: seconds.with_label_values(&[route.label(), method.label()]),
                });
            };
            let other = http.len();
            add(&mut http, Method::Other);
            for method in Method::ALL {
                let taken = route.allow().split(", ").any(|allowed| allowed == method.label());
                http_at.push(if taken { http.len() } else { other });
                if taken {
                    add(&mut http, method);
                }
            }
        }
        let rejected = r.counters(
            "balsa_rejected_total",
            "Requests and connections turned away without being tried, by reason.",
            &["reason"],
        )?;
        let role = r.gauges("balsa_role", "1 for the role that the node has now.", &["role"])?;
        let peer_refused = r.counters(
            "balsa_peer_refused_total",
            "Streams of peers that were refused, by what did not match.",
            &["reason"],
        )?;
        let peer_lag = r.gauges(
            "balsa_peer_lag_entries",
            "On the leader: entries that the member in a slot does not yet hold durably.",
            &["slot"],
        )?;
        let member_level = r.gauges(
            "balsa_member_feature_level",
            "The feature level to which the member in a slot goes, as it told; 0: there is none, or it did not.",
            &["slot"],
        )?;
        let snapshots = r.counters(
            "balsa_snapshots_total",
            "Snapshots: sent whole, received and installed, resumed after a break, failed.",
            &["event"],
        )?;
        let in_progress = r.gauges(
            "balsa_snapshots_in_progress",
            "Snapshots on their way now, by direction.",
            &["direction"],
        )?;
        let snapshot_bytes = r.counters(
            "balsa_snapshot_bytes_total",
            "Bytes of snapshots: sent, with what was sent again; received and taken.",
            &["direction"],
        )?;
        let backups = r.counters(
            "balsa_backups_total",
            "Backups that were begun: sent whole, or cut off.",
            &["event"],
        )?;
        let build = r.gauges("balsa_build_info", "1; the version is in the label.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let start: Gauge = r.add(Gauge::new(
            "balsa_start_time_seconds",
            "When the process started, in seconds since 1970.",
        ))?;
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        start.set(since_1970.map_or(0.0, |since| since.as_secs_f64()));

        Ok(Metrics {
            http,
            http_at,
            rejected: Rejected::ALL.map(|reason| rejected.with_label_values(&[reason.label()])).into(),
            role: RoleLabel::ALL.map(|(_, label)| role.with_label_values(&[label])).into(),
            peer_refused: Refusal::ALL
                .map(|refusal| peer_refused.with_label_values(&[refusal.name()]))
                .into(),
            peer_lag: by_slot(&peer_lag),
            member_level: by_slot(&member_level),
            snapshots: SnapshotEvent::ALL.map(|(_, label)| snapshots.with_label_values(&[label])).into(),
            snapshots_out: in_progress.with_label_values(&["out"]),
            snapshots_in: in_progress.with_label_values(&["in"]),
            snapshot_sent_bytes: snapshot_bytes.with_label_values(&["out"]),
            snapshot_received_bytes: snapshot_bytes.with_label_values(&["in"]),
            backups_in_progress: r.gauge("balsa_backups_in_progress", "Backups on their way now.")?,
            backups_sent: backups.with_label_values(&["sent"]),
            backups_failed: backups.with_label_values(&["failed"]),
            backup_sent_bytes: r.counter("balsa_backup_sent_bytes_total", "Bytes of backups sent.")?,
            connections: r.gauge("balsa_http_connections", "Client connections that are open.")?,
            writes_in_flight: r.gauge("balsa_writes_in_flight", "Writes taken and not yet answered.")?,
            write_bytes_in_flight: r.gauge(
                "balsa_write_bytes_in_flight",
                "Bytes that the bodies of the writes in flight may take.",
            )?,
            fsync_seconds: r.histogram(
                "balsa_log_fsync_duration_seconds",
                "Seconds of each fdatasync of the log.",
                LATENCY_SECONDS,
            )?,
            commit_seconds: r.histogram(
                "balsa_commit_duration_seconds",
                "Seconds from propose to commit of this node's own proposals.",
                LATENCY_SECONDS,
            )?,
            apply_seconds: r.histogram(
                "balsa_apply_duration_seconds",
                "Seconds to apply a batch of committed entries.",
                LATENCY_SECONDS,
            )?,
            append_batch_entries: r.histogram(
                "balsa_log_batch_entries",
                "Entries in a batch of the log that was synced at once.",
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0],
            )?,
            term: r.gauge("balsa_term", "The current term.")?,
            has_leader: r.gauge("balsa_has_leader", "1: a leader is known.")?,
            leader_changes: r.counter("balsa_leader_changes_total", "Leader changes seen since start.")?,
            feature_level: r.gauge("balsa_feature_level", "The cluster's feature level.")?,
            first_index: r.gauge("balsa_log_first_index", "The oldest entry in the log.")?,
            last_index: r.gauge("balsa_log_last_index", "The newest entry in the log.")?,
            commit_index: r.gauge("balsa_commit_index", "Committed up to this index.")?,
            applied_index: r.gauge("balsa_applied_index", "Applied up to this index.")?,
            voters: r.gauge("balsa_voters", "Members that vote.")?,
            learners: r.gauge("balsa_learners", "Members that do not vote.")?,
            voters_answering: r.gauge(
                "balsa_voters_answering",
                "On the leader: voters that answer it, itself included; 0 on others.",
            )?,
            members_silent: r.gauge(
                "balsa_members_silent",
                "On the leader: members that do not answer it; 0 on others.",
            )?,
            digest_index: r.gauge(
                "balsa_digest_index",
                "The index that balsa_digest belongs to; 0: none since start.",
            )?,
            digest: r.gauge(
                "balsa_digest",
                "52 bits of the state's digest at balsa_digest_index: equal on all nodes.",
            )?,
            disk_available_bytes: r
                .gauge("balsa_disk_available_bytes", "Bytes that the disk of the data folder has left.")?,
            storage_full: r.gauge(
                "balsa_storage_full",
                "1: a leader with what this node knows refuses writes that need room; 0: it takes them.",
            )?,
            disk_headroom_bytes: r.gauge(
                "balsa_disk_headroom_bytes",
                "Below this many bytes left on the disk, writes are refused.",
            )?,
            flush_waits: r.gauge(
                "balsa_flush_waits",
                "1: the disk has no room for what the store holds in memory, and no write is taken.",
            )?,
            revision: r.gauge("balsa_revision", "The store's revision.")?,
            log_bytes: r.gauge("balsa_log_size_bytes", "Bytes of the log on disk.")?,
            store_bytes: r.gauge("balsa_store_size_bytes", "Bytes of the store on disk.")?,
            overlay_bytes: r.gauge("balsa_overlay_size_bytes", "Bytes of the store's overlay in memory.")?,
            reply_table_entries: r
                .gauge("balsa_reply_table_entries", "Recorded replies under idempotency keys.")?,
            sessions: r.gauge("balsa_sessions", "Open sessions.")?,
            leases: r.gauge("balsa_leases", "Leases.")?,
            leased_keys: r.gauge("balsa_leased_keys", "Keys that end with leases.")?,
            lock_places: r
                .gauge("balsa_lock_places", "Places in the queues of locks: held, and waited for.")?,
            compacted_revision: r
                .gauge("balsa_compacted_revision", "The oldest revision that can be read; 0: all can.")?,
            watchers: r.gauge("balsa_watchers", "Watches that are open.")?,
            watch_events: r.counter("balsa_watch_events_total", "Events sent to watchers.")?,
            peer_sent_bytes: r.counter("balsa_peer_sent_bytes_total", "Bytes sent to peers.")?,
            peer_received_bytes: r
                .counter("balsa_peer_received_bytes_total", "Bytes received from peers.")?,
            peer_dropped: r.counter(
                "balsa_peer_dropped_total",
                "Messages to peers that were dropped because a queue was full.",
            )?,
            peer_dial_failures: r.counter("balsa_peer_dial_failures_total", "Dials of peers that failed.")?,
            registry: r.registry,
        })
    }

    /// Counts an answered request.
    pub fn observe_http(&self, route: Route, method: Method, status: u16, took: Duration) {
        let series = &self.http[self.http_at[route as usize * Method::ALL.len() + method as usize]];
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        series.requests[class].inc();
        series.seconds.observe(took.as_secs_f64());
    }

    /// Counts what was turned away.
    pub fn reject(&self, reason: Rejected) {
        self.rejected[reason as usize].inc();
    }

    /// Streams of peers that were refused for this reason since start.
    pub fn set_peer_refused(&self, reason: Refusal, times: u64) {
        raise(&self.peer_refused[reason as usize], times);
    }

    /// Counts what happened to a snapshot.
    pub fn snapshot(&self, event: SnapshotEvent) {
        self.snapshots[event as usize].inc();
    }

    /// Sets the present role.
    pub fn set_role(&self, role: RoleLabel) {
        for (gauge, (label, _)) in self.role.iter().zip(RoleLabel::ALL) {
            gauge.set(i64::from(label == role));
        }
    }

    /// Sets how many entries the members in these slots are behind, and that no other is; empty where this node does not
    /// lead. Of those that share a series, the one that is furthest behind counts.
    pub fn set_peer_lags(&self, lags: impl Iterator<Item = (u32, u64)>) {
        let mut by_series = [0; SLOTS_MAX as usize + 1];
        for (slot, entries) in lags {
            let lag = &mut by_series[slot.min(SLOTS_MAX) as usize];
            *lag = i64::try_from(entries).unwrap_or(i64::MAX).max(*lag);
        }
        for (gauge, lag) in self.peer_lag.iter().zip(by_series) {
            gauge.set(lag);
        }
    }

    /// Sets to which feature level the members in these slots go. Of those that share a series, the lowest counts.
    pub fn set_member_levels(&self, levels: impl Iterator<Item = (u32, u32)>) {
        let mut by_series: [Option<u32>; SLOTS_MAX as usize + 1] = Default::default();
        for (slot, level) in levels {
            let lowest = &mut by_series[slot.min(SLOTS_MAX) as usize];
            *lowest = Some(lowest.map_or(level, |other| other.min(level)));
        }
        for (gauge, level) in self.member_level.iter().zip(by_series) {
            gauge.set(level.unwrap_or_default().into());
        }
    }

    /// All of it as text, in Prometheus's exposition format.
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(64 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// A series for each slot, and one for all from [`SLOTS_MAX`].
fn by_slot(gauges: &IntGaugeVec) -> Vec<IntGauge> {
    let slots = (0..SLOTS_MAX).map(|slot| slot.to_string()).chain(["other".to_string()]);
    slots.map(|slot| gauges.with_label_values(&[&slot])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render().unwrap()).unwrap()
    }

    #[test]
    fn labels_are_where_their_enums_say() {
        let metrics = Metrics::new().unwrap();
        metrics.observe_http(Route::KvKey, Method::Put, 412, Duration::from_millis(3));
        metrics.observe_http(Route::KvKey, Method::Post, 405, Duration::ZERO);
        metrics.observe_http(Route::Nothing, Method::Get, 404, Duration::ZERO);
        metrics.reject(Rejected::CrossOrigin);
        metrics.set_peer_refused(Refusal::Malformed, 1);
        metrics.set_role(RoleLabel::Candidate);
        metrics.set_role(RoleLabel::Leader);
        metrics.set_peer_lags([(1, 3)].into_iter());
        metrics.set_peer_lags([(2, 7), (99, 8), (98, 5)].into_iter());
        metrics.set_member_levels([(0, 1), (3, 1)].into_iter());
        metrics.set_member_levels([(0, 2), (99, 2), (98, 1)].into_iter());
        let text = text(&metrics);
        for line in [
            r#"balsa_http_requests_total{method="PUT",route="/v1/kv/{key}",status="4xx"} 1"#,
            r#"balsa_http_request_duration_seconds_count{method="PUT",route="/v1/kv/{key}"} 1"#,
            r#"balsa_http_requests_total{method="other",route="/v1/kv/{key}",status="4xx"} 1"#,
            r#"balsa_http_requests_total{method="other",route="none",status="4xx"} 1"#,
            r#"balsa_rejected_total{reason="cross_origin"} 1"#,
            r#"balsa_peer_refused_total{reason="malformed"} 1"#,
            r#"balsa_role{role="leader"} 1"#,
            r#"balsa_role{role="candidate"} 0"#,
            r#"balsa_peer_lag_entries{slot="1"} 0"#,
            r#"balsa_peer_lag_entries{slot="2"} 7"#,
            r#"balsa_peer_lag_entries{slot="other"} 8"#,
            r#"balsa_member_feature_level{slot="0"} 2"#,
            r#"balsa_member_feature_level{slot="3"} 0"#,
            r#"balsa_member_feature_level{slot="other"} 1"#,
            concat!(r#"balsa_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn names_follow_the_rules() {
        let metrics = Metrics::new().unwrap();
        for family in metrics.registry.gather() {
            assert!(family.name().starts_with("balsa_"), "{}", family.name());
            assert!(!family.help().is_empty());
            let counter = family.get_field_type() == prometheus::proto::MetricType::COUNTER;
            assert_eq!(counter, family.name().ends_with("_total"), "{}", family.name());
        }
    }

    #[test]
    fn enums_and_tables_have_the_same_order() {
        for (at, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, at);
        }
        for (at, reason) in Rejected::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        for (at, (role, _)) in RoleLabel::ALL.into_iter().enumerate() {
            assert_eq!(role as usize, at);
        }
        for (at, (event, _)) in SnapshotEvent::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, at);
        }
        for (at, reason) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        for (at, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, at);
        }
    }
}
