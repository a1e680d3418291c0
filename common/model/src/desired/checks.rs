//! Which checks the labels of one port ask for.

use std::time::Duration;

use super::check_spec::{CheckKind, CheckSpec, HttpCheck, PeerTls, Secret, StatusSet};
use super::decision::Skip;
use super::labels::{Entry, PortView};
use super::values::{self, DURATION};
use crate::Port;

const KINDS: &str = "a comma list of docker, tcp, http, https, grpc, exec, redis, rabbitmq and noop";
const METHODS: &str = "an HTTP method";
const REQUEST_TARGET: &str = "a path of at most 1024 printable characters that begins with /";
const COUNT: &str = "a whole number from 1 to 1000";
const LINE: &str = "1 to 1024 characters without control characters";
const HOST: &str = "a host name or an address";

/// The checks for one port, in the order in which they were named; empty where none was asked for.
///
/// # Errors
/// [`Skip::BadLabel`] for what cannot be a check: a backend that its owner wants checked is not published unchecked.
pub fn read(view: &PortView<'_, '_>) -> Result<Vec<CheckSpec>, Skip> {
    let mut kinds = own(view)?;
    if kinds.is_empty() {
        kinds = registrators(view)?;
    }
    kinds.into_iter().map(|kind| timed(view, kind)).collect()
}

/// `register.check=http,tcp` with `register.check.*`. A `check.path` alone asks for http, a `check.command` for exec.
fn own(view: &PortView<'_, '_>) -> Result<Vec<CheckKind>, Skip> {
    let Some(entry) = view.get("check") else {
        return Ok(match (view.get("check.path"), view.get("check.command")) {
            (Some(_), _) => vec![http(view, None)?],
            (None, Some(_)) => vec![exec(view)?],
            (None, None) => Vec::new(),
        });
    };
    let one = |word: &str| match word.trim().to_ascii_lowercase().as_str() {
        "docker" => Ok(CheckKind::Docker),
        "tcp" => Ok(CheckKind::Tcp),
        "http" => http(view, None),
        "https" => http(view, Some(peer(view)?)),
        "grpc" => Ok(CheckKind::Grpc {
            service: line(view, "check.service")?.unwrap_or_default(),
            tls: match view.read("check.tls", "true or false", values::switch)? {
                Some(true) => Some(peer(view)?),
                Some(false) | None => None,
            },
        }),
        "exec" => exec(view),
        "redis" => Ok(CheckKind::Redis { password: line(view, "check.password")?.map(Secret) }),
        "rabbitmq" => Ok(CheckKind::Rabbitmq {
            user: line(view, "check.user")?,
            password: line(view, "check.password")?.map(Secret),
            vhost: line(view, "check.vhost")?.unwrap_or_else(|| "/".to_owned()),
        }),
        "noop" | "none" => Ok(CheckKind::Noop),
        _ => Err(entry.bad(KINDS)),
    };
    entry.value.split(',').take(16).map(one).collect()
}

fn peer(view: &PortView<'_, '_>) -> Result<PeerTls, Skip> {
    Ok(PeerTls {
        ca: line(view, "check.ca")?.map(Into::into),
        sni: host(view, "check.sni")?,
        insecure: view.read("check.insecure", "true or false", values::switch)?.unwrap_or(false),
    })
}

fn http(view: &PortView<'_, '_>, tls: Option<PeerTls>) -> Result<CheckKind, Skip> {
    let defaults = HttpCheck::default();
    let mut headers = Vec::new();
    for (name, entry) in view.under("check.header.") {
        let token = name.len() <= 128 && name.bytes().all(is_token);
        let value = text(entry.value).filter(|_| token);
        headers.push((name.to_owned(), Secret(value.ok_or_else(|| entry.bad("a header's value"))?)));
    }
    if let Some(entry) = view.get("check.header") {
        let split = entry.value.split_once(':').filter(|(name, _)| !name.is_empty() && name.bytes().all(is_token));
        let header = split.and_then(|(name, value)| Some((name.to_owned(), Secret(text(value.trim())?))));
        headers.push(header.ok_or_else(|| entry.bad("`Name: value`"))?);
    }
    Ok(CheckKind::Http(Box::new(HttpCheck {
        tls,
        method: view.read("check.method", METHODS, method)?.unwrap_or(defaults.method),
        path: view.read("check.path", REQUEST_TARGET, target)?.unwrap_or(defaults.path),
        host: host(view, "check.host")?,
        headers,
        status: view
            .read("check.status", "status codes such as 200, 200-299 or 2xx, with commas between", StatusSet::parse)?
            .unwrap_or_default(),
        body: line(view, "check.body")?,
    })))
}

fn exec(view: &PortView<'_, '_>) -> Result<CheckKind, Skip> {
    let accepted = "a command (label check.command)";
    match view.get("check.command") {
        Some(entry) => command(entry),
        None => match view.get("check") {
            Some(check) => Err(check.bad(format!("complete without {accepted}"))),
            None => Ok(CheckKind::Noop),
        },
    }
}

/// A JSON array is the program with its arguments; anything else is a line for the container's shell.
fn command(entry: &Entry<'_>) -> Result<CheckKind, Skip> {
    const ACCEPTED: &str = "a shell command, or a JSON array of strings";
    if entry.value.contains('\0') || entry.value.len() > 4096 {
        return Err(entry.bad(ACCEPTED));
    }
    if entry.value.starts_with('[')
        && let Ok(command) = serde_json::from_str::<Vec<String>>(entry.value)
    {
        return if command.is_empty() { Err(entry.bad(ACCEPTED)) } else { Ok(CheckKind::Exec { command }) };
    }
    Ok(CheckKind::Exec { command: vec!["sh".to_owned(), "-c".to_owned(), entry.value.to_owned()] })
}

/// Registrator's `SERVICE_[<port>_]CHECK_*`. It drops them with etcd; here they work.
fn registrators(view: &PortView<'_, '_>) -> Result<Vec<CheckKind>, Skip> {
    let mut kinds = Vec::new();
    for (key, tls) in [("http", None), ("https", Some(PeerTls::default()))] {
        let Some(path) = view.read(&format!("sr.check_{key}"), REQUEST_TARGET, target)? else { continue };
        let own_method = view.read(&format!("sr.check_{key}_method"), METHODS, method)?;
        let method = own_method.or(view.read("sr.check_method", METHODS, method)?);
        let method = method.unwrap_or_else(|| "GET".to_owned());
        kinds.push(CheckKind::Http(Box::new(HttpCheck { tls, method, path, ..HttpCheck::default() })));
    }
    if view.get("sr.check_tcp").is_some_and(Entry::is_yes) {
        kinds.push(CheckKind::Tcp);
    }
    if view.get("sr.check_grpc").is_some_and(Entry::is_yes) {
        kinds.push(CheckKind::Grpc { service: String::new(), tls: None });
    }
    if let Some(entry) = view.get("sr.check_cmd") {
        kinds.push(command(entry)?);
    }
    Ok(kinds)
}

/// The intervals and counts that all checks of a port share.
fn timed(view: &PortView<'_, '_>, kind: CheckKind) -> Result<CheckSpec, Skip> {
    let spec = CheckSpec::new(kind);
    let time = |own: &str, registrators: &str| match view.read(own, DURATION, values::duration)? {
        Some(time) => Ok(Some(time)),
        None => view.read(registrators, DURATION, values::duration),
    };
    let count = |own: &str, short: &str| match view.read(own, COUNT, count)? {
        Some(count) => Ok(Some(count)),
        None => view.read(short, COUNT, self::count),
    };
    let interval = time("check.interval", "sr.check_interval")?.unwrap_or(spec.interval);
    let timeout = time("check.timeout", "sr.check_timeout")?.unwrap_or(spec.timeout);
    Ok(CheckSpec {
        port: view.read("check.port", "a port, 1 to 65535", |text| text.parse::<Port>().ok())?,
        interval,
        timeout: timeout.min(interval),
        rise: count("check.rise", "rise")?.unwrap_or(spec.rise),
        fall: count("check.fall", "fall")?.unwrap_or(spec.fall),
        start_period: time("check.start-period", "")?.unwrap_or(Duration::ZERO),
        jitter: time("check.jitter", "")?.unwrap_or(interval / 10).min(interval / 2),
        ..spec
    })
}

fn count(text: &str) -> Option<u32> {
    text.parse().ok().filter(|count| (1..=1000).contains(count))
}

fn line(view: &PortView<'_, '_>, key: &str) -> Result<Option<String>, Skip> {
    view.read(key, LINE, text)
}

fn host(view: &PortView<'_, '_>, key: &str) -> Result<Option<String>, Skip> {
    view.read(key, HOST, |text| text.parse::<crate::Host>().ok().map(|_| text.to_owned()))
}

fn text(text: &str) -> Option<String> {
    (text.len() <= 1024 && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

fn method(text: &str) -> Option<String> {
    ((1..=32).contains(&text.len()) && text.bytes().all(is_token)).then(|| text.to_ascii_uppercase())
}

fn target(text: &str) -> Option<String> {
    (text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
}

/// RFC 9110 section 5.6.2, `tchar`.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
