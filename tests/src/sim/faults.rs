//! What strikes a cluster, and when: each seed draws its own climate.

use super::network::{Place, Weather};
use super::{MILLI, Micros, SECOND};
use crate::random::Random;

/// A fault; most end by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process is killed, and started again later.
    Kill(Place, Micros),
    /// A node loses power, perhaps in the middle of a write, and comes back later.
    PowerLoss(Place, Micros),
    /// All nodes lose power at once.
    PowerLossOfAll(Micros),
    /// A process is stopped and goes on later.
    Pause(Place, Micros),
    /// The nodes are split in two groups (bit mask of the first), in both directions.
    Split(u64, Micros),
    /// A node hears, but is not heard.
    Mute(Place, Micros),
    /// A node is heard, but does not hear.
    Deaf(Place, Micros),
    /// Random directed links are cut.
    CutLinks(u64, Micros),
    /// Random directed links (bit mask) hold everything back, and let it through later at once.
    ClogLinks(u64, Micros),
    /// Messages are lost, repeated, late.
    Storm(Micros),
    /// A disk is slow.
    SlowDisk(Place, Micros),
    /// A disk takes longer for one write than elections take.
    StalledDisk(Place, Micros),
    /// A disk has room for little more, or for nothing.
    FullDisk(Place, Micros),
    /// One of the next calls to a disk fails: a write, an fsync, a read at the next start.
    FailedCall(Place, Micros),
    /// A node is stopped in an orderly way; a part of its disk rots; it is started again.
    Rot(Place, Micros),
    /// Leadership is handed over.
    Transfer,
    /// A node is stopped in an orderly way, and started again later.
    Restart(Place, Micros),
    /// A clock runs fast or slow from now on (in thousandths).
    ClockRate(Place, u64),
    /// A process's clock jumps ahead.
    ClockJump(Place, Micros),
    /// All transfers of snapshots that are under way break.
    CutSnapshots,
    /// A new node joins.
    ScaleOut,
    /// A member is removed.
    ScaleIn(Place),
    /// The leader is removed.
    RemoveLeader,
    /// A node loses its disk, and another takes its slot.
    Wipe(Place),
}

/// The kinds, as the coverage table names them; the order is that of [`Fault`].
pub const KINDS: [&str; 24] = [
    "kill",
    "power_loss",
    "power_loss_of_all",
    "pause",
    "split",
    "mute",
    "deaf",
    "cut_links",
    "clog_links",
    "storm",
    "slow_disk",
    "stalled_disk",
    "full_disk",
    "failed_call",
    "rot",
    "transfer",
    "restart",
    "clock_rate",
    "clock_jump",
    "cut_snapshots",
    "scale_out",
    "scale_in",
    "remove_leader",
    "wipe",
];

impl Fault {
    /// Its place in [`KINDS`].
    pub fn kind(&self) -> usize {
        match self {
            Fault::Kill(..) => 0,
            Fault::PowerLoss(..) => 1,
            Fault::PowerLossOfAll(_) => 2,
            Fault::Pause(..) => 3,
            Fault::Split(..) => 4,
            Fault::Mute(..) => 5,
            Fault::Deaf(..) => 6,
            Fault::CutLinks(..) => 7,
            Fault::ClogLinks(..) => 8,
            Fault::Storm(_) => 9,
            Fault::SlowDisk(..) => 10,
            Fault::StalledDisk(..) => 11,
            Fault::FullDisk(..) => 12,
            Fault::FailedCall(..) => 13,
            Fault::Rot(..) => 14,
            Fault::Transfer => 15,
            Fault::Restart(..) => 16,
            Fault::ClockRate(..) => 17,
            Fault::ClockJump(..) => 18,
            Fault::CutSnapshots => 19,
            Fault::ScaleOut => 20,
            Fault::ScaleIn(_) => 21,
            Fault::RemoveLeader => 22,
            Fault::Wipe(_) => 23,
        }
    }
}

/// Draws faults.
#[derive(Debug)]
pub struct Climate {
    random: Random,
    /// By kind.
    weights: [u64; KINDS.len()],
    /// Time between two faults, on average.
    interval: Micros,
}

impl Climate {
    /// A climate of its own for each seed: some kinds are frequent, some are absent.
    pub fn new(mut random: Random) -> Climate {
        let mut weights = [0; KINDS.len()];
        for weight in &mut weights {
            *weight = *random.pick(&[0, 1, 2, 4, 8]);
        }
        weights[random.below(KINDS.len() as u64) as usize] += 4;
        let interval = random.between(5, 30) * SECOND;
        Climate { random, weights, interval }
    }

    /// When the next fault strikes, from now.
    pub fn pause(&mut self) -> Micros {
        self.random.between(self.interval / 8, self.interval * 15 / 8)
    }

    /// The next fault.
    pub fn next(&mut self, nodes: usize) -> Fault {
        let total: u64 = self.weights.iter().sum();
        let mut drawn = self.random.below(total);
        let kind = self.weights.iter().position(|weight| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        });
        let place = self.random.below(nodes as u64) as Place;
        let time = match self.random.below(10) {
            0..5 => self.random.between(50 * MILLI, 2 * SECOND),
            5..9 => self.random.between(SECOND, 12 * SECOND),
            _ => self.random.between(10 * SECOND, 60 * SECOND),
        };
        match kind.unwrap_or_default() {
            0 => Fault::Kill(place, time),
            1 => Fault::PowerLoss(place, time),
            2 => Fault::PowerLossOfAll(time.min(10 * SECOND)),
            3 => Fault::Pause(place, time),
            4 => Fault::Split(self.random.draw(), time),
            5 => Fault::Mute(place, time),
            6 => Fault::Deaf(place, time),
            7 => Fault::CutLinks(self.random.draw(), time),
            8 => Fault::ClogLinks(self.random.draw() & self.random.draw(), time.min(5 * SECOND)),
            9 => Fault::Storm(time),
            10 => Fault::SlowDisk(place, time),
            11 => Fault::StalledDisk(place, time.min(8 * SECOND)),
            12 => Fault::FullDisk(place, time),
            13 => Fault::FailedCall(place, time),
            14 => Fault::Rot(place, time.min(10 * SECOND)),
            15 => Fault::Transfer,
            16 => Fault::Restart(place, time.min(5 * SECOND)),
            17 => Fault::ClockRate(place, self.random.between(900, 1_100)),
            18 => Fault::ClockJump(place, time.min(5 * SECOND)),
            19 => Fault::CutSnapshots,
            20 => Fault::ScaleOut,
            21 => Fault::ScaleIn(place),
            22 => Fault::RemoveLeader,
            _ => Fault::Wipe(place),
        }
    }

    /// The weather of a storm.
    pub fn storm(&mut self) -> Weather {
        let high = *self.random.pick(&[500, 5 * MILLI, 50 * MILLI]);
        Weather {
            loss: *self.random.pick(&[0, 10, 100, 300]),
            duplication: *self.random.pick(&[0, 50, 300]),
            straggling: *self.random.pick(&[0, 10, 100]),
            delay: (50, high),
        }
    }
}
