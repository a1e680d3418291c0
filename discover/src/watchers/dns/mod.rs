//! `method: dns`: one backend for each address of some host names, or for each target of some SRV records.
//!
//! | module | what it holds |
//! |---|---|
//! | `resolver` | one question to name servers of our own choice, and what counts as an answer |
//! | `names` | the last answer of each question: one that fails keeps it, alone |
//! | `resolving` | the host names of any other watcher as addresses (zookeeper_dns) |

mod names;
mod resolver;
mod resolving;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::findings::Findings;
use super::poll::{Look, Pace, Poll, Polled};
use super::{About, BoxWatcher, Context, Faults, Method, MethodInput};
pub use names::{DnsNames, NamesError};
pub use resolver::{Answered, AskError, Found, Question, RecordKind, Resolver, name_servers};
pub use resolving::Resolving;

/// Between two looks, unless the config says otherwise or a TTL is shorter.
const EVERY_SECONDS: u64 = 30;
/// HAProxy's largest weight.
const MOST_WEIGHT: u32 = 256;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    servers: Vec<DnsServer>,
    nameserver: Vec<String>,
    check_interval: Option<f64>,
    discovery_jitter: Option<f64>,
}

/// One entry of `servers`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct DnsServer {
    name: Option<String>,
    host: String,
    port: Value,
    labels: Value,
    record: Option<String>,
}

impl DnsServer {
    /// `_service._proto.name` is an SRV record unless said otherwise.
    fn is_srv(&self) -> bool {
        match self.record.as_deref() {
            Some(record) => record == "srv",
            None => self.host.starts_with('_') && self.port.is_null(),
        }
    }
}

/// The names of one service's backends.
#[derive(Debug, Clone)]
pub struct Dns {
    about: About,
    servers: Arc<[DnsServer]>,
    resolver: Resolver,
    pace: Pace,
}

/// How long one question may take where looks are `every` so far apart.
pub fn deadline(every: Duration) -> Duration {
    every.clamp(Duration::from_secs(1), Duration::from_secs(5))
}

impl Method for Dns {
    fn read(asked: &MethodInput<'_>) -> Result<Self, Faults> {
        let keys: Keys = asked.keys()?;
        let mut faults = Faults::default();
        if keys.servers.is_empty() {
            faults.add("servers", "is required: host names with their ports");
        }
        for (n, server) in keys.servers.iter().enumerate() {
            let mut at = |key: &str, why: &str| faults.add(format!("servers[{n}].{key}"), why);
            if server.host.is_empty() {
                at("host", "is required");
            }
            if server.port.is_null() && !server.is_srv() && asked.about.port.is_none() {
                at("port", "is required without backend_port_override, unless the host is an SRV record");
            }
        }
        let pace = Pace::every(keys.check_interval, EVERY_SECONDS).starting_within(keys.discovery_jitter);
        let name_servers = faults.take(name_servers(&keys.nameserver)).filter(|_| faults.0.is_empty());
        let Some(name_servers) = name_servers else { return Err(faults) };
        let resolver = Resolver::new(&name_servers, deadline(pace.every));
        // Each question has its own deadline: one that hangs costs the others nothing.
        let pace = pace.with_patience(Duration::from_secs(60));
        Ok(Self { about: asked.about.clone(), servers: keys.servers.into(), resolver, pace })
    }

    fn watcher(&self, _: &mut Context) -> BoxWatcher {
        Box::new(self.polled())
    }

    fn servers(&self) -> Vec<String> {
        self.servers.iter().map(|s| s.host.clone()).collect()
    }
}

impl Dns {
    /// The watcher itself.
    pub fn polled(&self) -> Polled<DnsSource> {
        let names = DnsNames::new(self.resolver.clone());
        let source = DnsSource { about: self.about.clone(), servers: self.servers.clone(), names };
        Polled::new(source, self.about.source.clone(), self.pace)
    }
}

/// The names, as a source that can be looked at.
#[derive(Debug)]
pub struct DnsSource {
    about: About,
    servers: Arc<[DnsServer]>,
    names: DnsNames,
}

impl Poll for DnsSource {
    type Error = NamesError;

    async fn look(&mut self) -> Result<Look, NamesError> {
        self.names.begin();
        let questions = self.servers.iter().flat_map(|server| match server.is_srv() {
            true => vec![srv(&server.host)],
            false => DnsNames::of_host(&server.host),
        });
        let questions: Vec<Question> = questions.collect();
        self.names.ask(questions.iter().cloned()).await;
        let services = questions.iter().flat_map(|q| self.names.answer(q));
        let targets: Vec<Question> = services
            .filter_map(
                |found| if let Found::Service { target, .. } = found { Some(DnsNames::of_host(target)) } else { None },
            )
            .flatten()
            .collect();
        self.names.ask(targets).await;
        let round = self.names.end()?;
        let mut findings = Findings::new(&self.about);
        for (question, why) in round.failed {
            findings.left_out(&question, why);
        }
        for server in &*self.servers {
            match server.is_srv() {
                true => self.services(server, &mut findings),
                false => {
                    for address in self.names.addresses(&server.host) {
                        let map = registration(server, &address.to_string(), server.port.clone());
                        findings.registration(&server.host, &map);
                    }
                }
            }
        }
        Ok(Look { answer: findings.answer(), good_for: round.good_for })
    }
}

impl DnsSource {
    /// The targets of an SRV record: those of the lowest priority serve, the others are backups.
    fn services(&self, server: &DnsServer, findings: &mut Findings) {
        let mut services: Vec<(u16, u16, u16, &Arc<str>)> = self
            .names
            .answer(&srv(&server.host))
            .iter()
            .filter_map(|found| match found {
                Found::Service { priority, weight, port, target } => Some((*priority, *weight, *port, target)),
                Found::Address(_) => None,
            })
            .collect();
        services.sort();
        let first = services.first().map(|(priority, ..)| *priority);
        let heaviest = services.iter().map(|(_, weight, ..)| *weight).max().unwrap_or(0);
        for (priority, weight, port, target) in services {
            for address in self.names.addresses(target) {
                let mut map = registration(server, &address.to_string(), json!(port));
                if heaviest > 0 {
                    map.insert("weight".to_owned(), json!(scaled(weight, heaviest)));
                }
                if Some(priority) != first {
                    map.insert("haproxy_server_options".to_owned(), json!("backup"));
                }
                findings.registration(&format!("{}: {target}", server.host), &map);
            }
        }
    }
}

/// An SRV weight (0 to 65535, relative) as one of HAProxy's; 0 still serves a little, as RFC 2782 wants it.
fn scaled(weight: u16, heaviest: u16) -> u32 {
    let (weight, heaviest) = (u32::from(weight), u32::from(heaviest));
    let scaled = if heaviest <= MOST_WEIGHT { weight } else { weight * MOST_WEIGHT / heaviest };
    scaled.max(1)
}

fn srv(host: &str) -> Question {
    Question { name: host.into(), kind: RecordKind::Srv }
}

/// A backend with Synapse's fields, in Synapse's order.
fn registration(server: &DnsServer, host: &str, port: Value) -> Map<String, Value> {
    let mut map = Map::from_iter([("host".to_owned(), json!(host)), ("port".to_owned(), port)]);
    map.extend(server.name.as_ref().map(|name| ("name".to_owned(), json!(name))));
    if !server.labels.is_null() {
        map.insert("labels".to_owned(), server.labels.clone());
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_fit_haproxy_and_keep_their_proportion() {
        assert_eq!([scaled(0, 9), scaled(9, 9), scaled(256, 256)], [1, 9, 256]);
        assert_eq!([scaled(65535, 65535), scaled(32768, 65535), scaled(1, 65535)], [256, 128, 1]);
    }
}
