//! Sizes and times as people write them.

use std::time::Duration;

/// Bytes: a whole number and a unit (`B`, `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB`, `TiB`).
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Bits a second: a whole number and a unit (`bit/s`, `kbit/s`, `Mbit/s`, `Gbit/s`, or without `/s`).
pub(super) fn rate(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.strip_suffix("/s").unwrap_or(unit) {
        "bit" => 1,
        "kbit" => 1_000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A time: a whole number and a unit (`s`, `min`, `h`, `d`).
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "s" => 1,
        "min" | "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(factor).map(Duration::from_secs)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_written() {
        assert_eq!(bytes("10GiB"), Some(10 << 30));
        assert_eq!(bytes("1 kB"), Some(1_000));
        assert_eq!(duration("1h"), Some(Duration::from_secs(3_600)));
        for bad in ["", "GiB", "-1MiB", "1.5GiB", "10gib", "99999999999TiB"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
        assert_eq!(duration("1"), None);
        assert_eq!((rate("64kbit/s"), rate("2 Mbit")), (Some(64_000), Some(2_000_000)));
        for bad in ["64", "64kB/s", "64kbps", "/s", "1.5Mbit/s"] {
            assert_eq!(rate(bad), None, "{bad}");
        }
    }
}
