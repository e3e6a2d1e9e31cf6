//! The processor time that processes have used, as Linux counts it (proc(5), `/proc/PID/stat`).

use super::Failure;
use std::time::Duration;

/// What `stat` counts in: `USER_HZ`, which is 100 on every architecture that Linux runs on today.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of a process and of all its threads since it began.
pub(super) fn used(pid: u32) -> Result<Duration, Failure> {
    let path = format!("/proc/{pid}/stat");
    let stat =
        std::fs::read_to_string(&path).map_err(|error| Failure(format!("cannot read {path}: {error}")))?;
    parse(&stat).ok_or_else(|| Failure(format!("{path} is not as it should be: {stat}")))
}

/// The same, over several.
pub(super) fn used_by_all(pids: &[u32]) -> Result<Duration, Failure> {
    pids.iter().map(|pid| used(*pid)).sum()
}

/// `utime` and `stime` are the fields 14 and 15; field 2 is a name in parentheses, which may hold anything.
fn parse(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    Some(Duration::from_millis((user + system) * 1_000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let rest = "S 1 2 3 0 -1 4194560 2516 0 0 0 1234 66 5 5 20 0 9 0 100 1 2";
        for name in ["balsa-node", "a b", "a) S 1 (b", ")", ""] {
            assert_eq!(parse(&format!("42 ({name}) {rest}")), Some(Duration::from_millis(13_000)), "{name}");
        }
        for damaged in ["", "42 (x) S 1 2", "42 (x) S 1 2 3 0 -1 4194560 2516 0 0 0 a b"] {
            assert_eq!(parse(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn this_process_has_used_some() {
        let spin = std::time::Instant::now();
        while used(std::process::id()).unwrap() == Duration::ZERO {
            assert!(spin.elapsed() < Duration::from_secs(20), "no tick was counted in {:?}", spin.elapsed());
        }
        assert!(used_by_all(&[std::process::id(), u32::MAX]).is_err());
    }
}
