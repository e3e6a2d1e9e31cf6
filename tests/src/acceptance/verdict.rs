//! The last line of a bar.

use crate::failure::Outcome;
use std::process::ExitCode;

/// The exit code where nothing went wrong, but a figure misses what it must reach: on a machine that stalls now and then, once
/// is no verdict.
pub const EXIT_MISSED: u8 = 3;

/// What a bar measured, where nothing went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All figures are as they must be: these.
    Pass(String),
    /// One is not: which, and all of them.
    Missed(String),
}

impl Verdict {
    /// On `figures`, of which `misses` are not as they must be.
    pub fn of(figures: String, misses: impl IntoIterator<Item = Option<String>>) -> Verdict {
        let misses: Vec<String> = misses.into_iter().flatten().collect();
        if misses.is_empty() {
            Verdict::Pass(figures)
        } else {
            Verdict::Missed(format!("{}: {figures}", misses.join("; ")))
        }
    }
}

impl From<String> for Verdict {
    fn from(figures: String) -> Verdict {
        Verdict::Pass(figures)
    }
}

/// A sentence on a figure that misses its bar, unless it `holds`.
pub fn miss(holds: bool, sentence: impl FnOnce() -> String) -> Option<String> {
    (!holds).then(sentence)
}

/// Prints the last line (`NAME: PASS figures` or `NAME: FAIL why`) and gives the exit code that goes with it.
pub fn conclude(name: &str, outcome: Outcome<impl Into<Verdict>>) -> ExitCode {
    match outcome.map(Into::into) {
        Ok(Verdict::Pass(figures)) => {
            println!("{name}: PASS {figures}");
            ExitCode::SUCCESS
        }
        Ok(Verdict::Missed(why)) => {
            println!("{name}: FAIL {why}");
            ExitCode::from(EXIT_MISSED)
        }
        Err(why) => {
            // The last line is the verdict, whatever the reason has of lines.
            println!("{why}");
            let first = why.0.lines().next().unwrap_or_default();
            println!("{name}: FAIL {first}");
            ExitCode::FAILURE
        }
    }
}

/// A number with its thousands apart: `5,213`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in MiB with one decimal.
pub fn mib(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & ((1 << 20) - 1)) * 10) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_is_told_with_all_figures() {
        let of = |one: u32, other: u32| {
            let misses =
                [miss(one < 5, || format!("one is {one}")), miss(other < 5, || format!("other is {other}"))];
            Verdict::of(format!("{one} and {other}"), misses)
        };
        assert_eq!(of(1, 2), Verdict::Pass("1 and 2".into()));
        assert_eq!(of(1, 7), Verdict::Missed("other is 7: 1 and 7".into()));
        assert_eq!(of(6, 7), Verdict::Missed("one is 6; other is 7: 6 and 7".into()));
    }

    #[test]
    fn numbers_for_people() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(mib(1_572_864), "1.5 MiB");
    }
}
