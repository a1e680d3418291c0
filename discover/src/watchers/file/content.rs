//! What a file may say: registrations as Synapse has them, `host:port` texts, Prometheus' file_sd groups, or an object of
//! services with any of these. Pure.

use model::ServiceName;
use serde_json::{Map, Value, json};

use agent::config::source;

/// One registration of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Where it stands, such as `web.json[3]`.
    pub what: String,
    /// What it says, with Synapse's field names; or what is wrong.
    pub registration: Result<Map<String, Value>, String>,
}

/// Every registration for `service` in a file's text.
///
/// # Errors
/// Why the text as a whole says nothing: it is empty, cut off, no list, or does not name the service. An empty list is an
/// answer: there is no backend.
pub fn items(name: &str, text: &str, service: &ServiceName) -> Result<Vec<Item>, String> {
    if text.trim().is_empty() {
        return Err("is empty; a list without backends is []".to_owned());
    }
    let value = source::read(text).map_err(|e| e.to_string())?;
    let value = match &value {
        Value::Object(map) if !map.contains_key("targets") => match map.get(service.as_str()) {
            Some(Value::Null) => &Value::Array(Vec::new()),
            Some(value) => value,
            None => return Err(format!("is an object of services and does not name {service}")),
        },
        value => value,
    };
    let all = match value {
        Value::Array(items) => items.as_slice(),
        group @ Value::Object(_) => std::slice::from_ref(group),
        other => return Err(format!("is neither a list of backends nor an object of services but {}", kind(other))),
    };
    let mut items = Vec::with_capacity(all.len());
    for (n, value) in all.iter().enumerate() {
        take(&format!("{name}[{n}]"), value, &mut items);
    }
    Ok(items)
}

fn take(what: &str, value: &Value, items: &mut Vec<Item>) {
    let mut push = |what: String, registration| items.push(Item { what, registration });
    match value {
        Value::String(address) => push(what.to_owned(), at(address, None)),
        Value::Object(map) => match map.get("targets") {
            None => push(what.to_owned(), Ok(map.clone())),
            Some(Value::Array(targets)) => {
                for (n, target) in targets.iter().enumerate() {
                    let address = target.as_str().ok_or_else(|| format!("is no text but {}", kind(target)));
                    push(format!("{what}.targets[{n}]"), address.and_then(|address| at(address, map.get("labels"))));
                }
            }
            Some(other) => push(format!("{what}.targets"), Err(format!("is no list but {}", kind(other)))),
        },
        other => push(what.to_owned(), Err(format!("is neither a backend nor a group of targets but {}", kind(other)))),
    }
}

/// `host:port`, or a host alone where the port comes from elsewhere.
fn at(address: &str, labels: Option<&Value>) -> Result<Map<String, Value>, String> {
    let bare_ipv6 = address.parse::<std::net::Ipv6Addr>().is_ok();
    let (host, port) = match address.rsplit_once(':').filter(|_| !bare_ipv6 && !address.ends_with(']')) {
        Some((host, port)) => (host, Some(port)),
        None => (address, None),
    };
    if host.is_empty() || port.is_some_and(|p| p.parse::<u16>().is_err()) {
        return Err(format!("{:?} is not host:port", address.chars().take(80).collect::<String>()));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut map = Map::from_iter([("host".to_owned(), json!(host))]);
    map.extend(port.and_then(|p| p.parse::<u16>().ok()).map(|port| ("port".to_owned(), json!(port))));
    map.extend(labels.map(|labels| ("labels".to_owned(), labels.clone())));
    Ok(map)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<Item>, String> {
        items("f", text, &"web".parse().unwrap())
    }

    fn addresses(text: &str) -> Vec<String> {
        let of = |item: Item| match item.registration {
            Ok(map) => format!("{} {} {}", map["host"], map.get("port").unwrap_or(&Value::Null), map.len()),
            Err(why) => format!("{}: {why}", item.what),
        };
        read(text).unwrap().into_iter().map(of).collect()
    }

    #[test]
    fn every_form_is_read() {
        let want = ["\"a\" 1 2", "\"::1\" 2 2"];
        for text in [
            r#"["a:1", "[::1]:2"]"#,
            r#"[{"host": "a", "port": 1}, {"host": "::1", "port": 2}]"#,
            "- a:1\n- '[::1]:2'\n",
            "web: ['a:1', '[::1]:2']\nother: 7\n",
            r#"[{"targets": ["a:1", "[::1]:2"]}]"#,
            r#"{"targets": ["a:1", "[::1]:2"]}"#,
            "# Prometheus\n- targets: ['a:1']\n- targets: ['[::1]:2']\n",
        ] {
            assert_eq!(addresses(text), want, "{text}");
        }
        assert_eq!(addresses(r#"[{"targets": ["a:1", "b"], "labels": {"x": "y"}}]"#), ["\"a\" 1 3", "\"b\" null 2"]);
        assert_eq!(addresses("[\"fe80::1\"]"), ["\"fe80::1\" null 1"]);
        assert_eq!((addresses("[]").len(), addresses("web:\n").len()), (0, 0), "an answer: there is none");
    }

    #[test]
    fn what_is_wrong_as_a_whole_is_no_answer() {
        for (text, why) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("[\"a:1\",", "line 1"),
            ("7", "a number"),
            ("null", "null"),
            ("nobody: []", "does not name web"),
            ("web: nonsense", "a text"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_bad_entry_is_named_by_its_place_and_the_rest_goes_on() {
        let text = r#"["a:1", 7, "b:x", {"targets": ["c:1", {}]}, {"targets": 7}, {"nothing": 1}]"#;
        let bad: Vec<String> =
            read(text).unwrap().into_iter().filter_map(|i| i.registration.err().map(|_| i.what)).collect();
        assert_eq!(bad, ["f[1]", "f[2]", "f[3].targets[1]", "f[4].targets"]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}|[\\[\\]{}:,\"a-c0-9 \\n-]{0,60}") {
            let _ = read(&text);
        }
    }
}
