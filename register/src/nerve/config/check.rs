//! One check's object → what is tried.

use std::time::Duration;

use agent::config::Report;
use model::desired::{CheckKind, HttpCheck, PeerTls, Secret};
use model::{Host, Port};
use serde_json::{Map, Value};

use super::number::port as port_of;
use super::types::{CheckConf, Phases};

/// The words of `type`.
const KINDS: &str = "tcp, http, redis, rabbitmq, noop, grpc, exec, base";
/// Without a `timeout`.
const TIMEOUT: f64 = 1.0;

/// Reads the check at `path` of a service at `host` and `port`. `None`: it cannot be tried, and that was reported.
pub(super) fn read(
    fields: &Map<String, Value>,
    (host, port): (&Host, Port),
    path: &str,
    report: &mut Report,
) -> Option<CheckConf> {
    let before = report.errors.len();
    let mut reader = Reader { fields, path, report };
    let kind = reader.kind(host, port);
    let host = reader.host().unwrap_or_else(|| host.clone());
    let port = port_of(fields.get("port")).unwrap_or(port);
    let timeout = reader.seconds("timeout", TIMEOUT);
    let phase = |reader: &mut Reader<'_>, key| reader.seconds(key, timeout.as_secs_f64());
    let phases = Phases {
        open: phase(&mut reader, "open_timeout"),
        tls: phase(&mut reader, "ssl_timeout"),
        read: phase(&mut reader, "read_timeout"),
    };
    let is_http = matches!(kind, Some(CheckKind::Http(_)));
    let count = |key| fields.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
    let word = reader.text("type").unwrap_or_default().to_owned();
    let name = reader.text("name").map_or_else(|| format!("{word}-{host}:{port}"), str::to_owned);
    let (rise, fall) = (count("rise"), count("fall"));
    let unknown = report.errors.len() > before;
    Some(CheckConf {
        name,
        kind: kind.filter(|_| !unknown)?,
        host,
        port,
        timeout: if is_http { phases.total() } else { timeout },
        phases: is_http.then_some(phases),
        rise,
        fall,
        hopeless: word == "base",
    })
}

struct Reader<'a> {
    fields: &'a Map<String, Value>,
    path: &'a str,
    report: &'a mut Report,
}

impl Reader<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.fields.get(key).and_then(Value::as_str)
    }

    fn truth(&self, key: &str, default: bool) -> bool {
        self.fields.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    fn error(&mut self, key: &str, why: impl Into<String>) {
        self.report.error(&format!("{}.{key}", self.path), why);
    }

    fn host(&mut self) -> Option<Host> {
        let text = self.text("host")?.to_owned();
        text.parse().map_err(|e: model::HostError| self.error("host", e.to_string())).ok()
    }

    /// A time in seconds.
    fn seconds(&mut self, key: &str, default: f64) -> Duration {
        let seconds = self.fields.get(key).and_then(Value::as_f64).unwrap_or(default);
        match Duration::try_from_secs_f64(seconds).ok().filter(|d| (1..=3_600_000).contains(&d.as_millis())) {
            Some(time) => time,
            None => {
                self.error(key, format!("{seconds} is not between 0.001 and 3600 seconds"));
                Duration::from_secs(1)
            }
        }
    }

    fn kind(&mut self, host: &Host, port: Port) -> Option<CheckKind> {
        let Some(word) = self.text("type").map(str::to_owned) else {
            self.error("type", format!("is required: one of {KINDS}"));
            return None;
        };
        Some(match word.as_str() {
            "tcp" => CheckKind::Tcp,
            "http" => CheckKind::Http(Box::new(self.http(host, port)?)),
            "redis" => CheckKind::Redis { password: self.text("password").map(|p| Secret(p.to_owned())) },
            "rabbitmq" => CheckKind::Rabbitmq {
                user: Some(self.text("username").unwrap_or("guest").to_owned()),
                password: Some(Secret(self.text("password").unwrap_or("guest").to_owned())),
                vhost: self.text("vhost").unwrap_or("/").to_owned(),
            },
            "grpc" => {
                CheckKind::Grpc { service: self.text("service").unwrap_or_default().to_owned(), tls: self.peer(host) }
            }
            "exec" => CheckKind::Exec { command: self.command()? },
            "noop" | "base" => CheckKind::Noop,
            _ => {
                let gem =
                    self.text("module").map_or_else(String::new, |m| format!(" (the gem {m:?} cannot be loaded here)"));
                self.error("type", format!("{word:?} is none of {KINDS}{gem}"));
                return None;
            }
        })
    }

    fn http(&mut self, host: &Host, port: Port) -> Option<HttpCheck> {
        let uri = match self.text("uri") {
            Some(uri) if uri.starts_with('/') && uri.bytes().all(|b| b.is_ascii_graphic()) => uri.to_owned(),
            Some(uri) => {
                let why = format!("{uri:?} is not a path of printable characters that begins with /");
                self.error("uri", why);
                return None;
            }
            None => {
                self.error("uri", "is required for an http check");
                return None;
            }
        };
        let mut headers = Vec::new();
        for (name, value) in self.fields.get("headers").and_then(Value::as_object).into_iter().flatten() {
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b); // RFC 9110, section 5.6.2
            let value = value.as_str().unwrap_or_default();
            if name.is_empty()
                || !name.bytes().all(token)
                || value.bytes().any(|b| !(b == b'\t' || (32..127).contains(&b)))
            {
                self.error(&format!("headers.{name}"), "is no header");
                return None;
            }
            headers.push((name.clone(), Secret(value.to_owned())));
        }
        let host = self.host().unwrap_or_else(|| host.clone());
        let port = port_of(self.fields.get("port")).unwrap_or(port);
        let tls = self.peer(&host);
        // As a browser has it: the port only where it is not the scheme's own.
        let usual = if tls.is_some() { 443 } else { 80 };
        let shown = if port.get() == usual { host.to_string() } else { host.with_port(port) };
        Some(HttpCheck {
            tls,
            path: uri,
            host: Some(shown),
            headers,
            body: self.text("expect").map(str::to_owned),
            ..HttpCheck::default()
        })
    }

    /// The keys `ssl*` and `ca_file`; `None`: in the clear.
    fn peer(&mut self, host: &Host) -> Option<PeerTls> {
        self.truth("ssl", false).then(|| PeerTls {
            sni: Some(host.to_string()),
            ca: self.text("ca_file").map(Into::into),
            insecure: !self.truth("ssl_verify", true),
        })
    }

    fn command(&mut self) -> Option<Vec<String>> {
        let words: Vec<String> = self
            .fields
            .get("command")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|w| w.as_str().map(str::to_owned))
            .collect();
        match words.as_slice() {
            [] => {
                self.error("command", "is required for an exec check");
                None
            }
            [line] => Some(vec!["sh".to_owned(), "-c".to_owned(), line.clone()]),
            _ => Some(words),
        }
    }
}
