//! What a seed draws before anything happens: the cluster, its settings, its clients.

use super::*;

impl World {
    /// The world of a seed.
    pub(super) fn new(seed: u64, options: &Options) -> World {
        let mut random = Random::new(seed);
        let count = options.nodes.unwrap_or_else(|| *random.pick(&[3, 3, 3, 3, 5, 5, 1]));
        let settings = draw_settings(&mut random);
        let ids: Vec<NodeId> = (0..count).map(|_| NodeId(random.draw() | 1)).collect();
        let mut nodes: Vec<SimNode> = (0..PLACES.max(count)).map(|_| SimNode::blank()).collect();
        for (node, id) in nodes.iter_mut().zip(&ids) {
            node.put_disk(*id, Some(&ids), &settings);
            node.feature_level = *random.pick(&[FIRST_LEVEL, FEATURE_LEVEL]);
        }
        nodes.iter_mut().for_each(|node| node.disk_delay = settings.disk_delay);
        let keys = *random.pick(&[2, 4, 12]);
        let think = random.between(2_000, 8_000) * MILLI;
        let client = |nth| Client::new(nth, keys, think, nodes.len(), random.fork());
        let clients = (0..CLIENTS).map(client).collect();
        let mut oracle = Oracle::new(settings.store.clone(), random.fork());
        oracle.founded(ids[0], node::first_membership(&ids));
        World {
            now: 0,
            planned: BinaryHeap::new(),
            order: 0,
            settings,
            nodes,
            network: Network::new(random.fork()),
            uneasy: true,
            clients,
            sessions: vec![None; CLIENTS / 4 + 1],
            epoch: Instant::now(),
            rush_until: 0,
            patience: random.between(500, 8_000) * MILLI,
            quiet: false,
            tickets: BTreeMap::new(),
            watchers: (0..WATCHERS).map(|_| Watcher::new(random.fork())).collect(),
            proofs: BTreeMap::new(),
            next_operation: 1,
            next_ticket: 1,
            climate: Climate::new(random.fork()),
            operator: Operator::default(),
            failing: BTreeMap::new(),
            rotten: BTreeSet::new(),
            cuts: 0,
            all_doomed: None,
            joint_doomed: None,
            level: FIRST_LEVEL,
            absent: BTreeSet::new(),
            calm: false,
            oracle,
            trace: Trace::new(options.keep_lines),
            report: Report { seed, nodes: count, ..Report::default() },
            random,
        }
    }
}

/// Small logs, overlays and margins, so that an hour sees what a production cluster sees in months.
fn draw_settings(random: &mut Random) -> Settings {
    Settings {
        log: LogConfig {
            segment_bytes: *random.pick(&[64 << 10, 256 << 10]),
            max_record_bytes: 16 << 10,
            recycle_segments: random.below(3) as usize,
            salt: random.draw(),
        },
        store: StoreConfig {
            overlay_bytes: *random.pick(&[8 << 10, 32 << 10, 128 << 10]),
            history_revisions: *random.pick(&[50, 200, 1_000]),
            sweep_rows: 50,
            reply_ttl_ms: *random.pick(&[150_000, 150_000, 600_000]),
            reply_limit: *random.pick(&[400, 100_000, 100_000, 100_000, 100_000, 100_000]),
            session_ttl_ms: *random.pick(&[15_000, 30_000, 600_000]),
            session_reply_limit: *random.pick(&[6, 100_000, 100_000, 100_000, 100_000]),
            ..StoreConfig::default()
        },
        disk_headroom_bytes: *random.pick(&[0, 0, 32 << 10]),
        log_margin_bytes: *random.pick(&[0, 4 << 10, 16 << 10, 256 << 10]),
        log_hold_bytes: *random.pick(&[0, 64 << 10, 1 << 20]),
        max_inflight_appends: *random.pick(&[1, 4, 64]),
        gather_appends: *random.pick(&[true, true, false]),
        max_append_bytes: *random.pick(&[1 << 10, 64 << 10]),
        chunk_bytes: *random.pick(&[512, 2 << 10, 8 << 10]),
        chunk_interval: *random.pick(&[4, 20, 100]) * MILLI,
        disk_delay: *random.pick(&[(100, 1_500), (100, 1_500), (MILLI, 10 * MILLI), (5 * MILLI, 30 * MILLI)]),
    }
}
