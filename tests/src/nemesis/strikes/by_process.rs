//! Faults of processes: killed, paused, stopped and started, with a clock that is wrong.

use super::{Strikes, names};
use crate::cluster::PATIENCE;
use crate::failure::{Outcome, ensure};
use crate::random::Random;
use rustix::process::Signal;
use std::time::Duration;

/// How wrong clocks are: from a moment to years.
const SHIFTS_MS: [i64; 4] = [1_500, 60_000, 3_600_000, 100_000_000_000];

impl Strikes<'_> {
    /// Kills these, the last before the first is waited for.
    pub(super) async fn kill(&mut self, victims: Vec<usize>, hold: Duration) -> Outcome<String> {
        self.kill_at_once(&victims)?;
        self.hold(hold).await;
        victims.iter().try_for_each(|victim| self.cluster.restart(*victim))?;
        Ok(format!("{} killed", names(&victims)))
    }

    pub(super) fn kill_at_once(&mut self, victims: &[usize]) -> Outcome<()> {
        victims.iter().try_for_each(|victim| self.cluster.process(*victim).signal(Signal::KILL))?;
        victims.iter().try_for_each(|victim| self.cluster.kill(*victim))
    }

    pub(super) async fn pause(&mut self, victim: usize, hold: Duration) -> Outcome<String> {
        self.cluster.process(victim).signal(Signal::STOP)?;
        self.hold(hold).await;
        self.cluster.process(victim).signal(Signal::CONT)?;
        Ok(format!("node {victim} paused"))
    }

    pub(super) async fn restart_in_turn(&mut self) -> Outcome<String> {
        for node in self.members.clone() {
            self.cluster.process(node).signal(Signal::TERM)?;
            let status = self.cluster.process(node).wait_for_end(PATIENCE).await?;
            ensure(status.success(), || format!("node {node} ended with {status} on SIGTERM"))?;
            self.cluster.restart(node)?;
            self.cluster.wait_until_ready(node).await?;
        }
        Ok("all stopped and started in turn".into())
    }

    /// The clock goes wrong while the node runs, stays so over its next start, and is right again at the one after.
    pub(super) async fn shift_clock(
        &mut self,
        victim: usize,
        hold: Duration,
        random: &mut Random,
    ) -> Outcome<String> {
        let ms = random.pick(&SHIFTS_MS) * if random.chance(500) { 1 } else { -1 };
        self.cluster.disk(victim).shift_wall_clock(ms)?;
        self.hold(hold / 2).await;
        self.cluster.kill(victim)?;
        self.cluster.restart(victim)?;
        self.cluster.wait_until_ready(victim).await?;
        self.hold(hold / 2).await;
        self.cluster.kill(victim)?;
        self.cluster.disk(victim).heal()?;
        self.cluster.restart(victim)?;
        Ok(format!("node {victim}'s clock off by {} s", ms / 1_000))
    }
}
