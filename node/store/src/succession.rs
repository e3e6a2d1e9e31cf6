//! A state that goes on as the state of another cluster, after its own was lost or is to be copied (contract, Recover).
//!
//! What the lost cluster may have answered beyond this state must not be mistaken for what the new one does: its
//! revisions and indexes begin a long way above. Keys keep the revisions that they have, replies and sessions are kept, leases last their whole time anew;
//! the past is compacted, so that whoever watched the old cluster is told so and reads again.

use crate::batch::side_and_leases;
use crate::error::StoreError;
use crate::store::Store;

/// By how much revision and applied index rise: more than any cluster can have done beyond the state that is left, and so
/// little that more than a thousand recoveries stay below 2^53.
pub const SUCCESSION_STEP: u64 = 1_000_000_000_000;
/// JSON numbers carry no more.
const NUMBER_MAX: u64 = 1 << 53;

/// Where a succession leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Succession {
    /// The applied index then.
    pub applied_index: u64,
    /// The revision then, and the oldest that can be read.
    pub revision: u64,
}

impl Succession {
    /// Where a succession of the state at this index and revision would lead; `None`: numbers would become too large.
    pub fn of(applied_index: u64, revision: u64) -> Option<Succession> {
        let applied_index = applied_index.checked_add(SUCCESSION_STEP)?;
        let revision = revision.checked_add(SUCCESSION_STEP)?;
        (applied_index < NUMBER_MAX && revision < NUMBER_MAX)
            .then_some(Succession { applied_index, revision })
    }
}

impl Store {
    /// Where a succession of what is applied would lead; `None`: numbers would become too large.
    pub fn succession(&self) -> Option<Succession> {
        Succession::of(self.position.applied_index, self.position.revision)
    }

    /// Goes on from there, as another cluster; durable at return.
    ///
    /// # Panics
    /// If that is not above what is applied.
    pub fn succeed(&mut self, to: Succession) -> Result<(), StoreError> {
        let position = self.position;
        assert!(
            position.applied_index < to.applied_index && position.revision < to.revision,
            "a succession leads up: from {position:?} to {to:?}"
        );
        self.position.applied_index = to.applied_index;
        self.position.revision = to.revision;
        self.position.compacted = to.revision;
        let now_ms = self.position.time_ms;
        let (mut side, leases) = side_and_leases!(self);
        leases.renew_all(&mut side, now_ms);
        self.flush()
    }

    /// Writes out all that is applied; durable at return. For a store that nothing else drives: no flush may be under way.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        assert!(!self.is_flushing(), "a flush is under way");
        self.publish();
        while self.durable_index() < self.applied_index() {
            let Some(job) = self.force_rotate() else { break };
            let index = job.run()?;
            self.handle_flushed(index)?;
        }
        Ok(())
    }
}
