//! *Persist*: carries the engine's [`LogJob`]s out on the log, in order, with one fdatasync for all that are at hand.
//!
//! A full disk is no failure: the write waits, and nothing is acknowledged meanwhile. A leader in that state steps down
//! (its own append is not durable within an election timeout), and goes on as soon as there is room (hazard 43).

use super::event::LogJob;
use balsa_log::{Folder, Log, LogError, LogWrite};
use balsa_raft::ready::PersistToken;
use std::collections::VecDeque;

/// How far [`LogStage::run`] came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The newest write that is durable now.
    pub durable: Option<PersistToken>,
    /// The disk is full: what is left has to be tried again.
    pub full: bool,
}

/// The log and what was last made durable.
pub struct LogStage {
    log: Log,
    folder: Folder,
    headroom_bytes: u64,
    takes_entries: bool,
}

impl LogStage {
    /// A stage over an open log in `folder`. Entries are taken only while the disk has more than `headroom_bytes` left: the
    /// rest is for what must go on (votes, the store's flushes).
    pub fn new(log: Log, folder: Folder, headroom_bytes: u64) -> LogStage {
        LogStage { log, folder, headroom_bytes, takes_entries: true }
    }

    /// Whether entries are taken at all: not while the store waits for room on the disk, or what is applied and lies in
    /// memory alone would have no bound. They wait as they do for the log's own room.
    pub fn set_takes_entries(&mut self, takes: bool) {
        self.takes_entries = takes;
    }

    /// Carries jobs out, in order, and takes those that are done out of `jobs`. What is left did not fit on a full disk: it
    /// has to be tried again, and nothing behind it is lost or overtaken. After an error the node must stop.
    pub fn run(&mut self, jobs: &mut VecDeque<LogJob>) -> Result<Progress, LogError> {
        let mut durable = None;
        let mut full = false;
        let has_room = self.takes_entries
            && self.folder.disk.free_bytes(&self.folder.path).is_ok_and(|free| free > self.headroom_bytes);
        while let Some(job) = jobs.front() {
            if job.entries() > 0 && !has_room {
                full = true;
                break;
            }
            match self.carry_out(job) {
                Ok(written) => durable = written.or(durable),
                Err(LogError::Full { .. }) => {
                    full = true;
                    break;
                }
                Err(error) => return Err(error),
            }
            jobs.pop_front();
        }
        if durable.is_some() {
            self.log.sync()?;
        }
        if full {
            self.make_room(jobs)?;
        }
        Ok(Progress { durable, full })
    }

    fn carry_out(&mut self, job: &LogJob) -> Result<Option<PersistToken>, LogError> {
        match job {
            LogJob::Persist { token, hard_state, reset, entries } => {
                self.log.append(&LogWrite { hard_state: *hard_state, entries, reset: reset.as_ref() })?;
                Ok(Some(*token))
            }
            LogJob::Release(start) => {
                self.log.release(start)?;
                Ok(None)
            }
        }
    }

    /// Releases wait behind a write that does not fit, and may be what makes it fit. They concern entries that were durable
    /// long before, so they may go first.
    fn make_room(&mut self, jobs: &mut VecDeque<LogJob>) -> Result<(), LogError> {
        let mut left = VecDeque::with_capacity(jobs.len());
        for job in jobs.drain(..) {
            match job {
                LogJob::Release(start) => self.log.release(&start)?,
                write => left.push_back(write),
            }
        }
        *jobs = left;
        Ok(())
    }

    /// Nothing came for a while: marks the end of what is durable, and prepares for what will come.
    pub fn idle(&mut self) -> Result<(), LogError> {
        self.log.mark()?;
        match self.log.prepare_next_segment() {
            Ok(_) | Err(LogError::Full { .. }) => Ok(()), // the reserve holds; the next write will say more
            Err(error) => Err(error),
        }
    }

    /// How much can be written before the log needs a new segment, in bytes.
    pub fn ready_bytes(&self) -> u64 {
        self.log.ready_bytes()
    }

    /// The log's size on disk, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.log.size_bytes()
    }
}
