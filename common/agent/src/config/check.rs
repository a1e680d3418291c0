//! A value held against the table of keys: every problem with its key path, and the value made regular (lists where lists
//! are expected, numbers as numbers), so that reading it into types cannot fail.

use serde_json::{Map, Value};
use strsim::levenshtein;

use super::Report;
use super::table::{Key, Kind, Origin};

/// Checks an object against `keys`, in place. Unknown keys are warnings; in a section of our own, errors.
pub fn object(map: &mut Map<String, Value>, keys: &[Key], path: &str, report: &mut Report) {
    let strict = is_ours(keys);
    for (name, value) in map.iter_mut() {
        let path = join(path, name);
        match keys.iter().find(|k| k.name == name) {
            Some(key) if value.is_null() && !matches!(key.kind, Kind::Port | Kind::Any) => {}
            Some(key) => check(value, &key.kind, &path, report),
            None if strict => report.error(&path, unknown(name, keys)),
            None => report.warn(&path, unknown(name, keys)),
        }
    }
    // A null says nothing, except where the key's presence counts.
    map.retain(|name, value| {
        !value.is_null() || keys.iter().any(|k| k.name == name && matches!(k.kind, Kind::Port | Kind::Any))
    });
}

/// Whether an object with these keys is a section of our own, in which an unknown key is an error.
pub fn is_ours(keys: &[Key]) -> bool {
    !keys.is_empty() && keys.iter().all(|k| k.origin == Origin::Ours)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn unknown(name: &str, keys: &[Key]) -> String {
    let near = keys.iter().map(|k| (levenshtein(name, k.name), k.name)).min();
    match near.filter(|(d, known)| *d <= 1 + known.len() / 5) {
        Some((_, known)) => format!("unknown key; did you mean {known}?"),
        None => "unknown key; it has no effect".to_owned(),
    }
}

fn check(value: &mut Value, kind: &Kind, path: &str, report: &mut Report) {
    match kind {
        Kind::Any => {}
        Kind::Bool => bool(value, path, report),
        Kind::Text => text(value, path, report),
        Kind::Word(words) => {
            text(value, path, report);
            if value.as_str().is_some_and(|w| !words.contains(&w)) {
                report.error(path, format!("{value} is none of {}", words.join(", ")));
            }
        }
        Kind::Spelled(words, old) => {
            if let Some((was, word)) = old.iter().find(|(was, _)| value == was) {
                report.notice(path, format!("{was} is an old spelling of {word}"));
                *value = (*word).into();
            }
            check(value, &Kind::Word(words), path, report);
        }
        Kind::Whole { min, max } => whole(value, *min, *max, path, report),
        Kind::Digits { min, max } => whole(&mut value.clone(), *min, *max, path, report),
        Kind::Number => match number(value) {
            Some(n) if n >= 0.0 => *value = n.into(),
            _ => report.error(path, format!("{value} is not a number from 0 on")),
        },
        Kind::Port => port(value, path, report),
        Kind::Lines => {
            listed(value);
            for (n, item) in value.as_array_mut().into_iter().flatten().enumerate() {
                text(item, &format!("{path}[{n}]"), report);
            }
        }
        Kind::Object(keys) => match value.as_object_mut() {
            Some(map) => object(map, keys, path, report),
            None => report.error(path, format!("is not an object but {}", what(value))),
        },
        Kind::Objects(keys) => {
            listed(value);
            for (n, item) in value.as_array_mut().into_iter().flatten().enumerate() {
                check(item, &Kind::Object(keys), &format!("{path}[{n}]"), report);
            }
        }
        Kind::Map(kind) => match value.as_object_mut() {
            Some(map) => {
                for (name, item) in map.iter_mut() {
                    if item.is_null() {
                        *item = empty(kind);
                    }
                    check(item, kind, &join(path, name), report);
                }
            }
            None => report.error(path, format!("is not an object but {}", what(value))),
        },
    }
}

fn empty(kind: &Kind) -> Value {
    match kind {
        Kind::Lines | Kind::Objects(_) => Value::Array(Vec::new()),
        Kind::Object(_) | Kind::Map(_) => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

/// A value alone is a list of one; lists in lists are one list, as Ruby's flatten had it.
fn listed(value: &mut Value) {
    let items = match value.take() {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        one => vec![one],
    };
    let flat = items.into_iter().flat_map(|item| match item {
        Value::Array(inner) => inner,
        Value::Null => Vec::new(),
        one => vec![one],
    });
    *value = Value::Array(flat.collect());
}

fn bool(value: &mut Value, path: &str, report: &mut Report) {
    let read = match value {
        Value::Bool(b) => Some(*b),
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    };
    match read {
        Some(b) => *value = Value::Bool(b),
        None => report.error(path, format!("{} is neither true nor false", what(value))),
    }
}

fn text(value: &mut Value, path: &str, report: &mut Report) {
    match value {
        Value::String(_) => {}
        Value::Number(_) | Value::Bool(_) => *value = Value::String(value.to_string()),
        _ => return report.error(path, format!("is not a text but {}", what(value))),
    }
    if value.as_str().is_some_and(|t| t.chars().any(|c| c.is_control() && c != '\t')) {
        report.error(path, "has a line break or another control character");
    }
}

fn whole(value: &mut Value, min: i64, max: i64, path: &str, report: &mut Report) {
    let number = match value {
        Value::Number(n) => {
            n.as_i64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| f as i64))
        }
        Value::String(digits) => digits.trim().parse().ok(),
        _ => None,
    };
    match number.filter(|n| (min..=max).contains(n)) {
        Some(n) => *value = n.into(),
        None if max == i64::MAX => report
            .error(path, format!("{} is not a whole number{}", what(value), if min == 0 { " from 0 on" } else { "" })),
        None => report.error(path, format!("{} is not a whole number from {min} to {max}", what(value))),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn port(value: &mut Value, path: &str, report: &mut Report) {
    if value.is_null() {
        return;
    }
    text(value, path, report);
    let valid = |p: &str| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|p| p > 0);
    if let Some(text) = value.as_str() {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        if !valid(low) || !valid(high) {
            report.error(path, format!("{text:?} is not a port from 1 to 65535"));
        }
    }
}

/// A value for a message: short, and its kind where that is the point.
fn what(value: &Value) -> String {
    let text = match value {
        Value::Array(_) => return "a list".to_owned(),
        Value::Object(_) => return "an object".to_owned(),
        other => other.to_string(),
    };
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    crate::keys_of! { key: Synapse, ours: Ours }

    const NATURAL: Kind = Kind::Whole { min: 0, max: i64::MAX };
    const TEMPLATE: &[Key] = &[ours("source", Kind::Text)];
    const SECTION: &[Key] = &[
        key("port", Kind::Port),
        key("frontend", Kind::Lines),
        key("listen", Kind::Lines),
        key("backend", Kind::Lines),
        key("disabled", Kind::Bool),
    ];
    const SERVICE: &[Key] = &[
        key("discovery", Kind::Object(&[key("hosts", Kind::Lines)])),
        key("default_servers", Kind::Objects(&[key("host", Kind::Text)])),
        key("haproxy", Kind::Object(SECTION)),
    ];
    const HAPROXY: &[Key] = &[
        key("global", Kind::Lines),
        key("socket_file_path", Kind::Lines),
        key("restart_interval", NATURAL),
        key("do_writes", Kind::Bool),
        key("extra_sections", Kind::Map(&Kind::Lines)),
    ];
    const ROOT: &[Key] = &[
        key("services", Kind::Map(&Kind::Object(SERVICE))),
        key("haproxy", Kind::Object(HAPROXY)),
        ours("template", Kind::Map(&Kind::Object(TEMPLATE))),
    ];

    fn checked(mut value: Value) -> (Value, Report) {
        let mut report = Report::default();
        object(value.as_object_mut().unwrap(), ROOT, "", &mut report);
        (value, report)
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_key_path() {
        let (_, report) = checked(json!({
            "services": {"a": {"discovery": [], "haproxy": {"port": "x", "frontend": [{}], "disabled": "maybe"}}, "b": 7},
            "haproxy": {"restart_interval": -1, "do_writes": 3, "global": ["a\nb"], "extra_sections": []},
        }));
        let paths: Vec<&str> = report.errors.iter().map(|n| n.path.as_str()).collect();
        let want = [
            "services.a.discovery",
            "services.a.haproxy.port",
            "services.a.haproxy.frontend[0]",
            "services.a.haproxy.disabled",
            "services.b",
            "haproxy.restart_interval",
            "haproxy.do_writes",
            "haproxy.global[0]",
            "haproxy.extra_sections",
        ];
        assert_eq!(paths, want);
    }

    #[test]
    fn unknown_keys_are_warnings_and_in_our_sections_errors() {
        let (_, report) =
            checked(json!({"service": {}, "haproxy": {"global_": []}, "template": {"x": {"sorce": "a"}}}));
        let warned: Vec<String> = report.warnings.iter().map(|n| format!("{}: {}", n.path, n.text)).collect();
        assert_eq!(
            warned,
            ["service: unknown key; did you mean services?", "haproxy.global_: unknown key; did you mean global?"]
        );
        assert_eq!(report.errors.iter().map(|n| n.path.as_str()).collect::<Vec<_>>(), ["template.x.sorce"]);
    }

    #[test]
    fn a_scalar_is_a_list_of_one_and_digits_are_numbers() {
        let (value, report) = checked(json!({
            "haproxy": {"global": "daemon", "socket_file_path": "/s", "restart_interval": "3", "do_writes": "no", "extra_sections": {"x": null, "y": "z"}},
            "services": {"a": {"discovery": {"hosts": "h:1"}, "haproxy": {"listen": "mode http", "port": 80, "backend": null}, "default_servers": {"host": "h"}}},
        }));
        assert_eq!(report, Report::default());
        let (h, s) = (&value["haproxy"], &value["services"]["a"]);
        assert_eq!((&h["global"], &h["socket_file_path"]), (&json!(["daemon"]), &json!(["/s"])));
        assert_eq!(
            (&h["restart_interval"], &h["do_writes"], &h["extra_sections"]),
            (&json!(3), &json!(false), &json!({"x": [], "y": ["z"]}))
        );
        assert_eq!(
            (&s["haproxy"], &s["discovery"]["hosts"]),
            (&json!({"listen": ["mode http"], "port": "80"}), &json!(["h:1"]))
        );
        assert_eq!(s["default_servers"], json!([{"host": "h"}]));
    }
}
