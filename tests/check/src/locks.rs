//! Did a lock do what it is for? Whoever holds it has a token, and writes in its name.
//!
//! - *No two holders have one token*, and *tokens rise*: one that was asked for after another was given is higher.
//! - *Fenced*: what was written under a token comes before all that was written under a higher one, in order of revision.

use crate::watch::Wrong;
use std::collections::BTreeSet;

/// A lock was given to somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Under this token.
    pub token: u64,
    /// When it was asked for.
    pub call_ns: u64,
    /// When it was given.
    pub return_ns: u64,
}

/// A write that was done because its token held the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fenced {
    /// Under this token.
    pub token: u64,
    /// The revision that it made.
    pub revision: u64,
}

/// Judges all that happened to one lock.
pub fn check(held: &[Held], fenced: &[Fenced]) -> Result<(), Wrong> {
    let mut tokens = BTreeSet::new();
    if let Some(twice) = held.iter().find(|one| !tokens.insert(one.token)) {
        return Err(Wrong(format!("two holders had token {}", twice.token)));
    }
    let (mut by_call, mut by_return) = (held.to_vec(), held.to_vec());
    by_call.sort_unstable_by_key(|one| one.call_ns);
    by_return.sort_unstable_by_key(|one| one.return_ns);
    let mut given = by_return.iter().peekable();
    let mut highest = 0;
    for one in by_call {
        while let Some(before) = given.next_if(|before| before.return_ns < one.call_ns) {
            highest = before.token.max(highest);
        }
        if one.token <= highest {
            return Err(Wrong(format!("token {} was asked for after {highest} had been given", one.token)));
        }
    }
    let mut fenced = fenced.to_vec();
    fenced.sort_unstable_by_key(|one| one.revision);
    match fenced.windows(2).find(|pair| pair[1].token < pair[0].token) {
        Some([before, after]) => Err(Wrong(format!(
            "at revision {} token {} wrote, though {} had done so at {}",
            after.revision, after.token, before.token, before.revision
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_promise_can_be_broken() {
        let held = |token, call_ns, return_ns| Held { token, call_ns, return_ns };
        let fenced = |token, revision| Fenced { token, revision };
        let says = |held: &[Held], fenced: &[Fenced]| check(held, fenced).map_err(|wrong| wrong.to_string());
        // Who asks while another waits may be served first.
        let both = [held(7, 10, 60), held(5, 20, 30)];
        assert_eq!(says(&both, &[fenced(7, 4), fenced(5, 3), fenced(7, 5)]), Ok(()));
        assert!(
            says(&[held(7, 10, 20), held(5, 21, 30)], &[]).unwrap_err().contains("after 7 had been given")
        );
        assert!(says(&[held(7, 10, 20), held(7, 11, 30)], &[]).unwrap_err().contains("two holders"));
        assert!(says(&both, &[fenced(5, 8), fenced(7, 4)]).unwrap_err().contains("token 5 wrote"));
    }
}
