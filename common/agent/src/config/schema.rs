//! A table of keys as JSON Schema (editors complete and check with it) and as a reference for the docs.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::check::is_ours;
use super::table::{Key, Kind, Origin, Reference};

/// The JSON Schema of a config file with the keys of `root`.
pub fn json_schema(root: &[Key], title: &str) -> Value {
    let mut schema = object(root);
    if let Some(map) = schema.as_object_mut() {
        map.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".to_owned(), json!(title));
    }
    schema
}

fn object(keys: &[Key]) -> Value {
    let properties = keys.iter().map(|key| {
        let mut schema = kind(&key.kind);
        if let Some(map) = schema.as_object_mut() {
            map.insert("description".to_owned(), json!(key.reference.doc));
        }
        (key.name.to_owned(), schema)
    });
    let mut schema = json!({"type": ["object", "null"], "properties": properties.collect::<Map<_, _>>()});
    let required: Vec<&str> = keys.iter().filter(|key| key.reference.required).map(|key| key.name).collect();
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if is_ours(keys) {
        schema["additionalProperties"] = json!(false);
    }
    schema
}

/// What a text may be, as a regular expression, and the same in Rust.
type Pattern = (&'static str, fn(&str) -> bool);

const ONE_LINE: Pattern =
    ("^[^\\u0000-\\u0008\\u000a-\\u001f\\u007f]*$", |text| !text.chars().any(|c| c.is_ascii_control() && c != '\t'));
const TRUTH: Pattern =
    ("^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[Yy][Ee][Ss]|[Nn][Oo]|[Oo][Nn]|[Oo][Ff][Ff])$", |text| {
        ["true", "false", "yes", "no", "on", "off"].iter().any(|word| word.eq_ignore_ascii_case(text))
    });
const WHOLE: Pattern = ("^ *-?[0-9]+ *$", |text| is_digits(text.trim_matches(' ').trim_start_matches('-')));
const DIGITS: Pattern = ("^ *[0-9]+ *$", |text| is_digits(text.trim_matches(' ')));
const DECIMAL: Pattern = ("^ *[0-9]+([.][0-9]+)? *$", |text| text.trim_matches(' ').split('.').all(is_digits));
const PORTS: Pattern =
    ("^[0-9]{1,5}(-[0-9]{1,5})?$", |text| text.split('-').all(|port| port.len() <= 5 && is_digits(port)));

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `read`, or a text of this pattern.
fn or_text(read: Value, (pattern, _): Pattern) -> Value {
    json!({"anyOf": [read, {"type": "string", "pattern": pattern}]})
}

fn kind(of: &Kind) -> Value {
    let one_line = json!({"type": ["string", "number", "boolean", "null"], "pattern": ONE_LINE.0});
    match of {
        Kind::Any => json!({}),
        Kind::Bool => or_text(json!({"type": ["boolean", "null"]}), TRUTH),
        Kind::Text => one_line,
        Kind::Word(words) => of_words(words.iter().copied()),
        Kind::Spelled(words, old) => of_words(words.iter().copied().chain(old.iter().map(|(was, _)| *was))),
        Kind::Whole { min, max } | Kind::Digits { min, max } => {
            let mut schema = json!({"type": ["integer", "null"]});
            if *min > i64::MIN {
                schema["minimum"] = json!(min);
            }
            if *max < i64::MAX {
                schema["maximum"] = json!(max);
            }
            or_text(schema, if *min < 0 { WHOLE } else { DIGITS })
        }
        Kind::Number => or_text(json!({"type": ["number", "null"], "minimum": 0}), DECIMAL),
        Kind::Port => or_text(json!({"type": ["integer", "null"], "minimum": 1, "maximum": 65535}), PORTS),
        Kind::Lines => {
            json!({"anyOf": [one_line, {"type": "array", "items": {"anyOf": [one_line, {"type": "array"}]}}]})
        }
        Kind::Object(keys) => object(keys),
        Kind::Objects(keys) => json!({"anyOf": [object(keys), {"type": "array", "items": object(keys)}]}),
        Kind::Map(kind_of) => json!({"type": ["object", "null"], "additionalProperties": kind(kind_of)}),
    }
}

fn of_words<'a>(words: impl Iterator<Item = &'a str>) -> Value {
    json!({"enum": words.map(Value::from).chain([Value::Null]).collect::<Vec<_>>()})
}

/// Whether a schema of [`json_schema`]'s making takes a value: of JSON Schema it knows the words that stand there.
pub fn takes(schema: &Value, value: &Value) -> bool {
    let list = |key: &str| schema.get(key).and_then(Value::as_array);
    let is = |kind: &Value| match kind.as_str().unwrap_or_default() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    };
    let kinds = match schema.get("type") {
        None => true,
        Some(Value::Array(kinds)) => kinds.iter().any(is),
        Some(kind) => is(kind),
    };
    let bound = |key: &str, good: fn(f64, f64) -> bool| match (schema.get(key).and_then(Value::as_f64), value.as_f64())
    {
        (Some(bound), Some(number)) => good(number, bound),
        _ => true,
    };
    let pattern = match (schema.get("pattern").and_then(Value::as_str), value.as_str()) {
        (Some(pattern), Some(text)) => {
            let known = [ONE_LINE, TRUTH, WHOLE, DIGITS, DECIMAL, PORTS];
            known.iter().any(|(known, matches)| *known == pattern && matches(text))
        }
        _ => true,
    };
    let members = value.as_object().into_iter().flatten().all(|(name, value)| {
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(schema), _) => takes(schema, value),
            (None, Some(Value::Bool(may))) => *may,
            (None, Some(schema)) => takes(schema, value),
            (None, None) => true,
        }
    });
    let items = value.as_array().into_iter().flatten().all(|item| schema.get("items").is_none_or(|of| takes(of, item)));
    let required = list("required").into_iter().flatten().filter_map(Value::as_str);
    let condition = |rule: &Value| rule.get("if").is_none_or(|is| !takes(is, value)) || takes(&rule["then"], value);
    kinds
        && bound("minimum", |number, bound| number >= bound)
        && bound("maximum", |number, bound| number <= bound)
        && pattern
        && schema.get("const").is_none_or(|only| only == value)
        && list("enum").is_none_or(|words| words.contains(value))
        && list("anyOf").is_none_or(|any| any.iter().any(|schema| takes(schema, value)))
        && list("allOf").is_none_or(|all| all.iter().all(condition))
        && (!value.is_object() || required.into_iter().all(|key| value.get(key).is_some()))
        && members
        && items
}

/// The reference of every key of `root`, in Markdown: one table for each object. `program` is whose config it is.
pub fn reference(root: &[Key], program: &'static str) -> String {
    let mut text = String::new();
    section(&mut text, "The file", root, program);
    text
}

fn section(text: &mut String, title: &str, keys: &[Key], program: &'static str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "### {title}\n\n| key | kind | default | of | meaning |\n|---|---|---|---|---|");
    for key in keys {
        let Reference { default, doc, .. } = key.reference;
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let _ = writeln!(
            text,
            "| `{}` | {} | {default} | {} | {} |",
            key.name,
            words(&key.kind),
            origin(key.origin, program),
            doc.replace('|', "\\|"),
        );
    }
    text.push('\n');
    for key in keys {
        let (inner, path) = match key.kind {
            Kind::Object(inner) | Kind::Objects(inner) => (inner, format!("{}.", key.name)),
            Kind::Map(Kind::Object(inner)) => (*inner, format!("{}.NAME.", key.name)),
            _ => continue,
        };
        let base = title.trim_matches('`').trim_end_matches('*');
        let base = if title == "The file" { "" } else { base };
        section(text, &format!("`{base}{path}*`"), inner, program);
    }
}

fn origin(of: Origin, program: &'static str) -> &'static str {
    match of {
        Origin::Synapse => "Synapse",
        Origin::SynapseNginx => "synapse-nginx",
        Origin::Fork => "a fork of Synapse",
        Origin::Nerve => "Nerve",
        Origin::GoNerve => "go-nerve",
        Origin::Ours => program,
    }
}

fn words(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::Word(words) | Kind::Spelled(words, _) => words.join(" or "),
        Kind::Whole { min, max } | Kind::Digits { min, max } => match (*min, *max) {
            (i64::MIN, _) => "whole number".to_owned(),
            (min, i64::MAX) => format!("whole number from {min}"),
            (min, max) => format!("{min} to {max}"),
        },
        Kind::Number => "number from 0".to_owned(),
        Kind::Port => "port, range or null".to_owned(),
        Kind::Lines => "lines".to_owned(),
        Kind::Any => "any".to_owned(),
        Kind::Object(_) => "object".to_owned(),
        Kind::Objects(_) => "objects".to_owned(),
        Kind::Map(_) => "object by names".to_owned(),
    }
}
