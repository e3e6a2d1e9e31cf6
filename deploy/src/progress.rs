//! Waiting for conditions, with a word of progress when something changes.

use crate::context::Context;
use crate::observed::Observed;
use crate::{Failure, Outcome};
use std::time::{Duration, Instant};

/// How often an installation is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Prints what happens, each line once.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    last: String,
}

impl Progress {
    /// Time counts from now.
    pub fn start() -> Progress {
        Progress { started: Instant::now(), last: String::new() }
    }

    /// Says this, unless it was said last.
    pub fn say(&mut self, what: &str) {
        if self.last != what {
            eprintln!("{:>5.1} s  {what}", self.started.elapsed().as_secs_f64());
            self.last = what.to_owned();
        }
    }

    /// Looks until `holds`; the failure tells `what` was waited for, and what was seen last.
    pub async fn wait(
        &mut self,
        context: &Context,
        what: &str,
        patience: Duration,
        holds: impl Fn(&Observed) -> bool,
    ) -> Outcome<Observed> {
        let until = Instant::now() + patience;
        loop {
            let seen = context.observe().await;
            match &seen {
                Ok(observed) if holds(observed) => return Ok(observed.clone()),
                Ok(observed) => self.say(&format!("waiting for {what}: {}", observed.summary())),
                Err(Failure(why)) => self.say(&format!("waiting for {what}: {why}")),
            }
            if Instant::now() >= until {
                let last = seen.map_or_else(|Failure(why)| why, |observed| observed.summary());
                return Err(Failure(format!(
                    "waited {} s in vain for {what}; last: {last}. `status` tells more",
                    patience.as_secs()
                )));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}
