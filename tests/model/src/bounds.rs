//! The bounds that are searched: what is small enough to be seen whole, and what is not.

use crate::world::Bounds;
use balsa_raft::{Change, NodeId};

fn nothing() -> Bounds {
    Bounds {
        name: "",
        about: "",
        voters: 3,
        blank: 0,
        max_term: 3,
        timeouts: 1,
        heartbeats: 1,
        proposals: 0,
        crashes: 0,
        changes: 0,
        transfers: 0,
        patience: 0,
        change: Vec::new(),
        fast_disks: false,
    }
}

/// Those that can be searched to the end.
pub fn small() -> Vec<Bounds> {
    vec![
        Bounds {
            name: "one-election",
            about: "3 nodes, 1 timer that runs out, 1 entry",
            proposals: 1,
            heartbeats: 0,
            ..nothing()
        },
        Bounds {
            name: "one-crash",
            about: "3 nodes, 1 timer that runs out, 1 entry, 1 crash",
            proposals: 1,
            heartbeats: 0,
            crashes: 1,
            ..nothing()
        },
        // The outgoing voter leads, and its own disk is the one that has not got the change yet.
        Bounds {
            name: "joint-alone",
            about: "a node and a blank one that takes its place in a joint change, 2 timers, 1 crash",
            voters: 1,
            blank: 1,
            timeouts: 2,
            heartbeats: 0,
            changes: 1,
            crashes: 1,
            change: vec![Change::AddVoter(NodeId(2)), Change::Remove(NodeId(1))],
            ..nothing()
        },
        Bounds {
            name: "two-terms",
            about: "3 nodes on fast disks, 2 timers that run out, 2 terms, 1 entry, 1 crash",
            timeouts: 2,
            proposals: 1,
            heartbeats: 0,
            crashes: 1,
            fast_disks: true,
            ..nothing()
        },
    ]
}

/// Those that are searched for as long as there is time.
pub fn large() -> Vec<Bounds> {
    // The incoming majority, nodes 1 and 4, is none of the outgoing voters'.
    let joint = vec![Change::Remove(NodeId(2)), Change::Remove(NodeId(3)), Change::AddVoter(NodeId(4))];
    vec![
        Bounds {
            name: "slow-disks",
            about: "3 nodes, 3 timers, 3 terms, 2 entries, 2 crashes, heartbeats, transfers, lost patience",
            max_term: 4,
            timeouts: 3,
            heartbeats: 2,
            proposals: 2,
            crashes: 2,
            transfers: 1,
            patience: 2,
            ..nothing()
        },
        Bounds {
            name: "rivals",
            about: "3 nodes on fast disks, 4 timers, 4 terms, 1 entry, 1 crash",
            max_term: 5,
            timeouts: 4,
            heartbeats: 0,
            proposals: 1,
            crashes: 1,
            fast_disks: true,
            ..nothing()
        },
        Bounds {
            name: "joint",
            about: "3 nodes and a blank one on fast disks, two of three replaced by it in a joint change, 2 timers, 1 crash",
            blank: 1,
            timeouts: 2,
            heartbeats: 0,
            changes: 1,
            crashes: 1,
            change: joint,
            fast_disks: true,
            ..nothing()
        },
    ]
}
