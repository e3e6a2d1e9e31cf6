//! Inputs that nobody would send, for everything that reads bytes from elsewhere: peers, clients, files.
//!
//! Each case has a number, and all of it follows from that: which valid input it begins with, how that is bent
//! ([`mutate`]), and what a target ([`targets`]) is fed. A target must not panic, must not take more memory than its
//! [`Target::bytes_max`], must not take seconds, and what it accepts it must be able to write down again. Checksums are made
//! to match, or nothing would get past them.

pub mod http;
pub mod mutate;
pub mod targets;

use crate::random::Random;
use std::time::{Duration, Instant};

/// Something that reads bytes.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it reads.
    pub about: &'static str,
    /// What one case may take of memory, in bytes, all allocations added up.
    pub bytes_max: usize,
    /// Feeds it a case.
    pub feed: Box<dyn FnMut(&mut Random)>,
}

/// How a case went wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It panicked.
    #[error("a panic: {0}")]
    Panic(String),
    /// It took more than its bound.
    #[error("{0} bytes of memory were taken, more than {1}")]
    Memory(usize, usize),
    /// It took too long.
    #[error("it took {0:?}")]
    Slow(Duration),
}

/// The longest that a case may take: what is accidental stays far below.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Runs one case; `allocated` tells how many bytes this process has ever allocated.
pub fn run(target: &mut Target, case: u64, allocated: impl Fn() -> usize) -> Result<(), Fault> {
    let mut random = Random::new(case);
    let (before, began) = (allocated(), Instant::now());
    let fed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (target.feed)(&mut random)));
    let (taken, took) = (allocated() - before, began.elapsed());
    if let Err(panic) = fed {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        return Err(Fault::Panic(text.unwrap_or_default()));
    }
    if taken > target.bytes_max {
        return Err(Fault::Memory(taken, target.bytes_max));
    }
    if took > TIME_MAX {
        return Err(Fault::Slow(took));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(feed: impl FnMut(&mut Random) + 'static) -> Target {
        Target { name: "", about: "", bytes_max: 1000, feed: Box::new(feed) }
    }

    #[test]
    fn what_goes_wrong_is_found() {
        assert_eq!(run(&mut target(|_| ()), 1, || 0), Ok(()));
        let panic = run(&mut target(|_| panic!("no")), 1, || 0);
        assert_eq!(panic, Err(Fault::Panic("no".into())));
        let total = std::cell::Cell::new(0);
        let greedy = run(&mut target(|_| ()), 1, || {
            total.set(total.get() + 5000);
            total.get()
        });
        assert_eq!(greedy, Err(Fault::Memory(5000, 1000)));
    }

    #[test]
    fn a_while_of_each_target() {
        for mut target in targets::all() {
            for case in 0..300 {
                assert_eq!(run(&mut target, case, || 0), Ok(()), "{} case {case}", target.name);
            }
        }
    }
}
