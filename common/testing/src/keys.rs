//! A program's table of keys, with what its reference says of each: as JSON Schema (editors complete and check with it) and as a
//! page of the docs.

use std::collections::HashMap;
use std::fmt::Write as _;

use agent::config::check::is_ours;
use agent::config::table::{Key, Kind, Origin};
use serde_json::{Map, Value, json};

/// What a reference says of each key, by the path of its object and its name.
///
/// As text: `# PATH…` above the keys of the object at these paths (`.`: the file itself), then for each key a line
/// `NAME | TEST | DEFAULT | MEANING`; with `NAME!` an object without the key is wrong.
#[derive(Debug)]
pub struct Reference<'a>(HashMap<(&'a str, &'a str), Row<'a>>);

/// What a reference says of one key.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The test that shows it.
    pub test: &'a str,
    /// What counts without the key; empty: nothing.
    pub default: &'a str,
    /// What the key does.
    pub meaning: &'a str,
    /// An object without it is wrong.
    pub required: bool,
}

impl<'a> Reference<'a> {
    /// Reads the text, which must speak of every key of `root` and of nothing else.
    pub fn of(root: &[Key], text: &'a str) -> Self {
        let (mut rows, mut paths) = (HashMap::new(), Vec::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(of) = line.strip_prefix("# ") {
                paths = of.split(' ').map(|path| if path == "." { "" } else { path }).collect();
                continue;
            }
            let mut cells = line.splitn(4, '|').map(str::trim);
            let (Some(name), Some(test), Some(default), Some(meaning)) =
                (cells.next(), cells.next(), cells.next(), cells.next())
            else {
                panic!("{line:?} is not NAME | TEST | DEFAULT | MEANING");
            };
            let row = Row { test, default, meaning, required: name.ends_with('!') };
            for path in &paths {
                let twice = rows.insert((*path, name.trim_end_matches('!')), row);
                assert!(twice.is_none(), "the reference speaks twice of {name} in {path:?}");
            }
        }
        let reference = Self(rows);
        let mut known = 0;
        each_object("", root, &mut |path, keys| {
            for key in keys {
                reference.row(path, key);
            }
            known += keys.len();
        });
        assert_eq!(known, reference.0.len(), "the reference speaks of keys that are not there");
        reference
    }

    fn row(&self, path: &str, key: &Key) -> Row<'a> {
        *self
            .0
            .get(&(path, key.name))
            .unwrap_or_else(|| panic!("the reference does not speak of {} in {path:?}", key.name))
    }

    /// Each key, by its name, with its row.
    pub fn rows(&self) -> impl Iterator<Item = (&'a str, Row<'a>)> {
        self.0.iter().map(|((_, name), row)| (*name, *row))
    }
}

/// The object within `path` that a key holds, if any: its path and its keys.
fn inner(path: &str, key: &Key) -> Option<(String, &'static [Key])> {
    let (keys, name) = match key.kind {
        Kind::Object(keys) | Kind::Objects(keys) => (keys, key.name.to_owned()),
        Kind::Map(Kind::Object(keys)) => (*keys, format!("{}.NAME", key.name)),
        _ => return None,
    };
    Some((if path.is_empty() { name } else { format!("{path}.{name}") }, keys))
}

fn each_object(path: &str, keys: &[Key], visit: &mut impl FnMut(&str, &[Key])) {
    visit(path, keys);
    for (path, keys) in keys.iter().filter_map(|key| inner(path, key)) {
        each_object(&path, keys, visit);
    }
}

/// The JSON Schema of a config file with the keys of `root`.
pub fn json_schema(root: &[Key], reference: &Reference<'_>, title: &str) -> Value {
    let mut schema = object("", root, reference);
    if let Some(map) = schema.as_object_mut() {
        map.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".to_owned(), json!(title));
    }
    schema
}

fn object(path: &str, keys: &[Key], reference: &Reference<'_>) -> Value {
    let properties = keys.iter().map(|key| {
        let mut schema = kind(&key.kind, &|keys| {
            let (path, _) = inner(path, key).expect("only an object has keys");
            object(&path, keys, reference)
        });
        if let Some(map) = schema.as_object_mut() {
            map.insert("description".to_owned(), json!(reference.row(path, key).meaning));
        }
        (key.name.to_owned(), schema)
    });
    let mut schema = json!({"type": ["object", "null"], "properties": properties.collect::<Map<_, _>>()});
    let required: Vec<&str> = keys.iter().filter(|key| reference.row(path, key).required).map(|key| key.name).collect();
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

fn kind(of: &Kind, object: &dyn Fn(&[Key]) -> Value) -> Value {
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
        Kind::Map(kind_of) => json!({"type": ["object", "null"], "additionalProperties": kind(kind_of, object)}),
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

/// The reference as Markdown: one table for each object. `program` is whose config it is.
pub fn page(root: &[Key], reference: &Reference<'_>, program: &'static str) -> String {
    let mut text = String::new();
    each_object("", root, &mut |path, keys| {
        let title = if path.is_empty() { "The file".to_owned() } else { format!("`{path}.*`") };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "### {title}\n\n| key | kind | default | of | meaning |\n|---|---|---|---|---|");
        for key in keys {
            let Row { default, meaning, .. } = reference.row(path, key);
            let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
            let _ = writeln!(
                text,
                "| `{}` | {} | {default} | {} | {} |",
                key.name,
                words(&key.kind),
                origin(key.origin, program),
                meaning.replace('|', "\\|"),
            );
        }
        text.push('\n');
    });
    text.truncate(text.trim_end().len());
    text
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
