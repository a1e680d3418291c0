//! The vocabulary: `register.*` labels, Registrator's `SERVICE_*` by label and environment, and nginx-proxy's `VIRTUAL_*`, read into
//! one list of entries, from which a [`PortView`] picks what counts for one port.

use std::collections::BTreeMap;

use super::container::Container;
use super::decision::Skip;
use super::naming::excerpt;
use super::values;
use crate::{Port, Transport};

/// Our own prefix.
const OWN: &str = "register.";
/// Registrator's.
const SERVICE: &str = "SERVICE_";

/// Every key that `register.` may be followed by, with or without a port in between.
pub const KEYS: &[&str] = &[
    "service",
    "id",
    "ignore",
    "tags",
    "port",
    "service-port",
    "mode",
    "proto",
    "weight",
    "network",
    "address",
    "vhost",
    "sni",
    "path",
    "strip-prefix",
    "priority",
    "sticky",
    "redirect-https",
    "health",
    "replaces",
    "drain",
    "warmup",
    "rise",
    "fall",
    "check",
    "check.path",
    "check.port",
    "check.interval",
    "check.timeout",
    "check.rise",
    "check.fall",
    "check.start-period",
    "check.jitter",
    "check.method",
    "check.host",
    "check.header",
    "check.status",
    "check.body",
    "check.ca",
    "check.sni",
    "check.insecure",
    "check.command",
    "check.service",
    "check.tls",
    "check.user",
    "check.password",
    "check.vhost",
];

/// The checks of Registrator's that are run here. The others (CHECK_TTL, CHECK_SCRIPT, …) mean something to Consul only; they are
/// named in a warning and passed over.
const CHECKS: &[&str] =
    &["http", "https", "tcp", "grpc", "cmd", "interval", "timeout", "method", "http_method", "https_method"];

/// Labels with these in their names hold what no message may show.
const SECRETS: [&str; 4] = ["check.password", "check.header", "check.command", "check_cmd"];
/// Attributes above this many bytes are left out: the registry's values have a limit, and the rest should fit.
const MAX_ATTRIBUTE: usize = 1024;
/// And so many bytes of them in all are taken of one container.
const MAX_ATTRIBUTES: usize = 6 * 1024;

/// Which ports an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LabelPorts {
    All,
    Range(u16, u16),
    One(u16),
}

/// Where an entry was written; of equally narrow entries the first kind wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LabelSource {
    Own,
    Label,
    Env,
    Virtual,
}

/// A port that a label lists, and its transport where the label says one.
pub type ListedPort = (Port, Option<Transport>);

/// One label or variable of the vocabulary.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    ports: LabelPorts,
    transport: Option<Transport>,
    source: LabelSource,
    /// The canonical key, `attr:…` for Registrator's attributes.
    key: String,
    /// The value, blanks around it removed; never empty.
    pub value: &'a str,
    /// The label or variable as it was written.
    name: &'a str,
}

impl Entry<'_> {
    /// How the trail names it.
    pub fn origin(&self) -> String {
        match self.source {
            LabelSource::Env => format!("variable {}", self.name),
            // By label or by environment: nginx-proxy's users know which.
            LabelSource::Virtual => excerpt(self.name),
            _ => format!("label {}", self.name),
        }
    }

    /// The refusal of its value.
    pub fn bad(&self, accepted: impl Into<String>) -> Skip {
        let secret = SECRETS.iter().any(|part| self.name.to_ascii_lowercase().contains(part));
        let value = if secret { "***".into() } else { excerpt(self.value) };
        Skip::BadLabel { label: excerpt(self.name), value, accepted: accepted.into() }
    }

    /// Whether a switch is set, as the vocabulary that it is written in reads it.
    pub fn is_yes(&self) -> bool {
        match self.source {
            LabelSource::Own | LabelSource::Virtual => values::is_set(self.value),
            LabelSource::Label | LabelSource::Env => values::is_set_for_registrator(self.value),
        }
    }

    /// The entry names a transport.
    pub fn is_per_transport(&self) -> bool {
        self.transport.is_some()
    }

    /// The entry names the port it is about.
    pub fn is_per_port(&self) -> bool {
        matches!(self.ports, LabelPorts::One(_))
    }

    /// The entry is about all ports.
    pub fn is_for_all(&self) -> bool {
        self.ports == LabelPorts::All
    }

    /// Narrower first, then label before variable.
    fn rank(&self) -> (u8, LabelSource) {
        let narrowness = match (self.ports, self.transport) {
            (LabelPorts::One(_), Some(_)) => 0,
            (LabelPorts::One(_), None) => 1,
            (LabelPorts::Range(..), Some(_)) => 2,
            (LabelPorts::Range(..), None) => 3,
            (LabelPorts::All, _) => 4,
        };
        (narrowness, self.source)
    }

    /// Whether the entry is about this port.
    pub fn covers(&self, port: Port, transport: Transport) -> bool {
        let ports = match self.ports {
            LabelPorts::All => true,
            LabelPorts::One(one) => one == port.get(),
            LabelPorts::Range(from, to) => (from..=to).contains(&port.get()),
        };
        ports && self.transport.is_none_or(|t| t == transport)
    }
}

/// All that a container says in the vocabulary.
#[derive(Debug, Default)]
pub struct Vocabulary<'a> {
    entries: Vec<Entry<'a>>,
    /// What was not understood, and changed nothing.
    pub warnings: Vec<String>,
    /// The bytes of attributes taken so far.
    attributes: usize,
}

impl<'a> Vocabulary<'a> {
    /// Reads a container's labels and environment. Nothing here can fail: values are judged when they are used.
    pub fn read(container: &'a Container) -> Self {
        let mut found = Self::default();
        for (name, value) in &container.labels {
            if let Some(rest) = name.strip_prefix(OWN) {
                found.own(name, rest, value);
            } else if let Some(rest) = name.strip_prefix(SERVICE) {
                found.registrator(name, rest, value, LabelSource::Label);
            } else {
                found.other_proxies(name, value);
            }
        }
        for (name, value) in &container.env {
            if let Some(rest) = name.strip_prefix(SERVICE) {
                found.registrator(name, rest, value, LabelSource::Env);
            } else {
                found.other_proxies(name, value);
            }
        }
        found
    }

    fn push(&mut self, entry: Entry<'a>) {
        // An empty value is what Compose makes of an unset variable: it says nothing.
        if !entry.value.is_empty() {
            self.entries.push(entry);
        }
    }

    /// `register.KEY`, `register.PORT.KEY`, `register.PORT.udp.KEY`, `register.FROM-TO.KEY`.
    fn own(&mut self, name: &'a str, rest: &str, value: &'a str) {
        let (ports, rest) = split_ports(rest, '.').unwrap_or((LabelPorts::All, rest));
        let (transport, key) = match rest.split_once('.') {
            Some(("tcp", key)) if ports != LabelPorts::All => (Some(Transport::Tcp), key),
            Some(("udp", key)) if ports != LabelPorts::All => (Some(Transport::Udp), key),
            _ => (None, rest),
        };
        let known = KEYS.contains(&key) || key.strip_prefix("check.header.").is_some_and(|header| !header.is_empty());
        if !known || (key == "port" && ports != LabelPorts::All) {
            let meant = nearest(key).map(|known| format!(" (did you mean {known:?}?)")).unwrap_or_default();
            self.warnings.push(format!("label {} is not known{meant}", excerpt(name)));
            return;
        }
        self.push(Entry { ports, transport, source: LabelSource::Own, key: key.to_owned(), value: value.trim(), name });
    }

    /// `SERVICE_X`, `SERVICE_PORT_X`, `SERVICE_PORT_udp_X`, `SERVICE_FROM-TO_X`; X in any case.
    fn registrator(&mut self, name: &'a str, rest: &str, value: &'a str, source: LabelSource) {
        let (ports, rest) = split_ports(rest, '_').unwrap_or((LabelPorts::All, rest));
        let lower = rest.to_lowercase();
        let (transport, key) = match lower.split_once('_') {
            Some(("tcp", key)) if ports != LabelPorts::All => (Some(Transport::Tcp), key),
            Some(("udp", key)) if ports != LabelPorts::All => (Some(Transport::Udp), key),
            _ => (None, lower.as_str()),
        };
        let key = match key {
            "" => return,
            "name" => "service".to_owned(),
            "id" | "tags" | "ignore" => key.to_owned(),
            _ => match key.strip_prefix("check_") {
                Some(check) if CHECKS.contains(&check) => format!("sr.check_{check}"),
                Some(_) => {
                    self.warnings.push(format!("{} is not among the checks that are run here", excerpt(name)));
                    return;
                }
                None if value.len() > MAX_ATTRIBUTE || value.chars().chain(key.chars()).any(char::is_control) => {
                    self.warnings.push(format!(
                        "{} is left out of the labels: its value is above {MAX_ATTRIBUTE} bytes or has control characters",
                        excerpt(name)
                    ));
                    return;
                }
                None if self.attributes + key.len() + value.len() > MAX_ATTRIBUTES => {
                    self.warnings
                        .push(format!("{} is left out: {MAX_ATTRIBUTES} bytes of attributes are taken", excerpt(name)));
                    return;
                }
                None => {
                    self.attributes += key.len() + value.len();
                    format!("attr:{key}")
                }
            },
        };
        self.push(Entry { ports, transport, source, key, value: value.trim(), name });
    }

    /// `VIRTUAL_*`, usually variables; and the network on which another proxy was to reach the container.
    fn other_proxies(&mut self, name: &'a str, value: &'a str) {
        let key = match name {
            "VIRTUAL_HOST" => "virtual.host",
            "VIRTUAL_PORT" => "virtual.port",
            "VIRTUAL_PATH" => "virtual.path",
            "VIRTUAL_DEST" => "virtual.dest",
            "VIRTUAL_PROTO" => "virtual.proto",
            "VIRTUAL_HOST_MULTIPORTS" => "virtual.host-multiports",
            "NETWORK_ACCESS" => "virtual.access",
            "HTTPS_METHOD" => "virtual.https-method",
            "com.github.nginx-proxy.nginx-proxy.ssl_verify_client" => "virtual.client-certificates",
            "traefik.docker.network" | "caddy_ingress_network" => "proxy.network",
            _ => return,
        };
        let value = value.trim();
        self.push(Entry {
            ports: LabelPorts::All,
            transport: None,
            source: LabelSource::Virtual,
            key: key.into(),
            value,
            name,
        });
    }

    /// What is said of the container as a whole.
    pub fn whole(&self, key: &str) -> Option<&Entry<'a>> {
        let plain = self.entries.iter().filter(|e| e.ports == LabelPorts::All && e.key == key);
        plain.min_by_key(|e| e.rank())
    }

    /// The ports that `register.port` lists, if it is there; a port without a transport is of either.
    ///
    /// # Errors
    /// [`Skip::BadLabel`] for a list that cannot be read.
    pub fn listed(&self) -> Result<Option<Vec<ListedPort>>, Skip> {
        let list = |entry: &Entry<'_>| values::port_list(entry.value).ok_or_else(|| entry.bad(values::PORT_LIST));
        self.whole("port").map(list).transpose()
    }

    /// All entries for a key, whichever ports they are about.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &Entry<'a>> {
        self.entries.iter().filter(move |entry| entry.key == key)
    }

    /// What counts for one port.
    pub fn at(&self, port: Port, transport: Transport) -> PortView<'_, 'a> {
        PortView { vocabulary: self, port, transport }
    }
}

/// What counts for one port: of all entries for a key the narrowest, and of those the label.
#[derive(Debug, Clone, Copy)]
pub struct PortView<'v, 'a> {
    vocabulary: &'v Vocabulary<'a>,
    port: Port,
    transport: Transport,
}

impl<'v, 'a> PortView<'v, 'a> {
    /// The entry for a key, if anything was said.
    pub fn get(&self, key: &str) -> Option<&'v Entry<'a>> {
        self.covering().filter(|e| e.key == key).min_by_key(|e| e.rank())
    }

    /// Whether any entry names this port, by its number or in a range.
    pub fn is_named(&self) -> bool {
        self.covering().any(|entry| entry.ports != LabelPorts::All)
    }

    /// The value for a key, read by `parse`.
    ///
    /// # Errors
    /// [`Skip::BadLabel`] saying what is `accepted`.
    pub fn read<T>(&self, key: &str, accepted: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Skip> {
        self.get(key).map(|entry| parse(entry.value).ok_or_else(|| entry.bad(accepted))).transpose()
    }

    /// All entries whose key begins with `prefix`, the rest of the key with the entry that counts, in key order.
    pub fn under(&self, prefix: &str) -> BTreeMap<&'v str, &'v Entry<'a>> {
        let mut found: BTreeMap<&str, &Entry<'_>> = BTreeMap::new();
        for entry in self.covering() {
            let Some(rest) = entry.key.strip_prefix(prefix) else { continue };
            let best = found.entry(rest).or_insert(entry);
            if entry.rank() < best.rank() {
                *best = entry;
            }
        }
        found
    }

    fn covering(&self) -> impl Iterator<Item = &'v Entry<'a>> {
        let (port, transport) = (self.port, self.transport);
        self.vocabulary.entries.iter().filter(move |e| e.covers(port, transport))
    }
}

/// The port or range before the first `separator`, and what follows.
fn split_ports(text: &str, separator: char) -> Option<(LabelPorts, &str)> {
    let (first, rest) = text.split_once(separator)?;
    let number = |text: &str| text.parse::<Port>().ok().filter(|_| !text.starts_with('+')).map(Port::get);
    let ports = match first.split_once('-') {
        Some((from, to)) => match (number(from)?, number(to)?) {
            (from, to) if from <= to => LabelPorts::Range(from, to),
            _ => return None,
        },
        None => LabelPorts::One(number(first)?),
    };
    Some((ports, rest))
}

/// The known key that a mistyped one most resembles, if it is near.
fn nearest(key: &str) -> Option<&'static str> {
    let key = key.to_ascii_lowercase().replace('_', "-");
    if key.len() > 40 {
        return None;
    }
    let nearest = KEYS.iter().map(|known| (strsim::levenshtein(&key, known), *known)).min()?;
    (nearest.0 <= 2).then_some(nearest.1)
}
