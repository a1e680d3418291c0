//! Figures and the table they stand in.

use std::fmt;
use std::time::Duration;

use crate::{LabError, Result};

/// One measured figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// The result, with its unit.
    pub value: String,
    /// What was wished for; empty where nothing was.
    pub goal: String,
    /// Under which conditions, so that it can be repeated.
    pub conditions: String,
}

/// A markdown table.
pub fn table(figures: &[Figure]) -> String {
    let mut out = String::from("| what | figure | goal | conditions |\n|---|---|---|---|\n");
    for Figure { what, value, goal, conditions } in figures {
        out += &format!("| {what} | {value} | {goal} | {conditions} |\n");
    }
    out
}

/// `text` with what stands between the lines of `<!-- NAME:begin … -->` and `<!-- NAME:end -->` replaced.
///
/// # Errors
/// When the two are not there, in this order.
pub fn between_markers(text: &str, name: &str, new: &str) -> Result<String> {
    let missing = || LabError::new(format!("no lines <!-- {name}:begin --> and <!-- {name}:end -->"));
    let begin = text.find(&format!("<!-- {name}:begin")).ok_or_else(missing)?;
    let after_begin = begin + text[begin..].find('\n').ok_or_else(missing)? + 1;
    let end = after_begin + text[after_begin..].find(&format!("<!-- {name}:end")).ok_or_else(missing)?;
    Ok(format!("{}\n{}\n\n{}", &text[..after_begin], new.trim(), &text[end..]))
}

/// Measured times.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that `percent` of all do not exceed (nearest rank); zero when there are none.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

/// `p50 1.2 ms, p99 3.4 ms, max 3.4 ms`
impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [50, 99, 100].map(|percent| millis(self.percentile(percent)));
        write!(f, "p50 {p50}, p99 {p99}, max {max}")
    }
}

/// A time in milliseconds, with as many digits as mean something.
pub fn millis(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.1} ms") }
}

/// Bytes in MB (10⁶).
pub fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let mut times = Times::default();
        assert_eq!(times.percentile(50), Duration::ZERO);
        (1..=100).rev().for_each(|ms| times.push(Duration::from_millis(ms)));
        assert_eq!([1, 50, 99, 100].map(|p| times.percentile(p).as_millis()), [1, 50, 99, 100]);
        assert_eq!(times.to_string(), "p50 50.0 ms, p99 99.0 ms, max 100.0 ms");
        assert_eq!(megabytes(12_345_678), "12.3 MB");
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = "head\n<!-- bench:begin (made by make bench) -->\nold\n<!-- bench:end -->\ntail\n";
        let new = between_markers(text, "bench", "new\n").unwrap();
        assert_eq!(new, "head\n<!-- bench:begin (made by make bench) -->\n\nnew\n\n<!-- bench:end -->\ntail\n");
        assert_eq!(between_markers(&new, "bench", "new").unwrap(), new);
        assert!(between_markers("nothing", "bench", "new").is_err());
        assert!(between_markers("<!-- bench:end -->\n<!-- bench:begin -->\n", "bench", "new").is_err());
    }
}
