//! The command `history`: asks an agent what changed, and prints it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::admin::client::{AgentArgs, StatusError, ask};
use crate::clock;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Question<'a> {
    pub agent: AgentArgs,
    /// Only changes of this service.
    pub service: Option<&'a str>,
    /// Only changes within this time.
    pub since: Option<Duration>,
    /// JSON, a line for each change, in place of a table.
    pub json: bool,
}

/// The answer of the agent (at `default` unless the question names another) as text, the oldest first.
pub async fn history(
    question: &Question<'_>,
    default: SocketAddr,
    program: &'static str,
) -> Result<String, StatusError> {
    // A service's name has no character that a query must escape.
    let mut path = "/history?".to_owned();
    question.service.iter().for_each(|service| path.push_str(&format!("service={service}&")));
    question.since.iter().for_each(|since| path.push_str(&format!("within_ms={}", since.as_millis())));
    let answer = ask(&question.agent, &path, default, program).await?;
    if !answer.code.is_success() {
        return Err(StatusError::Refused { address: answer.address, program, code: answer.code });
    }
    let mut changes = answer.body["changes"].as_array().cloned().unwrap_or_default();
    changes.reverse();
    Ok(if question.json { lines(&changes) } else { table(&changes, clock::millis(clock::now())) })
}

/// A line of JSON for each change.
pub fn lines(changes: &[Value]) -> String {
    changes.iter().map(|change| format!("{change}\n")).collect()
}

/// The columns, and the key of each but for the two times.
const COLUMNS: [(&str, &str); 9] = [
    ("TIME (UTC)", ""),
    ("AGO", ""),
    ("WHAT", "what"),
    ("SERVICE", "service"),
    ("BACKEND", "backend"),
    ("ADDRESS", "address"),
    ("REASON", "reason"),
    ("TOOK", "took_ms"),
    ("WHY", "why"),
];

/// A table of changes, for people; columns that none of them fills are left out.
pub fn table(changes: &[Value], now_ms: u64) -> String {
    if changes.is_empty() {
        return "(no change is kept)\n".to_owned();
    }
    let row = |change: &Value| COLUMNS.map(|(title, key)| cell(change, title, key, now_ms));
    let rows: Vec<[String; 9]> = changes.iter().map(row).collect();
    let used: Vec<usize> = (0..COLUMNS.len()).filter(|n| rows.iter().any(|row| !row[*n].is_empty())).collect();
    let head = COLUMNS.map(|(title, _)| title.to_owned());
    let all: Vec<&[String; 9]> = std::iter::once(&head).chain(&rows).collect();
    let width = |n: usize| all.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<(usize, usize)> = used.iter().map(|n| (*n, width(*n))).collect();
    let line = |row: &&[String; 9]| {
        let cells: Vec<String> = widths.iter().map(|(n, width)| format!("{:width$}", row[*n])).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    all.iter().map(line).collect()
}

fn cell(change: &Value, title: &str, key: &str, now_ms: u64) -> String {
    let at = change["at_unix_ms"].as_u64().unwrap_or(0);
    match (title, &change[key]) {
        ("AGO", _) => ago(now_ms.saturating_sub(at)),
        ("TIME (UTC)", _) => utc(at),
        ("TOOK", Value::Number(ms)) => format!("{ms} ms"),
        ("BACKEND", Value::Null) if change["service"].is_null() => text(&change["name"]),
        ("WHY", Value::Null) if !change["service"].is_null() => text(&change["name"]),
        (_, value) => text(value),
    }
}

/// What strangers wrote moves no cursor.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        other => other.to_string(),
    }
}

fn ago(ms: u64) -> String {
    match ms / 1000 {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m{:02}s", s / 60, s % 60),
        s if s < 86_400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        s => format!("{}d{:02}h", s / 86_400, s / 3600 % 24),
    }
}

/// `2026-11-29 14:05:09`, of milliseconds since 1970.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day_of_year + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let (year, day) = (year + era * 400 + u64::from(month <= 2), day_of_year - (153 * march + 2) / 5 + 1);
    let of_day = seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_the_columns_that_are_used_and_no_control_characters() {
        let changes = [
            json!({"at_unix_ms": 1_000_000_000_000_u64, "what": "registered", "service": "web", "backend": "a", "took_ms": 1.5}),
            json!({"at_unix_ms": 1_000_000_060_000_u64, "what": "gone", "service": "web", "reason": "expired", "why": "x\u{1b}[2Jy"}),
        ];
        let shown = table(&changes, 1_000_000_125_000);
        let expected = "TIME (UTC)           AGO    WHAT        SERVICE  BACKEND  REASON   TOOK    WHY\n\
                        2001-09-09 01:46:40  2m05s  registered  web      a                 1.5 ms\n\
                        2001-09-09 01:47:40  1m05s  gone        web               expired          x\u{fffd}[2Jy\n";
        assert_eq!(shown, expected);
        assert_eq!(table(&[], 0), "(no change is kept)\n");
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (at, shown) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_164_800, "2024-02-29 00:00:00"),
            (4_102_444_799, "2099-12-31 23:59:59"),
        ] {
            assert_eq!(utc(at * 1000), shown);
        }
        assert_eq!(
            ["5s", "1m05s", "1h01m", "2d03h"],
            [5, 65, 3660, 183_600].map(|s| ago(s * 1000)).each_ref().map(|s| &**s)
        );
    }
}
