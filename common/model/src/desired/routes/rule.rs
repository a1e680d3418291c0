//! Traefik's rules, as far as they are hosts and path prefixes: parsed into a list of alternatives.
//!
//! Source: Traefik's reference, "Rules & Priority": matchers with values between backticks or double quotes, `&&` before `||`,
//! parentheses, `!`. A text of any other kind is an error; a matcher that no route has spoils the alternatives that it is part of.

use super::bounded;
use crate::desired::naming::excerpt;
use crate::{HostPattern, PathPrefix};

/// The most alternatives that a rule may come to.
const MOST_TERMS: usize = 64;
/// How deep parentheses may be nested.
const MOST_DEPTH: usize = 16;

/// One alternative: a host, a path, or both; `None` stands for any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The host.
    pub host: Option<HostPattern>,
    /// The path.
    pub path: Option<PathPrefix>,
}

/// Alternatives, each good or not to be imported.
pub type Terms = Vec<Result<Term, String>>;

/// What a rule is about, and so which matchers it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Requests: `Host` and `PathPrefix`.
    Requests,
    /// Connections: `HostSNI`.
    Connections,
}

/// Reads a rule.
///
/// # Errors
/// What is wrong with its grammar, or that it comes to too much.
pub fn parse(rule: &str, kind: Kind) -> Result<Terms, String> {
    let mut parser = Parser { whole: rule.len(), rest: bounded(rule)?, depth: 0, kind };
    let terms = parser.alternatives()?;
    match parser.peek() {
        "" => Ok(terms),
        _ => Err(format!("the rule goes on where it should end, {}", parser.place())),
    }
}

struct Parser<'a> {
    whole: usize,
    rest: &'a str,
    depth: usize,
    kind: Kind,
}

impl<'a> Parser<'a> {
    fn peek(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    /// Where the parser is. A rule may hold secrets, such as a header's value, so it is not quoted.
    fn place(&self) -> String {
        format!("at byte {}", self.whole - self.rest.len() + 1)
    }

    fn eat(&mut self, token: &str) -> bool {
        let after = self.peek().strip_prefix(token);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(format!("{token:?} is missing {}", self.place())) }
    }

    fn alternatives(&mut self) -> Result<Terms, String> {
        let mut terms = self.conjunction()?;
        while self.eat("||") {
            terms.extend(self.conjunction()?);
            few(terms.len())?;
        }
        Ok(terms)
    }

    fn conjunction(&mut self) -> Result<Terms, String> {
        let mut terms = self.single()?;
        while self.eat("&&") {
            let others = self.single()?;
            few(terms.len() * others.len())?;
            let both = |a: &Result<Term, String>| others.iter().map(|b| combine(a, b)).collect::<Terms>();
            terms = terms.iter().flat_map(both).collect();
        }
        Ok(terms)
    }

    fn single(&mut self) -> Result<Terms, String> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return Err(format!("parentheses are nested deeper than {MOST_DEPTH}"));
        }
        let terms = if self.eat("!") {
            self.single()?;
            vec![Err("! cannot be imported".to_owned())]
        } else if self.eat("(") {
            let terms = self.alternatives()?;
            self.expect(")")?;
            terms
        } else {
            self.matcher()?
        };
        self.depth -= 1;
        Ok(terms)
    }

    /// `Name(VALUE, …)`.
    fn matcher(&mut self) -> Result<Terms, String> {
        let text = self.peek();
        let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        if name.is_empty() {
            return Err(format!("a matcher such as Host(`…`) is missing {}", self.place()));
        }
        self.rest = rest;
        self.expect("(")?;
        let mut values = vec![self.value()?];
        while self.eat(",") {
            values.push(self.value()?);
        }
        self.expect(")")?;
        few(values.len())?;
        Ok(match (self.kind, name.to_ascii_lowercase().as_str()) {
            (Kind::Requests, "host" | "hostheader") => values.into_iter().map(host).collect(),
            (Kind::Requests, "pathprefix") => values.into_iter().map(path).collect(),
            (Kind::Requests, _) => {
                vec![Err(format!("{}(…) cannot be imported, Host and PathPrefix can", excerpt(name)))]
            }
            (Kind::Connections, "hostsni") => values.into_iter().map(host).collect(),
            (Kind::Connections, _) => vec![Err(format!("{}(…) cannot be imported, HostSNI can", excerpt(name)))],
        })
    }

    /// A text between backticks or double quotes.
    fn value(&mut self) -> Result<&'a str, String> {
        let quote = if self.eat("`") {
            '`'
        } else {
            self.expect("\"").map_err(|_| format!("a value between backticks is missing {}", self.place()))?;
            '"'
        };
        let (value, rest) = self.rest.split_once(quote).ok_or_else(|| format!("the closing {quote} is missing"))?;
        if quote == '"' && value.contains('\\') {
            return Err("a backslash between double quotes is not read".to_owned());
        }
        self.rest = rest;
        Ok(value)
    }
}

fn few(terms: usize) -> Result<(), String> {
    if terms <= MOST_TERMS { Ok(()) } else { Err(format!("the rule comes to more than {MOST_TERMS} alternatives")) }
}

fn host(value: &str) -> Result<Term, String> {
    // In Traefik `*.` stands for one label, in a route for any number.
    if value.starts_with('*') {
        return Err(format!("the wildcard {:?} cannot be imported, label register.vhost can have one", excerpt(value)));
    }
    let host = value.trim().parse::<HostPattern>().map_err(|e| e.to_string())?;
    Ok(Term { host: Some(host), path: None })
}

fn path(value: &str) -> Result<Term, String> {
    let path = value.parse::<PathPrefix>().map_err(|e| e.to_string())?;
    Ok(Term { host: None, path: Some(path) })
}

/// What both ask for.
fn combine(a: &Result<Term, String>, b: &Result<Term, String>) -> Result<Term, String> {
    let (a, b) = (a.as_ref().map_err(Clone::clone)?, b.as_ref().map_err(Clone::clone)?);
    let host = match (&a.host, &b.host) {
        (Some(a), Some(b)) if a != b => return Err(format!("no request has both hosts, {a} and {b}")),
        (a, b) => a.clone().or_else(|| b.clone()),
    };
    let path = match (&a.path, &b.path) {
        (Some(a), Some(b)) if a.covers(b.as_str()) => Some(b.clone()),
        (Some(a), Some(b)) if b.covers(a.as_str()) => Some(a.clone()),
        (Some(a), Some(b)) => return Err(format!("no request has both paths, {a} and {b}")),
        (a, b) => a.clone().or_else(|| b.clone()),
    };
    Ok(Term { host, path })
}
