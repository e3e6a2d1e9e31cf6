//! *Persist*: carries the engine's [`LogJob`]s out on the log, in order, with one fdatasync for all that are at hand.

use super::event::LogJob;
use balsa_log::{Log, LogError, LogWrite};
use balsa_raft::ready::PersistToken;

/// The log and what was last made durable.
pub struct LogStage {
    log: Log,
}

impl LogStage {
    /// A stage over an open log.
    pub fn new(log: Log) -> LogStage {
        LogStage { log }
    }

    /// Carries jobs out; gives the newest write that is durable now. After an error the node must stop.
    pub fn run(&mut self, jobs: &[LogJob]) -> Result<Option<PersistToken>, LogError> {
        let mut newest = None;
        for job in jobs {
            match job {
                LogJob::Persist { token, hard_state, reset, entries } => {
                    self.log.append(&LogWrite { hard_state: *hard_state, entries, reset: reset.as_ref() })?;
                    newest = Some(*token);
                }
                LogJob::Release(start) => self.log.release(start)?,
            }
        }
        if newest.is_some() {
            self.log.sync()?;
        }
        Ok(newest)
    }

    /// Nothing came for a while: marks the end of what is durable, and prepares for what will come.
    pub fn idle(&mut self) -> Result<(), LogError> {
        self.log.mark()?;
        self.log.prepare_next_segment()?;
        Ok(())
    }

    /// The log's size on disk, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.log.size_bytes()
    }
}
