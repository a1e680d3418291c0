//! The words of a server line: `%{…}` filled in as Ruby's printf does, and what a registration may ask for.

use crate::haproxy::command::is_safe_word;

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

/// What follows a server keyword.
#[derive(Clone, Copy)]
enum Argument {
    Nothing,
    Number(u64),
    Time,
    Word,
    Track,
}

use Argument::{Nothing, Number, Time, Track, Word};

/// HAProxy's server keywords and their arguments (configuration manual, section 5.2, up to 3.2), except those in [`DENIED`].
const KEYWORDS: &[(&str, Argument)] = &[
    ("allow-0rtt", Nothing),
    ("alpn", Word),
    ("backup", Nothing),
    ("check", Nothing),
    ("check-alpn", Word),
    ("check-pool-conn-name", Word),
    ("check-proto", Word),
    ("check-reuse-pool", Nothing),
    ("check-send-proxy", Nothing),
    ("check-sni", Word),
    ("check-ssl", Nothing),
    ("ciphers", Word),
    ("ciphersuites", Word),
    ("client-sigalgs", Word),
    ("cookie", Word),
    ("curves", Word),
    ("disabled", Nothing),
    ("downinter", Time),
    ("enabled", Nothing),
    ("error-limit", Number(i32::MAX as u64)),
    ("fall", Number(i32::MAX as u64)),
    ("fastinter", Time),
    ("force-sslv3", Nothing),
    ("force-tlsv10", Nothing),
    ("force-tlsv11", Nothing),
    ("force-tlsv12", Nothing),
    ("force-tlsv13", Nothing),
    ("guid", Word),
    ("hash-key", Word),
    ("id", Number(i32::MAX as u64)),
    ("idle-ping", Time),
    ("init-state", Word),
    ("inter", Time),
    ("log-bufsize", Number(i32::MAX as u64)),
    ("log-proto", Word),
    ("max-reuse", Number(i32::MAX as u64)),
    ("maxconn", Number(i32::MAX as u64)),
    ("maxqueue", Number(i32::MAX as u64)),
    ("minconn", Number(i32::MAX as u64)),
    ("no-backup", Nothing),
    ("no-check", Nothing),
    ("no-check-send-proxy", Nothing),
    ("no-check-ssl", Nothing),
    ("no-send-proxy", Nothing),
    ("no-send-proxy-v2", Nothing),
    ("no-send-proxy-v2-ssl", Nothing),
    ("no-send-proxy-v2-ssl-cn", Nothing),
    ("no-ssl", Nothing),
    ("no-ssl-reuse", Nothing),
    ("no-sslv3", Nothing),
    ("no-tfo", Nothing),
    ("no-tls-tickets", Nothing),
    ("no-tlsv10", Nothing),
    ("no-tlsv11", Nothing),
    ("no-tlsv12", Nothing),
    ("no-tlsv13", Nothing),
    ("no-verifyhost", Nothing),
    ("non-stick", Nothing),
    ("npn", Word),
    ("observe", Word),
    ("on-error", Word),
    ("on-marked-down", Word),
    ("on-marked-up", Word),
    ("pool-conn-name", Word),
    ("pool-low-conn", Number(i32::MAX as u64)),
    ("pool-max-conn", Number(i32::MAX as u64)),
    ("pool-purge-delay", Time),
    ("port", Number(65_535)),
    ("proto", Word),
    ("proxy-v2-options", Word),
    ("resolve-net", Word),
    ("resolve-opts", Word),
    ("resolve-prefer", Word),
    ("rise", Number(i32::MAX as u64)),
    ("send-proxy", Nothing),
    ("send-proxy-v2", Nothing),
    ("send-proxy-v2-ssl", Nothing),
    ("send-proxy-v2-ssl-cn", Nothing),
    ("shard", Number(i32::MAX as u64)),
    ("sigalgs", Word),
    ("slowstart", Time),
    ("sni", Word),
    ("sni-auto", Nothing),
    ("ssl", Nothing),
    ("ssl-max-ver", Word),
    ("ssl-min-ver", Word),
    ("ssl-reuse", Nothing),
    ("stick", Nothing),
    ("strict-maxconn", Nothing),
    ("tcp-md5sig", Word),
    ("tcp-ut", Time),
    ("tfo", Nothing),
    ("tls-tickets", Nothing),
    ("track", Track),
    ("verify", Word),
    ("verifyhost", Word),
    ("weight", Number(256)),
    ("ws", Word),
];

/// Keywords that name a file, another host or a redirect, with the number of their arguments: a registration must not say
/// where traffic, checks or secrets go.
const DENIED: &[(&str, usize)] = &[
    ("addr", 1),
    ("agent-addr", 1),
    ("agent-check", 0),
    ("agent-inter", 1),
    ("agent-port", 1),
    ("agent-send", 1),
    ("ca-file", 1),
    ("check-via-socks4", 0),
    ("crl-file", 1),
    ("crt", 1),
    ("init-addr", 1),
    ("interface", 1),
    ("namespace", 1),
    ("redir", 1),
    ("resolvers", 1),
    ("socks4", 1),
    ("source", 1),
    ("usesrc", 1),
];

/// Checks the words that a registration asks for. `allowed` are denied keywords that the operator permits, `servers` tells
/// which names can be tracked.
///
/// # Errors
/// What is wrong with them: that registration is left out, so that it alone suffers.
pub fn check(text: &str, allowed: &[String], servers: &dyn Fn(&str) -> bool) -> Result<(), String> {
    let mut words = text.split([' ', '\t']).filter(|w| !w.is_empty());
    if let Some(bad) = words.clone().find(|w| !is_safe_word(w) || w.contains('#')) {
        return Err(format!("{bad:?} has a character that does not belong into a server line"));
    }
    while let Some(word) = words.next() {
        let permitted = allowed.iter().any(|a| a == word);
        let argument = match (KEYWORDS.iter().find(|(k, _)| *k == word), DENIED.iter().find(|(k, _)| *k == word)) {
            (Some((_, argument)), _) => *argument,
            (None, Some((_, arguments))) if permitted => {
                if *arguments == 0 {
                    Nothing
                } else {
                    Word
                }
            }
            (None, Some(_)) => {
                return Err(format!("{word} names a file, another host or a redirect, which a registration may not"));
            }
            (None, None) if permitted => Nothing,
            (None, None) => return Err(format!("{word:?} is no server keyword of HAProxy")),
        };
        let mut next = || words.next().ok_or_else(|| format!("{word} without its value"));
        match argument {
            Nothing => {}
            Word => _ = next()?,
            Number(most) => {
                let value = next()?;
                value
                    .parse::<u64>()
                    .ok()
                    .filter(|n| *n <= most)
                    .ok_or_else(|| format!("{word} {value}: no number up to {most}"))?;
            }
            Time => {
                let value = next()?;
                let unit = value.trim_start_matches(|c: char| c.is_ascii_digit());
                let good = unit.len() < value.len()
                    && value.len() < 10
                    && matches!(unit, "" | "us" | "ms" | "s" | "m" | "h" | "d");
                good.then_some(()).ok_or_else(|| format!("{word} {value}: no time such as 2s"))?;
            }
            Track => {
                let value = next()?;
                servers(value).then_some(()).ok_or_else(|| format!("track {value}: no such server in this section"))?;
            }
        }
    }
    Ok(())
}

/// The number behind the word `id`, if it is there: such a server is not given another.
pub fn id(text: &str) -> Option<Option<u32>> {
    let mut words = text.split([' ', '\t']).filter(|w| !w.is_empty());
    words.find(|w| *w == "id")?;
    Some(words.next().and_then(|n| n.parse().ok()))
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

    #[test]
    fn what_a_registration_may_ask_for() {
        let check = |t: &str| check(t, &["addr".to_owned()], &|s| s == "a");
        for good in [
            "",
            "check inter 2s rise 3",
            "backup weight 0",
            "id 4",
            "track a",
            "addr 10.0.0.1 port 80",
            "ssl verify none",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "crt /etc/passwd",
            "weight 257",
            "weight",
            "inter soon",
            "quux",
            "check \"x",
            "check #",
            "track b",
            "redir http://x",
            "agent-check",
            "a;b",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
