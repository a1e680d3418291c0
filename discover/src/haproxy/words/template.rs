//! Synapse's templates for the words of a server line: `%{host}`, `%{port}` and `%{name}`, as Ruby's printf fills them in.

/// Whether a text is a template that can be filled in.
///
/// # Errors
/// What is wrong with it: Ruby raises an exception there.
pub fn template_problem(text: &str) -> Result<(), String> {
    fill(text, "", "", "").map(|_| ())
}

/// Fills in `%{host}`, `%{port}`, `%{name}` and `%%`.
///
/// # Errors
/// Any other `%`.
pub fn fill(text: &str, host: &str, port: &str, name: &str) -> Result<String, String> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let mut filled = String::with_capacity(text.len() + 32);
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        filled.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (value, after) = if let Some(after) = rest.strip_prefix('%') {
            ("%", after)
        } else if let Some(after) = rest.strip_prefix("{host}") {
            (host, after)
        } else if let Some(after) = rest.strip_prefix("{port}") {
            (port, after)
        } else if let Some(after) = rest.strip_prefix("{name}") {
            (name, after)
        } else {
            let found: String = rest.chars().take_while(|c| !c.is_whitespace()).take(20).collect();
            return Err(format!("%{found} is none of %{{host}}, %{{port}}, %{{name}} and %%"));
        };
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The text without its first `weight NUMBER`.
pub fn without_weight(text: &str) -> String {
    let mut from = 0;
    while let Some(at) = text[from..].find("weight").map(|at| from + at) {
        let after = &text[at + "weight".len()..];
        let number = after.trim_start_matches(' ');
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        if number.len() < after.len() && digits > 0 {
            return format!("{}{}", &text[..at], &number[digits..]);
        }
        from = at + "weight".len();
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in_as_printf_does() {
        let fill = |t: &str| fill(t, "h", "80", "n_h:80");
        assert_eq!(
            fill("check port %{port} sni str(%{name}) 50%% %{host}").unwrap(),
            "check port 80 sni str(n_h:80) 50% h"
        );
        for bad in ["%", "50% x", "%{other}", "%s", "%{host"] {
            assert!(fill(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_weight_is_taken_out() {
        assert_eq!(without_weight("check weight 5 weight 6"), "check  weight 6");
        assert_eq!(without_weight("weight  50"), "");
        assert_eq!(without_weight("weightless weight x weight 7"), "weightless weight x ");
    }
}
