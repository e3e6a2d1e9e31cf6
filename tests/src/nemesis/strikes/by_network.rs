//! Faults between nodes: what is cut, late, slow or broken.

use super::{Strikes, between, names};
use crate::failure::Outcome;
use crate::nemesis::link::{Cut, Weather};
use crate::nemesis::plan::{Kind, Round};
use crate::random::Random;
use std::time::{Duration, Instant};

/// Bounds of a link's delay.
const DELAY_MS: (u64, u64) = (5, 150);
/// What gets through a throttled link in a second, on one connection.
const THROTTLED: u32 = 48 << 10;
/// How long connections are left to be made again before they break once more, at most.
const BREAK_EVERY_MS: u64 = 800;

/// Directed links, by who sends and who receives.
type Links = Vec<(usize, usize)>;

impl Strikes<'_> {
    /// Disturbs what the round says, and heals it.
    pub(super) async fn disturb(&self, round: &Round, one: usize, random: &mut Random) -> Outcome<String> {
        let what = match round.kind {
            Kind::BreakConnections => self.break_connections(round.hold, random).await?,
            Kind::Delays => {
                for (from, to) in self.all_links() {
                    let delay = between(random, DELAY_MS.0, DELAY_MS.1);
                    self.network()?.link(from, to).set(Weather { delay, ..Weather::default() });
                }
                self.hold(round.hold).await;
                "all links late".to_string()
            }
            Kind::Throttle => {
                let leader = self.leader().await?;
                let weather = Weather { bytes_per_second: Some(THROTTLED), ..Weather::default() };
                for (from, to) in self.touching(leader) {
                    self.network()?.link(from, to).set(weather);
                }
                self.hold(round.hold).await;
                format!("node {leader}, the leader, throttled")
            }
            _ => {
                let (links, what) = self.to_cut(round.kind, one).await?;
                for (from, to) in links {
                    self.network()?.link(from, to).cut();
                }
                self.hold(round.hold).await;
                what
            }
        };
        for (from, to) in self.all_links() {
            self.network()?.link(from, to).heal();
        }
        Ok(what)
    }

    async fn to_cut(&self, kind: Kind, one: usize) -> Outcome<(Links, String)> {
        let at = self.members.iter().position(|node| *node == one).unwrap_or_default();
        let next = |steps: usize| self.members[(at + steps) % self.members.len()];
        let other = next(1);
        Ok(match kind {
            Kind::CutOneWay => (vec![(one, other)], format!("node {other} does not hear node {one}")),
            Kind::CutBothWays => {
                (vec![(one, other), (other, one)], format!("nodes {one} and {other} hear not one another"))
            }
            Kind::Partition => {
                let minority: Vec<usize> = (0..(self.members.len() - 1) / 2).map(next).collect();
                let links = minority.iter().flat_map(|node| self.touching(*node)).collect();
                (links, format!("{} alone", names(&minority)))
            }
            Kind::PartialPartition => self.circle().await?,
            leaders => {
                let leader = self.leader().await?;
                let touching = self.touching(leader).into_iter();
                match leaders {
                    Kind::DeafLeader => (
                        touching.filter(|(_, to)| *to == leader).collect(),
                        format!("node {leader}, the leader, hears nobody"),
                    ),
                    Kind::MuteLeader => (
                        touching.filter(|(from, _)| *from == leader).collect(),
                        format!("nobody hears node {leader}, the leader"),
                    ),
                    _ => (touching.collect(), format!("node {leader}, the leader, alone")),
                }
            }
        })
    }

    /// Every node hears its two neighbours only. Three nodes are all neighbours: there the leader and one other are cut.
    async fn circle(&self) -> Outcome<(Links, String)> {
        let size = self.members.len();
        if size <= 3 {
            let leader = self.leader().await?;
            let other = self.other(leader);
            let what = format!("node {leader}, the leader, and node {other} hear not one another");
            return Ok((vec![(leader, other), (other, leader)], what));
        }
        let are_neighbours = |one: usize, other: usize| {
            let place = |node| self.members.iter().position(|member| *member == node).unwrap_or_default();
            let steps = place(one).abs_diff(place(other));
            steps == 1 || steps == size - 1
        };
        let links = self.all_links().into_iter().filter(|(from, to)| !are_neighbours(*from, *to));
        Ok((links.collect(), "all hear their neighbours around a circle only".into()))
    }

    async fn break_connections(&self, hold: Duration, random: &mut Random) -> Outcome<String> {
        let (began, mut times) = (Instant::now(), 0);
        while began.elapsed() < hold {
            for cut in [Cut::Broken, Cut::Whole] {
                for (from, to) in self.all_links() {
                    self.network()?.link(from, to).set(Weather { cut, ..Weather::default() });
                }
                self.hold(between(random, 1, BREAK_EVERY_MS)).await;
            }
            times += 1;
        }
        Ok(format!("all connections broken {times} times"))
    }

    fn all_links(&self) -> Links {
        let pairs = self.members.iter().flat_map(|from| self.members.iter().map(|to| (*from, *to)));
        pairs.filter(|(from, to)| from != to).collect()
    }

    fn touching(&self, node: usize) -> Links {
        self.all_links().into_iter().filter(|(from, to)| *from == node || *to == node).collect()
    }
}
