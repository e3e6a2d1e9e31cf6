//! How old revisions are: marks of time and revision, now and then, for compaction by age.
//!
//! For proposals of the leader alone: what is compacted when is decided in the log. So the marks are not kept on disk; after
//! a start the store's revision counts as new, and what was old is kept for once its time more.

use std::collections::VecDeque;

/// Marks a node keeps at most: so exact is the age that history is kept for.
const MARKS: u64 = 32;

/// Marks, oldest first. Empty and idle where age does not matter.
#[derive(Default)]
pub(crate) struct Ages {
    /// Time and the revision at it.
    marks: VecDeque<(u64, u64)>,
    /// No mark before this time, in milliseconds.
    due_ms: u64,
}

impl Ages {
    /// The revision at this time, where revisions are kept for `age_ms`.
    pub(crate) fn note(&mut self, now_ms: u64, revision: u64, age_ms: u64) {
        if age_ms == 0 || now_ms < self.due_ms {
            return;
        }
        self.due_ms = now_ms + (age_ms / MARKS).max(1);
        self.marks.push_back((now_ms, revision));
        // Of those that are old enough only the newest matters.
        while self.marks.get(1).is_some_and(|(at, _)| at + age_ms <= now_ms) {
            self.marks.pop_front();
        }
    }

    /// The newest revision that is old enough to go.
    pub(crate) fn old(&self, now_ms: u64, age_ms: u64) -> Option<u64> {
        let (_, revision) = self.marks.iter().take_while(|(at, _)| at + age_ms <= now_ms).last()?;
        (age_ms > 0).then_some(*revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_old_once_its_time_is_over_and_not_before() {
        let (mut ages, age_ms) = (Ages::default(), 3_200);
        for second in 0..100 {
            let now_ms = second * 1_000;
            ages.note(now_ms, second, age_ms);
            let old = ages.old(now_ms, age_ms);
            assert_eq!(old, second.checked_sub(4), "at {now_ms}");
            assert!(ages.marks.len() <= 6);
        }
        // However often it is called.
        for now_ms in 100_000..200_000 {
            ages.note(now_ms, now_ms, age_ms);
        }
        let old = ages.old(200_000, age_ms).unwrap();
        assert!((196_600..=196_800).contains(&old), "{old}");
        assert!(ages.marks.len() <= 34);
    }

    #[test]
    fn without_an_age_nothing_is_noted() {
        let mut ages = Ages::default();
        ages.note(1, 1, 0);
        assert!(ages.marks.is_empty() && ages.old(u64::MAX, 0).is_none());
    }
}
