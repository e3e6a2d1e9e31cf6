//! What to do after an attempt: a pure state machine from answers to retries and, in the end, the truth.
//!
//! The rule that keeps errors honest: once an attempt's outcome is unknown, only an answer that was decided when the
//! request was applied (a success, or a condition that did not hold) tells what became of the write. A later refusal at
//! the door speaks of the later attempt alone.

use crate::error::Cause;
use balsa_wire::problem::{Code, Outcome, Problem};
use std::time::Duration;

/// The wait before the second retry, doubled for each further one; half of each wait is random.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
/// The longest wait before a retry.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// How one attempt ended.
#[derive(Clone, Debug)]
pub enum Attempt {
    /// 2xx or 304, whole.
    Success,
    /// 2xx, but the rest of the answer broke off.
    HalfSuccess(Cause),
    /// A node's problem.
    Problem(Box<Problem>),
    /// An answer that is not a node's.
    Foreign {
        /// Its status.
        status: u16,
        /// What it was.
        cause: Cause,
    },
    /// No connection: nothing was sent.
    NotSent(Cause),
    /// Sent, perhaps in part, and not answered.
    Broken(Cause),
}

/// What to do next.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// It succeeded.
    Done,
    /// Send the same again after a wait; the endpoint that was asked is avoided or not.
    Retry {
        /// How long to wait first.
        wait: Duration,
        /// What that says of the endpoint.
        endpoint: Standing,
    },
    /// The session is gone, and nothing of this write was sent in it: again with a new session.
    NewSession,
    /// Tell the caller.
    Fail {
        /// The truth about the write.
        outcome: Outcome,
        /// What happened last.
        cause: Cause,
    },
}

/// What an attempt says of the endpoint that was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It cannot be reached.
    Failed,
    /// It is there, and cannot do it now.
    Declined,
}

/// One call, over all its attempts.
#[derive(Debug)]
pub struct Course {
    /// Sending it twice is as good as once: a read, or a write with a place in a session or with an idempotency key.
    repeatable: bool,
    retries: u32,
    /// The most that an earlier attempt may have done.
    reached: Outcome,
    last: Cause,
}

impl Course {
    pub fn new(repeatable: bool) -> Course {
        Course { repeatable, retries: 0, reached: Outcome::NotApplied, last: Cause::Deadline }
    }

    /// Takes how an attempt ended. `random`: any 32 bits.
    pub fn after(&mut self, attempt: Attempt, random: u32) -> Step {
        match attempt {
            Attempt::Success => Step::Done,
            Attempt::HalfSuccess(cause) => {
                self.reached = Outcome::Applied;
                self.again(cause, Standing::Failed, random)
            }
            Attempt::NotSent(cause) => self.again(cause, Standing::Failed, random),
            Attempt::Broken(cause) => self.again_after_doubt(cause, Standing::Failed, random),
            Attempt::Foreign { status, cause } if status >= 500 => {
                self.again_after_doubt(cause, Standing::Declined, random) // a proxy that lost its node
            }
            Attempt::Foreign { cause, .. } => self.fail(cause),
            Attempt::Problem(problem) => self.after_problem(problem, random),
        }
    }

    /// The deadline passed.
    pub fn deadline(&self) -> (Outcome, Cause) {
        (self.reached, self.last.clone())
    }

    fn after_problem(&mut self, problem: Box<Problem>, random: u32) -> Step {
        let (code, status, outcome) = (problem.code, problem.status, problem.outcome);
        let cause = Cause::Problem(problem);
        match code {
            // Decided at apply and recorded: whatever was sent before, this is what became of it.
            Code::PreconditionFailed => Step::Fail { outcome: Outcome::NotApplied, cause },
            Code::SessionExpired if self.reached == Outcome::NotApplied => Step::NewSession,
            Code::Removed => self.again(cause, Standing::Failed, random),
            // Not made, and it will be its turn.
            Code::MembershipBusy => self.again(cause, Standing::Declined, random),
            Code::RequestTimeout | Code::IncompleteBody => self.again(cause, Standing::Declined, random),
            _ if status >= 500 && code != Code::StorageFull => match outcome {
                Some(Outcome::NotApplied) => self.again(cause, Standing::Declined, random),
                Some(Outcome::Applied) => {
                    self.reached = Outcome::Applied;
                    self.again(cause, Standing::Declined, random)
                }
                Some(Outcome::Unknown) | None => self.again_after_doubt(cause, Standing::Declined, random),
            },
            _ => self.fail(cause),
        }
    }

    fn doubt(&mut self) {
        if self.reached == Outcome::NotApplied {
            self.reached = Outcome::Unknown;
        }
    }

    fn again_after_doubt(&mut self, cause: Cause, endpoint: Standing, random: u32) -> Step {
        self.doubt();
        self.again(cause, endpoint, random)
    }

    fn again(&mut self, cause: Cause, endpoint: Standing, random: u32) -> Step {
        if !self.repeatable && self.reached != Outcome::NotApplied {
            return self.fail(cause);
        }
        self.last = cause;
        let wait = backoff(self.retries, random);
        self.retries += 1;
        Step::Retry { wait, endpoint }
    }

    fn fail(&mut self, cause: Cause) -> Step {
        Step::Fail { outcome: self.reached, cause }
    }
}

/// The wait before a retry; none before the first.
fn backoff(retries: u32, random: u32) -> Duration {
    let Some(doublings) = retries.checked_sub(1) else { return Duration::ZERO };
    let full = BACKOFF_FIRST.saturating_mul(1 << doublings.min(16)).min(BACKOFF_MAX);
    full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, code: Code, outcome: Option<Outcome>) -> Attempt {
        Attempt::Problem(Box::new(Problem {
            kind: String::new(),
            title: String::new(),
            status,
            detail: String::new(),
            code,
            outcome,
            current_revision: None,
            path: None,
            oldest_revision: None,
            limit_bytes: None,
            checks: Vec::new(),
        }))
    }

    fn no_leader() -> Attempt {
        problem(503, Code::NoLeader, Some(Outcome::NotApplied))
    }

    fn outcome(step: &Step) -> Option<Outcome> {
        match step {
            Step::Fail { outcome, .. } => Some(*outcome),
            _ => None,
        }
    }

    #[test]
    fn the_first_retry_is_at_once_and_later_ones_wait_longer_within_bounds() {
        let mut course = Course::new(true);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let Step::Retry { wait, .. } = course.after(no_leader(), u32::MAX) else { panic!("no retry") };
            waits.push(wait.as_millis());
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 320, 500, 500, 500, 500, 500]);
        for retries in 1..40 {
            assert!(backoff(retries, 0) >= backoff(retries, u32::MAX) / 2 - Duration::from_micros(1));
        }
    }

    #[test]
    fn refusals_are_final_and_not_applied() {
        for (status, code) in [
            (400, Code::InvalidKey),
            (412, Code::PreconditionFailed),
            (413, Code::TooLarge),
            (422, Code::RequestMismatch),
            (507, Code::StorageFull),
            (409, Code::ChangeRefused),
        ] {
            let step = Course::new(true).after(problem(status, code, Some(Outcome::NotApplied)), 0);
            assert_eq!(outcome(&step), Some(Outcome::NotApplied), "{code:?}");
        }
    }

    #[test]
    fn another_change_is_waited_for_and_a_removed_node_is_left() {
        for (status, code, expected) in
            [(409, Code::MembershipBusy, Standing::Declined), (503, Code::Removed, Standing::Failed)]
        {
            let mut course = Course::new(true);
            let step = course.after(problem(status, code, Some(Outcome::NotApplied)), 0);
            assert!(matches!(step, Step::Retry { endpoint, .. } if endpoint == expected), "{step:?}");
            assert_eq!(course.deadline().0, Outcome::NotApplied);
        }
    }

    #[test]
    fn after_doubt_only_a_recorded_answer_settles_it() {
        let doubts = [
            Attempt::Broken(Cause::Deadline),
            problem(504, Code::OutcomeUnknown, Some(Outcome::Unknown)),
            Attempt::Foreign { status: 502, cause: Cause::Deadline },
        ];
        for doubt in doubts {
            let after_doubt = || {
                let mut course = Course::new(true);
                assert!(matches!(course.after(doubt.clone(), 0), Step::Retry { .. }), "{doubt:?}");
                course
            };
            let mut course = after_doubt();
            assert!(matches!(course.after(no_leader(), 0), Step::Retry { .. }));
            assert_eq!(course.deadline().0, Outcome::Unknown);
            assert_eq!(after_doubt().after(Attempt::Success, 0), Step::Done);
            let settled = |attempt| outcome(&after_doubt().after(attempt, 0));
            let failed = problem(412, Code::PreconditionFailed, Some(Outcome::NotApplied));
            assert_eq!(settled(failed), Some(Outcome::NotApplied));
            let expired = problem(409, Code::SessionExpired, Some(Outcome::NotApplied));
            assert_eq!(settled(expired), Some(Outcome::Unknown));
            let full = problem(507, Code::StorageFull, Some(Outcome::NotApplied));
            assert_eq!(settled(full), Some(Outcome::Unknown));
        }
    }

    #[test]
    fn without_doubt_an_expired_session_is_replaced_and_the_deadline_means_not_applied() {
        let mut course = Course::new(true);
        assert!(matches!(course.after(Attempt::NotSent(Cause::Deadline), 0), Step::Retry { .. }));
        assert!(matches!(course.after(no_leader(), 0), Step::Retry { .. }));
        assert_eq!(course.deadline().0, Outcome::NotApplied);
        let expired = problem(409, Code::SessionExpired, Some(Outcome::NotApplied));
        assert_eq!(course.after(expired, 0), Step::NewSession);
    }

    #[test]
    fn half_an_answer_of_success_is_applied() {
        let mut course = Course::new(true);
        assert!(matches!(course.after(Attempt::HalfSuccess(Cause::Deadline), 0), Step::Retry { .. }));
        assert_eq!(course.deadline().0, Outcome::Applied);
    }

    #[test]
    fn what_is_not_repeatable_is_never_sent_again_after_doubt() {
        let mut course = Course::new(false);
        assert!(matches!(course.after(no_leader(), 0), Step::Retry { .. }));
        let step = course.after(Attempt::Broken(Cause::Deadline), 0);
        assert_eq!(outcome(&step), Some(Outcome::Unknown));
    }
}
