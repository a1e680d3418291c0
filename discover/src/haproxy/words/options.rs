//! What a registration may say on its server's line: a closed grammar.
//!
//! Registry writers are untrusted. So their words are data: [`parse`] reads each keyword with an argument of
//! a type (a number with a range, a time, a host, one of a list), and what is written to haproxy.cfg is made from what was
//! read, never the text itself. No argument is an expression, a path, a variable, or the name of another section.
//!
//! What HAProxy refuses in every version is refused here, so that it costs no check. What depends on the version, on the TLS
//! library or on the operator's own words is for `haproxy -c` to say.
//! Source: configuration manual, section 5.2, up to 3.4; ranges and combinations measured on HAProxy 2.6, 3.0 and 3.4.

use std::borrow::Cow;
use std::fmt;

use model::Mode;

use super::keywords::{DENIED, Kind, is_keyword, keyword};

/// The most bytes of all words of one registration.
const MOST_BYTES: usize = 1024;
/// The most words of one registration: HAProxy takes 64 on a line, and the operator's are there, too.
const MOST_WORDS: usize = 32;
/// The longest argument.
const MOST_ARGUMENT: usize = 256;
/// The longest time in milliseconds: HAProxy counts in 31 bits.
const MOST_MS: u64 = 2_147_483_647;

/// Where the words are to stand.
pub struct Place<'a> {
    /// The section's mode: it decides which protocols its servers may speak.
    pub mode: Mode,
    /// The section checks its servers by HTTP (`option httpchk`).
    pub http_checks: bool,
    /// Denied keywords that the operator permits (`haproxy.allow_registry_options`).
    pub allowed: &'a [String],
    /// Whether a server of that name can be tracked: one of the same section.
    pub tracked: &'a dyn Fn(&str) -> bool,
}

impl Place<'_> {
    /// A section whose servers are checked by a connection and track nobody.
    pub fn of_mode(mode: Mode) -> Self {
        Self { mode, http_checks: false, allowed: &[], tracked: &|_| false }
    }
}

/// A registration's words, each read. Shown as it stands in haproxy.cfg: one blank between two words, numbers and times without
/// leading zeros, a name for TLS as `str(NAME)`. Reading that gives the same again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options(Vec<Word>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    keyword: Cow<'static, str>,
    /// In its normal form.
    argument: Option<String>,
}

impl Options {
    fn argument(&self, keyword: &str) -> Option<&str> {
        self.0.iter().find(|w| w.keyword == keyword)?.argument.as_deref()
    }

    fn has(&self, keyword: &str) -> bool {
        self.0.iter().any(|w| w.keyword == keyword)
    }

    /// The server's number, 1 to 2147483647, where the registration brings one.
    pub fn id(&self) -> Option<u32> {
        self.argument("id")?.parse().ok()
    }

    /// Whose state it follows.
    pub fn tracks(&self) -> Option<&str> {
        self.argument("track")
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, word) in self.0.iter().enumerate() {
            let blank = if n > 0 { " " } else { "" };
            write!(f, "{blank}{}", word.keyword)?;
            if let Some(argument) = &word.argument {
                write!(f, " {argument}")?;
            }
        }
        Ok(())
    }
}

/// Reads the words of a registration, its templates filled in.
///
/// # Errors
/// The first thing that is wrong with them, in words for the operator.
pub fn parse(text: &str, place: &Place<'_>) -> Result<Options, String> {
    let options = read(text, place)?;
    fits(&options, place).map(|()| options)
}

/// The first word of an operator's that is no keyword of a server's line in any version of HAProxy, where one has to be.
pub fn unknown(text: &str) -> Option<&str> {
    let mut words = text.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let has_argument = match (keyword(word), DENIED.iter().find(|(name, _)| *name == word)) {
            (Some((_, kind)), _) => kind != Kind::Flag,
            (None, Some((_, has_argument))) => *has_argument,
            (None, None) => return Some(word),
        };
        if has_argument {
            words.next();
        }
    }
    None
}

/// Whether the words can be read, wherever they are to stand.
///
/// # Errors
/// As [`parse`], but for what their place has against them.
pub fn readable(text: &str, place: &Place<'_>) -> Result<(), String> {
    read(text, place).map(|_| ())
}

fn read(text: &str, place: &Place<'_>) -> Result<Options, String> {
    let mut words = text.split([' ', '\t']).filter(|w| !w.is_empty());
    if text.len() > MOST_BYTES || words.clone().count() > MOST_WORDS {
        return Err(format!("more than {MOST_WORDS} words or {MOST_BYTES} bytes"));
    }
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let (keyword, kind) = kind_of(word, place.allowed)?;
        if options.has(&keyword) {
            return Err(format!("{keyword} twice"));
        }
        let argument = match kind {
            Kind::Flag => None,
            kind => {
                let text = words.next().ok_or_else(|| format!("{keyword} without its value"))?;
                let read = argument(kind, text).filter(|_| !is_keyword(text));
                Some(read.ok_or_else(|| format!("{keyword} {}: it takes {kind}", shown(text)))?)
            }
        };
        options.0.push(Word { keyword, argument });
    }
    Ok(options)
}

/// A keyword as we have it, and what follows it.
fn kind_of(word: &str, allowed: &[String]) -> Result<(Cow<'static, str>, Kind), String> {
    if let Some((name, kind)) = keyword(word) {
        return Ok((Cow::Borrowed(name), kind));
    }
    let permitted = allowed.iter().any(|a| a == word);
    match DENIED.iter().find(|(name, _)| *name == word) {
        Some((name, takes)) if permitted => Ok((Cow::Borrowed(name), if *takes { Kind::Harmless } else { Kind::Flag })),
        Some((name, _)) => Err(format!(
            "{name} names a file, another host or a redirect, or reaches beyond its server, which a registration may not"
        )),
        // A keyword of a later HAProxy.
        None if permitted && harmless(word) => Ok((Cow::Owned(word.to_owned()), Kind::Flag)),
        None => Err(format!("{} is no server keyword that a registration may use", shown(word))),
    }
}

/// Odd text for a message.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(60).collect::<String>())
}

/// An argument of that kind in its normal form; `None` for all else.
fn argument(kind: Kind, text: &str) -> Option<String> {
    if text.len() > MOST_ARGUMENT {
        return None;
    }
    match kind {
        Kind::Flag => None,
        Kind::Number { min, max } => number(text).filter(|n| (min..=max).contains(n)).map(|n| n.to_string()),
        Kind::Time { min_ms } => time(text, min_ms),
        Kind::OneOf(list) => list.contains(&text).then(|| text.to_owned()),
        Kind::ListOf(list) => {
            let words: Vec<&str> = text.split(',').collect();
            let good = |(n, w): (usize, &&str)| list.contains(w) && !words[..n].contains(w);
            words.iter().enumerate().all(good).then(|| text.to_owned())
        }
        Kind::Text(extra) => of_alphabet(text, extra).then(|| text.to_owned()),
        Kind::Protocols => {
            let protocol = |w: &str| w.len() <= 32 && of_alphabet(w, b"./-");
            text.split(',').all(protocol).then(|| text.to_owned())
        }
        Kind::Host => host(text, b"-_").then(|| text.to_owned()),
        Kind::TlsName => {
            // A bare word with `_` looks like one of HAProxy's fetches, as `ssl_fc_sni`: it is refused, not taken for a name.
            let inner = text.strip_prefix("str(").and_then(|rest| rest.strip_suffix(')'));
            let good = inner.map_or_else(|| host(text, b"-"), |inner| host(inner, b"-_"));
            good.then(|| format!("str({})", inner.unwrap_or(text)))
        }
        Kind::Server => of_alphabet(text, b"_.:-").then(|| text.to_owned()),
        Kind::Harmless => harmless(text).then(|| text.to_owned()),
    }
}

/// A whole number in digits; -1 stands for "no limit" where the range has it.
fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let good = (1..=10).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| good)
}

/// A time as HAProxy reads it, in whole units; without a unit in milliseconds.
fn time(text: &str, min_ms: u64) -> Option<String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (value, unit) = text.split_at(digits);
    let value = u64::try_from(number(value)?).ok()?;
    let per_ms = match unit {
        "us" => return (value >= min_ms.saturating_mul(1000)).then(|| format!("{value}us")),
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    (min_ms..=MOST_MS).contains(&value.checked_mul(per_ms)?).then(|| format!("{value}{unit}"))
}

/// Letters, digits and `extra`, at least one.
fn of_alphabet(text: &str, extra: &[u8]) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

/// Labels between dots, as a host's name has them.
fn host(text: &str, extra: &[u8]) -> bool {
    text.len() <= 253 && text.split('.').all(|label| of_alphabet(label, extra) && label.len() <= 63)
}

/// What no reader of haproxy.cfg takes for more than a word: no `$`, `%`, quote, backslash, `#`, parenthesis or `;`.
pub(super) fn harmless(text: &str) -> bool {
    of_alphabet(text, b"_.:@/,=+*[]~-")
}

/// What HAProxy has against the words together, and against their place.
fn fits(options: &Options, place: &Place<'_>) -> Result<(), String> {
    match (place.mode, options.argument("proto")) {
        (Mode::Http, Some("none")) | (Mode::Tcp, Some("h1" | "h2")) => {
            return Err("proto is h1 or h2 where the service's mode is http, and none where it is tcp".to_owned());
        }
        _ => {}
    }
    // HAProxy goes on without it, with an alert that would be taken for the cause of another's failure.
    if place.mode == Mode::Tcp && options.argument("observe") == Some("layer7") {
        return Err("observe layer7 needs a service of mode http".to_owned());
    }
    match (place.http_checks, options.argument("check-proto")) {
        (true, Some("none")) | (false, Some("h1" | "h2")) => {
            return Err(
                "check-proto is h1 or h2 where checks are HTTP requests, and none where they are not".to_owned()
            );
        }
        _ => {}
    }
    if let Some(server) = options.tracks() {
        if !(place.tracked)(server) {
            return Err(format!("track {server}: no such server in this section"));
        }
        if options.has("check") {
            return Err("track and check exclude each other".to_owned());
        }
    }
    let version = |keyword| options.argument(keyword).unwrap_or_default();
    let (least, most) = (version("ssl-min-ver"), version("ssl-max-ver"));
    let off = ["no-tlsv10", "no-tlsv11", "no-tlsv12", "no-tlsv13"].iter().all(|w| options.has(w));
    if off || !most.is_empty() && least > most {
        return Err("no version of TLS is left".to_owned());
    }
    Ok(())
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
