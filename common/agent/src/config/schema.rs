//! A table of keys as JSON Schema (editors complete and check with it) and as a reference for the docs.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

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
    json!({"type": ["object", "null"], "properties": properties.collect::<Map<_, _>>()})
}

fn kind(of: &Kind) -> Value {
    match of {
        Kind::Any => json!({}),
        Kind::Bool => json!({"type": ["boolean", "string", "null"]}),
        Kind::Text => json!({"type": ["string", "number", "boolean", "null"]}),
        Kind::Word(words) => json!({"enum": words}),
        Kind::Whole { min, max } | Kind::Digits { min, max } => {
            let mut schema = json!({"type": ["integer", "string", "null"]});
            if *min > i64::MIN {
                schema["minimum"] = json!(min);
            }
            if *max < i64::MAX {
                schema["maximum"] = json!(max);
            }
            schema
        }
        Kind::Number => json!({"type": ["number", "string", "null"], "minimum": 0}),
        Kind::Port => json!({"type": ["integer", "string", "null"], "minimum": 1, "maximum": 65535}),
        Kind::Lines => {
            json!({"anyOf": [{"type": ["string", "number", "null"]}, {"type": "array", "items": {"type": ["string", "number"]}}]})
        }
        Kind::Object(keys) => object(keys),
        Kind::Objects(keys) => json!({"anyOf": [object(keys), {"type": "array", "items": object(keys)}]}),
        Kind::Map(kind_of) => json!({"type": ["object", "null"], "additionalProperties": kind(kind_of)}),
    }
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
        Kind::Word(words) => words.join(" or "),
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
