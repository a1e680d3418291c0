//! A config file's text as a value. Synapse ran a file through ERB and then through a YAML parser, which takes JSON too.

use serde_json::Value;

/// A text that is no config. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// `<% … %>`.
    #[error(
        "line {line}: an ERB tag; ERB is not run here: use ${{ENV}} or ${{ENV:-default}}, or render the file beforehand"
    )]
    Erb { line: usize },
    /// Neither JSON nor YAML.
    #[error("{0}")]
    Syntax(String),
}

/// Reads JSON (with `//` and `#` comments, too) or YAML, keys in the order of the file.
///
/// # Errors
/// [`SourceError`] with the line.
pub fn read(text: &str) -> Result<Value, SourceError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let bare = without_comments(text);
    if bare.trim_start().starts_with('{') {
        no_erb(&bare)?;
        // YAML takes what strict JSON does not: trailing commas, unquoted keys. The JSON parser's words are clearer, though.
        return serde_json::from_str(&bare)
            .or_else(|json| yaml(&bare).map_err(|_| SourceError::Syntax(json.to_string())));
    }
    let lines: Vec<&str> = text.lines().map(|l| if l.trim_start().starts_with('#') { "" } else { l }).collect();
    no_erb(&lines.join("\n"))?;
    yaml(text)
}

fn yaml(text: &str) -> Result<Value, SourceError> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| SourceError::Syntax(e.to_string()))
}

fn no_erb(text: &str) -> Result<(), SourceError> {
    match text.find("<%") {
        Some(at) => Err(SourceError::Erb { line: text[..at].matches('\n').count() + 1 }),
        None => Ok(()),
    }
}

/// The text with its comments blanked out, so that lines and columns stay. `${…}` outside of quotes is put into quotes:
/// people write `"port": ${PORT}`.
fn without_comments(text: &str) -> String {
    let mut bare = String::with_capacity(text.len() + 16);
    let mut quoted = false;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quoted => {
                bare.push(c);
                bare.extend(chars.next().map(|(_, c)| c));
            }
            '"' => {
                quoted = !quoted;
                bare.push(c);
            }
            '$' if !quoted && text[at..].starts_with("${") => {
                let end = text[at..].find('}').map_or(text.len(), |n| at + n + 1);
                bare.push('"');
                bare.push_str(&text[at..end].replace('"', ""));
                bare.push('"');
                while chars.peek().is_some_and(|(next, _)| *next < end) {
                    chars.next();
                }
            }
            '#' | '/' if !quoted && (c == '#' || text[at..].starts_with("//")) => {
                while chars.peek().is_some_and(|(_, c)| *c != '\n') {
                    chars.next();
                }
            }
            _ => bare.push(c),
        }
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_with_either_comment_and_yaml_say_the_same() {
        let want = json!({"services": {"b": {"url": "http://x//y#z"}, "a": {"n": 1}}});
        for text in [
            r#"{"services":{"b":{"url":"http://x//y#z"},"a":{"n":1}}}"#,
            "// first\n{ # and\n\"services\": // here\n{\"b\":{\"url\":\"http://x//y#z\"},\"a\":{\"n\":1}}}\n// last",
            "{\"services\":{\"b\":{\"url\":\"http://x//y#z\",},\"a\":{\"n\":1},},}",
            "# YAML\nservices:\n  b:\n    url: http://x//y#z\n  a: {n: 1}\n",
            "---\nservices:\n  b: {url: \"http://x//y#z\"}\n  a:\n    n: 1\n",
        ] {
            let got = read(text).unwrap();
            assert_eq!(got, want, "{text}");
            let names: Vec<&String> = got["services"].as_object().unwrap().keys().collect();
            assert_eq!(names, ["b", "a"], "the order of the file: {text}");
        }
    }

    #[test]
    fn a_fault_names_its_line() {
        assert_eq!(read("{\n\"a\": \"<%= ENV['X'] %>\"}").unwrap_err(), SourceError::Erb { line: 2 });
        assert_eq!(read("a: 1\n\nb: <%= 2 %>\n").unwrap_err(), SourceError::Erb { line: 3 });
        assert!(read("# <%= in a comment %>\na: 1\n").is_ok());
        assert!(read("{\n\"a\": \n]").unwrap_err().to_string().contains("line 3"));
        assert!(read("a: [1\nb: 2").unwrap_err().to_string().contains("line"));
    }

    #[test]
    fn a_variable_may_stand_outside_of_quotes() {
        assert_eq!(read("{\"port\": ${PORT:-80}}").unwrap(), json!({"port": "${PORT:-80}"}));
    }
}
