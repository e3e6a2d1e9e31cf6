//! The last line of a bar.

use crate::failure::Outcome;
use std::process::ExitCode;

/// Prints the last line (`NAME: PASS figures` or `NAME: FAIL why`) and gives the exit code that goes with it.
pub fn conclude(name: &str, outcome: &Outcome<String>) -> ExitCode {
    match outcome {
        Ok(figures) => {
            println!("{name}: PASS {figures}");
            ExitCode::SUCCESS
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
    fn numbers_for_people() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(mib(1_572_864), "1.5 MiB");
    }
}
