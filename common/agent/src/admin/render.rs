//! A status as text: by its form alone, as the page does it. The names in it come from strangers, so nothing may steer the terminal.

use std::{fmt::Write, time::Duration};

use serde_json::{Map, Value};

/// Longer cells of tables are cut on a terminal, so that one label list does not push every column off the screen.
const MAX_CELL: usize = 60;
/// How names of columns end that say why: those come last, and are never cut.
const REASONS: [&str; 6] = ["reason", "reasons", "why", "error", "warning", "warnings"];

/// Overview, tables of keys and values, tables of rows; `now` in ms since the epoch, for ages. For a screen the long cells of tables
/// are cut, but for reasons and errors; else all is whole.
///
/// What is no object is shown as one value.
pub fn text(status: &Value, now_unix_ms: u64, screen: bool) -> String {
    let table = |rows: &[Map<String, Value>]| table(rows, now_unix_ms, screen);
    let Value::Object(top) = status else { return format!("{}\n", cell("", status, now_unix_ms)) };
    let mut overview = Map::new();
    let mut sections = Vec::new();
    let mut empty = Vec::new();
    for (key, value) in top {
        match value {
            Value::Array(a) if a.is_empty() => empty.push(title(key)),
            Value::Object(o) if o.is_empty() => empty.push(title(key)),
            Value::Object(o) => match named(o) {
                Some(rows) => sections.push((format!("{} ({})", title(key), rows.len()), table(&rows))),
                None => sections.push((title(key), pairs(o, now_unix_ms))),
            },
            Value::Array(a) if a.iter().all(Value::is_object) => {
                let rows: Vec<_> = a.iter().filter_map(Value::as_object).cloned().collect();
                sections.push((format!("{} ({})", title(key), rows.len()), table(&rows)));
            }
            scalar => {
                overview.insert(key.clone(), scalar.clone());
            }
        }
    }
    let mut out = pairs(&overview, now_unix_ms);
    for (head, lines) in sections {
        let gap = if out.is_empty() { "" } else { "\n" };
        let body: String = lines.lines().map(|l| format!("  {l}\n")).collect();
        let _ = write!(out, "{gap}{head}\n{body}"); // a String takes everything
    }
    if !empty.is_empty() {
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{gap}empty: {}", empty.join(", "));
    }
    out
}

/// Rows of an object of objects, each with its key as `name`.
fn named(object: &Map<String, Value>) -> Option<Vec<Map<String, Value>>> {
    let row = |(key, value): (&String, &Value)| {
        let mut row = Map::new();
        row.insert("name".to_owned(), Value::String(key.clone()));
        row.extend(value.as_object()?.clone());
        Some(row)
    };
    object.iter().map(row).collect()
}

fn pairs(object: &Map<String, Value>, now: u64) -> String {
    let rows: Vec<Vec<String>> = object.iter().map(|(k, v)| vec![title(k), cell(k, v, now)]).collect();
    align(&rows, &[false, false])
}

fn table(rows: &[Map<String, Value>], now: u64, screen: bool) -> String {
    let mut keys: Vec<&String> = Vec::new();
    for key in rows.iter().flat_map(Map::keys) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.sort_by_key(|key| says_why(key));
    let numeric = |key: &&String| {
        let values = || rows.iter().filter_map(|r| r.get(*key)).filter(|v| !v.is_null());
        values().next().is_some() && values().all(Value::is_number)
    };
    let right: Vec<bool> = keys.iter().map(numeric).collect();
    let mut lines = vec![keys.iter().map(|k| title(k).to_uppercase()).collect::<Vec<_>>()];
    let shown = |row: &Map<String, Value>, key: &String| {
        let text = cell(key, row.get(key).unwrap_or(&Value::Null), now);
        if screen && !says_why(key) { cut(text) } else { text }
    };
    lines.extend(rows.iter().map(|row| keys.iter().map(|key| shown(row, key)).collect()));
    align(&lines, &right)
}

fn says_why(key: &str) -> bool {
    REASONS.iter().any(|word| key.ends_with(word))
}

fn align(rows: &[Vec<String>], right: &[bool]) -> String {
    let width = |n: usize| rows.iter().filter_map(|r| r.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..right.len()).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for ((text, width), right) in row.iter().zip(&widths).zip(right) {
            let _ = if *right { write!(line, "{text:>width$}  ") } else { write!(line, "{text:<width$}  ") };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The key without its unit, for a heading.
fn title(key: &str) -> String {
    let bare = ["_unix_ms", "_ms", "_bytes"].iter().find_map(|unit| key.strip_suffix(unit)).unwrap_or(key);
    safe(&bare.replace('_', " "))
}

fn cell(key: &str, value: &Value, now: u64) -> String {
    let text = match (value, value.as_u64()) {
        (_, Some(at)) if key.ends_with("_unix_ms") => age(now, at),
        (_, Some(ms)) if key.ends_with("_ms") => duration(Duration::from_millis(ms)),
        (Value::Number(ms), None) if key.ends_with("_ms") => fraction(ms.as_f64().unwrap_or_default()),
        (_, Some(n)) if key.ends_with("_bytes") => size(n),
        _ => plain(value),
    };
    safe(&text)
}

fn cut(text: String) -> String {
    if text.chars().count() <= MAX_CELL {
        return text;
    }
    let kept: String = text.chars().take(MAX_CELL - 1).collect();
    format!("{kept}…")
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(b) => if *b { "yes" } else { "no" }.to_owned(),
        Value::Number(n) => n.to_string(),
        Value::String(s) if s.is_empty() => "-".to_owned(),
        Value::String(s) => s.clone(),
        Value::Array(a) if a.is_empty() => "none".to_owned(),
        Value::Array(a) if a.iter().all(Value::is_object) => format!("{} (see --json)", a.len()),
        Value::Array(a) => a.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(o) if o.is_empty() => "none".to_owned(),
        Value::Object(o) => o.iter().map(|(k, v)| format!("{k}={}", plain(v))).collect::<Vec<_>>().join(", "),
    }
}

/// Control characters, those that turn the direction of text, and invisible ones are written out.
fn safe(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

fn age(now: u64, at: u64) -> String {
    let seconds = |ms: u64| duration(Duration::from_secs(ms / 1000));
    match (now.saturating_sub(at), at.saturating_sub(now)) {
        (past, 0) if past < 1000 => "now".to_owned(),
        (past, 0) => format!("{} ago", seconds(past)),
        (_, ahead) => format!("in {}", seconds(ahead)),
    }
}

fn duration(d: Duration) -> String {
    let s = d.as_secs();
    let two = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {unit}"),
        _ => format!("{big} {unit} {small} {small_unit}"),
    };
    match s {
        0 => format!("{} ms", d.as_millis()),
        1..60 if d.subsec_millis() >= 100 && s < 10 => format!("{s}.{} s", d.subsec_millis() / 100),
        1..60 => format!("{s} s"),
        60..3600 => two(s / 60, "min", s % 60, "s"),
        3600..86_400 => two(s / 3600, "h", s % 3600 / 60, "min"),
        _ => two(s / 86_400, "d", s % 86_400 / 3600, "h"),
    }
}

/// Milliseconds with a fraction, which matters below ten alone.
fn fraction(ms: f64) -> String {
    match Duration::try_from_secs_f64(ms / 1000.0) {
        Ok(long) if ms >= 10.0 => duration(long),
        _ => format!("{ms:.1} ms"),
    }
}

fn size(n: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(one, _)| n >= *one) {
        Some((one, unit)) => format!("{}.{} {unit}", n / one, n % one * 10 / one),
        None => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn each_form_has_its_table() {
        let status = json!({
            "version": "0.1.0",
            "started_unix_ms": 1_000,
            "ready": true,
            "last_turn": {"took_ms": 12, "reasons": ["new service", "mode"]},
            "sources": {"etcd": {"state": "synced", "services": 12}, "docker": {"state": "stale", "services": 3}},
            "backends": [{"service": "api", "port": 80}, {"service": "web-front", "port": 8080, "note": "slow"}],
            "held": [],
        });
        let wanted = "\
version  0.1.0
started  1 min 5 s ago
ready    yes

last turn
  took     12 ms
  reasons  new service, mode

sources (2)
  NAME    STATE   SERVICES
  etcd    synced        12
  docker  stale          3

backends (2)
  SERVICE    PORT  NOTE
  api          80  -
  web-front  8080  slow

empty: held
";
        assert_eq!(text(&status, 66_000, true), wanted);
    }

    #[test]
    fn reasons_are_last_and_whole_and_other_long_cells_are_cut_on_a_screen_alone() {
        let long = "x".repeat(200);
        let status = json!({
            "error": long,
            "containers": [{"reason": long, "labels": long, "name": "c1"}, {"name": "c2", "last_error": long}],
        });
        let count = |screen| text(&status, 0, screen).matches(&long).count();
        assert_eq!((count(true), count(false)), (3, 4));
        let shown = text(&status, 0, true);
        let head = shown.lines().find(|line| line.contains("NAME")).unwrap();
        assert!(head.find("NAME") < head.find("REASON") && head.find("REASON") < head.find("LAST ERROR"), "{head}");
    }

    #[test]
    fn units_read_well() {
        let d = |ms| duration(Duration::from_millis(ms));
        assert_eq!(
            [d(0), d(999), d(1_200), d(59_900), d(61_000), d(7_200_000)],
            ["0 ms", "999 ms", "1.2 s", "59 s", "1 min 1 s", "2 h"]
        );
        assert_eq!(d(90_000_000), "1 d 1 h");
        assert_eq!([0.25, 1.689449, 790.32724, 61_000.5].map(fraction), ["0.2 ms", "1.7 ms", "790 ms", "1 min 1 s"]);
        assert_eq!([size(12), size(1536), size(3 << 30)], ["12 B", "1.5 KiB", "3.0 GiB"]);
        assert_eq!([age(5_000, 4_500), age(5_000, 9_000)], ["now", "in 4 s"]);
    }

    #[test]
    fn what_is_no_object_is_one_value() {
        assert_eq!(text(&json!("x"), 0, true), "x\n");
        assert_eq!(text(&json!({}), 0, true), "");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            ".{0,80}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let key = "[a-z\u{1b}\n]{1,4}(_ms|_unix_ms|_bytes)?";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..5).prop_map(|kv| Value::Object(kv.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_status_steers_the_terminal(status in any_json(), now in any::<u64>(), screen in any::<bool>()) {
            let out = text(&status, now, screen);
            prop_assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");
        }
    }
}
