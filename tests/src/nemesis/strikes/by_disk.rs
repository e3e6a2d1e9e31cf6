//! Faults of disks: full, failing, stalling, and without power.

use super::{Strikes, names};
use crate::cluster::PATIENCE;
use crate::failure::{Context, Outcome, ensure};
use crate::nemesis::plan::Kind;
use crate::nemesis::power::{Loss, lose};
use crate::random::Random;
use std::time::Duration;

/// How long syncs stall: below and above what a leader may take.
const STALLS_MS: [u64; 4] = [30, 150, 600, 2_000];

impl Strikes<'_> {
    /// Fills the disks of these to the last byte, and gives the space back.
    pub(super) async fn fill_disks(&mut self, victims: Vec<usize>, hold: Duration) -> Outcome<String> {
        for victim in &victims {
            self.cluster.small_disk(*victim)?.fill()?;
        }
        self.hold(hold).await;
        for victim in &victims {
            self.cluster.small_disk(*victim)?.empty()?;
        }
        Ok(format!("{}: disk full", names(&victims)))
    }

    /// A node that cannot be sure of its disk must stop.
    pub(super) async fn fail_disk(&mut self, kind: Kind, victim: usize, hold: Duration) -> Outcome<String> {
        let what = match kind {
            Kind::WriteErrors => "writes fail",
            _ => "syncs fail",
        };
        match kind {
            Kind::WriteErrors => self.cluster.disk(victim).fail_writes()?,
            _ => self.cluster.disk(victim).fail_syncs()?,
        }
        let status = self.cluster.process(victim).wait_for_end(PATIENCE).await;
        let status = status.context(format!("see node {victim} stop, whose {what}"))?;
        ensure(!status.success(), || format!("node {victim}, whose {what}, ended as if all were well"))?;
        self.hold(hold).await;
        self.cluster.disk(victim).heal()?;
        self.cluster.restart(victim)?;
        Ok(format!("node {victim}: {what}"))
    }

    pub(super) async fn stall_disk(&mut self, hold: Duration, random: &mut Random) -> Outcome<String> {
        let leader = self.leader().await?;
        let stall = Duration::from_millis(*random.pick(&STALLS_MS));
        self.cluster.disk(leader).stall(stall)?;
        self.hold(hold).await;
        self.cluster.disk(leader).heal()?;
        Ok(format!("node {leader}, the leader: each sync {stall:?} longer"))
    }

    /// Kills these at once, and takes from their disks what was not synced.
    pub(super) async fn lose_power(
        &mut self,
        victims: Vec<usize>,
        hold: Duration,
        random: &mut Random,
    ) -> Outcome<String> {
        for victim in &victims {
            self.forget_records(*victim)?;
            self.cluster.disk(*victim).keep_before()?;
        }
        self.hold(hold).await;
        self.kill_at_once(&victims)?;
        let mut all = Loss::default();
        for victim in &victims {
            let records = self.cluster.disk(*victim).records();
            let data = self.cluster.process(*victim).recipe().data.clone();
            let loss = lose(&data, &records, random)?;
            all.unsynced += loss.unsynced;
            all.lost += loss.lost;
            all.kept += loss.kept;
            self.cluster.disk(*victim).heal()?;
            self.forget_records(*victim)?;
            self.cluster.restart(*victim)?;
        }
        Ok(format!(
            "{} without power: of {} unsynced writes {} sectors lost, {} kept",
            names(&victims),
            all.unsynced,
            all.lost,
            all.kept
        ))
    }

    fn forget_records(&self, node: usize) -> Outcome<()> {
        let records = self.cluster.disk(node).records();
        match std::fs::remove_file(&records) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.context(format!("delete {}", records.display())),
        }
    }
}
