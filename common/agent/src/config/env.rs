//! `${ENV}` and `${ENV:-default}` in texts, in place of Synapse's ERB. Values are put in after parsing: what a variable
//! holds can never become a key or a line of its own.

use serde_json::Value;

use super::Report;

/// Replaces variables in every text of `value`; `lookup` gives a variable's value. `$${` stands for `${`.
pub fn expand(value: &mut Value, path: &str, lookup: &dyn Fn(&str) -> Option<String>, report: &mut Report) {
    match value {
        Value::String(text) if text.contains("${") => match expanded(text, lookup) {
            Ok(new) => *text = new,
            Err(why) => report.error(path, why),
        },
        Value::Array(items) => {
            for (n, item) in items.iter_mut().enumerate() {
                expand(item, &format!("{path}[{n}]"), lookup, report);
            }
        }
        Value::Object(map) => {
            for (key, item) in map.iter_mut() {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                expand(item, &path, lookup, report);
            }
        }
        _ => {}
    }
}

fn expanded(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut new = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            new.push_str(&rest[..at - 1]);
            new.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        new.push_str(&rest[..at]);
        let end = rest[at..].find('}').ok_or("${ without its }")? + at;
        let inner = &rest[at + 2..end];
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(n, d)| (n, Some(d)));
        let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid {
            return Err(format!("${{{inner}}} names no variable ($${{ stands for a plain ${{)"));
        }
        let value = lookup(name).filter(|v| !v.is_empty() || default.is_none());
        let value = value.or_else(|| default.map(str::to_owned));
        new.push_str(&value.ok_or_else(|| format!("the environment variable {name} is not set"))?);
        rest = &rest[end + 1..];
    }
    new.push_str(rest);
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_and_their_defaults_are_put_in_and_a_missing_one_is_named() {
        let lookup = |name: &str| match name {
            "A" => Some("x\": 1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let mut report = Report::default();
        let mut value =
            json!({"a": "${A}-${B:-b}", "e": "[${EMPTY}|${EMPTY:-d}]", "esc": "$${A}", "l": ["${C}", "$5", "${D!}"]});
        expand(&mut value, "", &lookup, &mut report);
        assert_eq!(value["a"], "x\": 1-b");
        assert_eq!(value["e"], "[|d]");
        assert_eq!(value["esc"], "${A}");
        let errors: Vec<String> = report.errors.iter().map(|n| format!("{}: {}", n.path, n.text)).collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert_eq!(errors[0], "l[0]: the environment variable C is not set");
        assert!(errors[1].starts_with("l[2]: "));
    }
}
