//! What is done to a cluster: kinds of faults, and a schedule of them that follows from a seed alone.
//!
//! A run is a row of eras, each with a cluster of its own, of three and of five nodes in turn. All kinds come once, in an
//! order that is drawn, before any comes again. Whom a fault strikes is drawn, too, where it is not the leader: that is
//! known only when it happens.

use crate::random::Random;
use std::time::Duration;

/// Rounds of an era.
pub const ROUNDS: usize = 13;
/// The sizes that eras' clusters have in turn.
const SIZES: [usize; 2] = [3, 5];

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What can be done to a cluster.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// For people, and for the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Kind::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// One node is killed (-9).
    KillOne = "kill-one";
    /// The leader is killed.
    KillLeader = "kill-leader";
    /// All are killed at once.
    KillAll = "kill-all";
    /// One node is stopped (SIGSTOP), and goes on as if no time had passed.
    PauseOne = "pause-one";
    /// The leader is.
    PauseLeader = "pause-leader";
    /// What one node sends to another does not arrive.
    CutOneWay = "cut-one-way";
    /// Two nodes do not hear one another; the others hear both.
    CutBothWays = "cut-both-ways";
    /// One node hears nobody and is not heard; where there are five, two such.
    Partition = "partition";
    /// Every node hears only the next ones around a circle: none hears all.
    PartialPartition = "partial-partition";
    /// Nobody hears the leader, and it hears nobody.
    IsolateLeader = "isolate-leader";
    /// The leader hears nobody; all hear it.
    DeafLeader = "deaf-leader";
    /// Nobody hears the leader; it hears all.
    MuteLeader = "mute-leader";
    /// All connections between nodes break, again and again.
    BreakConnections = "break-connections";
    /// All between nodes arrives late.
    Delays = "delays";
    /// Little gets through between the leader and the others.
    Throttle = "throttle";
    /// One node's disk is full.
    DiskFull = "disk-full";
    /// All nodes' disks are.
    DisksFull = "disks-full";
    /// One node's writes fail.
    WriteErrors = "write-errors";
    /// One node's syncs fail.
    SyncErrors = "sync-errors";
    /// The leader's syncs stall.
    SyncStalls = "sync-stalls";
    /// One node loses power, and with it what its disk had not synced.
    PowerLossOne = "power-loss-one";
    /// All nodes do at once.
    PowerLossAll = "power-loss-all";
    /// All are stopped (SIGTERM) and started again, one after the other.
    RollingRestart = "rolling-restart";
    /// Leadership is handed on, again and again.
    Transfers = "transfers";
    /// One node loses its disk, and comes back with an empty one.
    WipedDisk = "wiped-disk";
    /// The cluster grows from three nodes to five and shrinks again, or the other way around.
    MembershipWalk = "membership-walk";
    /// One node's wall clock goes wrong, and it starts again with it.
    ClockShift = "clock-shift";
}

impl Kind {
    /// The kind of this name.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Whether a majority that hears one another goes on meanwhile, so that writes must.
    pub fn leaves_a_majority(self) -> bool {
        !matches!(self, Kind::KillAll | Kind::PowerLossAll | Kind::DisksFull)
    }
}

/// One fault to come.
#[derive(Clone, PartialEq, Debug)]
pub struct Round {
    /// What is done.
    pub kind: Kind,
    /// For how long.
    pub hold: Duration,
    /// Whom it strikes first, where it is not the leader; the next ones follow in order.
    pub victim: usize,
    /// Further choices.
    pub random: Random,
}

/// A cluster and what is done to it.
#[derive(Clone, PartialEq, Debug)]
pub struct Era {
    /// Nodes at its beginning.
    pub size: usize,
    /// What is done, in this order.
    pub rounds: Vec<Round>,
    /// Seeds the clients.
    pub clients: Random,
}

/// Eras without end, all from one seed.
#[derive(Clone, Debug)]
pub struct Plan {
    random: Random,
    kinds: Vec<Kind>,
    /// Kinds still to come before any comes again.
    deck: Vec<Kind>,
    hold_ms: (u64, u64),
    eras: usize,
}

impl Plan {
    /// A plan with these kinds, each held between so many milliseconds.
    pub fn new(seed: u64, kinds: &[Kind], hold_ms: (u64, u64)) -> Plan {
        assert!(!kinds.is_empty(), "a plan of nothing");
        Plan { random: Random::new(seed), kinds: kinds.to_vec(), deck: Vec::new(), hold_ms, eras: 0 }
    }

    fn next_kind(&mut self) -> Kind {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            for at in (1..self.deck.len()).rev() {
                let other = self.random.below(at as u64 + 1) as usize;
                self.deck.swap(at, other);
            }
        }
        self.deck.pop().unwrap_or(Kind::KillOne)
    }
}

impl Iterator for Plan {
    type Item = Era;

    fn next(&mut self) -> Option<Era> {
        let size = SIZES[self.eras % SIZES.len()];
        self.eras += 1;
        let rounds = (0..ROUNDS)
            .map(|_| Round {
                kind: self.next_kind(),
                hold: Duration::from_millis(self.random.between(self.hold_ms.0, self.hold_ms.1)),
                victim: self.random.below(size as u64) as usize,
                random: self.random.fork(),
            })
            .collect();
        Some(Era { size, rounds, clients: self.random.fork() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_is_a_schedule() {
        let eras = |seed| Plan::new(seed, Kind::ALL, (100, 200)).take(5).collect::<Vec<_>>();
        assert_eq!(eras(7), eras(7));
        assert_ne!(eras(7), eras(8));
        assert_eq!(eras(7).iter().map(|era| era.size).collect::<Vec<_>>(), [3, 5, 3, 5, 3]);
    }

    #[test]
    fn all_kinds_come_before_any_comes_again() {
        let eras = Plan::new(3, Kind::ALL, (100, 200)).take(4);
        let kinds: Vec<Kind> = eras.flat_map(|era| era.rounds).map(|round| round.kind).collect();
        for whole in kinds.chunks_exact(Kind::ALL.len()) {
            let distinct: BTreeSet<Kind> = whole.iter().copied().collect();
            assert_eq!(distinct.len(), Kind::ALL.len());
        }
    }

    #[test]
    fn kinds_are_found_by_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name()), Some(*kind));
        }
        assert_eq!(Kind::named("rain"), None);
    }
}
