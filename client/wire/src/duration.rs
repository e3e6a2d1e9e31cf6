//! Durations as people write them: `500ms`, `30s`, `5m`, `2h`.

/// The milliseconds that `text` says; `None`: it is no duration, or none that fits.
pub fn parse_ms(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let ms_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(ms_per_unit)
}

/// As [`parse_ms`] reads it, in the largest unit that is exact.
pub fn format_ms(ms: u64) -> String {
    for (unit, ms_per_unit) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms > 0 && ms.is_multiple_of(ms_per_unit) {
            return format!("{}{unit}", ms / ms_per_unit);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("0s", 0)] {
            assert_eq!(parse_ms(text), Some(ms), "{text}");
            assert_eq!(parse_ms(&format_ms(ms)), Some(ms), "{text}");
        }
        for text in ["", "5", "s", "-1s", "5d", "1.5s", "99999999999999999999s", "9999999999999999h", "5 s"] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
        assert_eq!((format_ms(1_500), format_ms(3_600_000)), ("1500ms".into(), "1h".into()));
    }
}
