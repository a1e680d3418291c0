//! Where services listen. Two of them at one place would share the clients out between them: HAProxy says nothing of it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Reader;
use crate::synapse::keys::{Key, Kind, Origin, ROOT};
use crate::synapse::types::{Config, Haproxy, Service, ServiceHaproxy};

/// Which words of a service's section say that it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    Port,
    Frontend(usize),
    Listen(usize),
}

impl Words {
    fn key(self) -> String {
        match self {
            Self::Port => "port".to_owned(),
            Self::Frontend(n) => format!("frontend[{n}]"),
            Self::Listen(n) => format!("listen[{n}]"),
        }
    }
}

impl Reader {
    /// No two services listen at one place. With words of ours in the file that is an error. In a file of Synapse's own, which ran
    /// as it is, the first service has the place.
    pub(super) fn unique_places(&mut self, root: &Map<String, Value>, config: &mut Config) {
        let Some(top) = config.haproxy.clone() else { return };
        let is_ours = has_ours(root, ROOT);
        let mut taken: HashMap<String, (String, Arc<Service>)> = HashMap::new();
        for service in &mut config.services {
            if service.haproxy.disabled {
                continue;
            }
            let (now, mut lost) = (service.clone(), Vec::new());
            for (words, place) in places(&now.haproxy, &top) {
                let path = format!("services.{}.haproxy.{}", now.name, words.key());
                match taken.get(&place) {
                    None => drop(taken.insert(place, (path, now.clone()))),
                    // Copies of one service have one pool; a section may name its place twice.
                    Some((_, other)) if other.raw == now.raw && other.haproxy == now.haproxy => {}
                    Some(_) if lost.contains(&words) => {}
                    Some((other, _)) => {
                        self.report.file = self.origin.get(now.name.as_str()).unwrap_or(&self.main).clone();
                        let taken = format!("{place} is where {other} listens");
                        match is_ours {
                            true => self.report.error(&path, format!("{taken}; give each service a port of its own")),
                            false => self.report.warn(
                                &path,
                                format!(
                                    "{taken}: that service alone serves there; give each service a port of its own"
                                ),
                            ),
                        }
                        lost.push(words);
                    }
                }
            }
            if !lost.is_empty() {
                let haproxy = Arc::make_mut(&mut Arc::make_mut(service).haproxy);
                give_up(haproxy, &lost);
            }
        }
    }
}

/// Takes words of a section away.
fn give_up(haproxy: &mut ServiceHaproxy, lost: &[Words]) {
    if lost.contains(&Words::Port) {
        haproxy.port = None;
    }
    for (lines, words) in [
        (&mut haproxy.frontend, Words::Frontend as fn(usize) -> Words),
        (&mut haproxy.listen, Words::Listen as fn(usize) -> Words),
    ] {
        let mut n = 0..;
        lines.retain(|_| n.next().is_some_and(|n| !lost.contains(&words(n))));
    }
}

/// The places where a service listens, each with the words that say so.
fn places(haproxy: &ServiceHaproxy, top: &Haproxy) -> Vec<(Words, String)> {
    let bind = |line: &str| line.trim_start().strip_prefix("bind ").map(str::to_owned);
    let lines = |lines: &[String], words: fn(usize) -> Words| {
        let bound = lines.iter().enumerate().filter_map(|(n, line)| Some((words(n), bind(line)?)));
        bound.collect::<Vec<_>>()
    };
    // The frontend is there for a port alone.
    let Some(own) = haproxy.bind_place(top) else { return Vec::new() };
    let own = [Some(own.as_str()), haproxy.bind_options.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let all = [(Words::Port, own)].into_iter();
    let all = all.chain(lines(&haproxy.frontend, Words::Frontend)).chain(lines(&haproxy.listen, Words::Listen));
    all.flat_map(|(words, bind)| spelled(&bind).into_iter().map(move |place| (words, place))).collect()
}

/// The places of one `bind`, each in one spelling: a range of ports is all of them.
pub(crate) fn spelled(bind: &str) -> Vec<String> {
    let mut words = bind.split_whitespace();
    let addresses = words.next().unwrap_or_default();
    // One address may be there on several interfaces.
    let interface =
        words.skip_while(|word| *word != "interface").nth(1).map(|name| format!("%{name}")).unwrap_or_default();
    let mut all = Vec::new();
    for address in addresses.split(',') {
        let address = address.strip_prefix("ipv4@").unwrap_or(address);
        let Some((host, ports)) = address.rsplit_once(':') else {
            all.push(address.to_owned());
            continue;
        };
        let host = match host {
            "" | "0.0.0.0" => "*",
            "localhost" => "127.0.0.1",
            host => host,
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => all.extend((first..=last).map(|port| format!("{host}{interface}:{port}"))),
            _ => all.push(format!("{host}{interface}:{ports}")),
        }
    }
    all
}

/// Whether an object says something that Synapse does not know.
fn has_ours(object: &Map<String, Value>, keys: &[Key]) -> bool {
    fn is_in(value: &Value, kind: &Kind) -> bool {
        match (kind, value) {
            (Kind::Object(keys), Value::Object(object)) => has_ours(object, keys),
            (Kind::Objects(_), Value::Array(all)) => all.iter().any(|value| is_in(value, kind)),
            (Kind::Objects(keys), Value::Object(object)) => has_ours(object, keys),
            (Kind::Map(kind), Value::Object(object)) => object.values().any(|value| is_in(value, kind)),
            _ => false,
        }
    }
    let known = object.iter().filter_map(|(name, value)| Some((keys.iter().find(|key| key.name == name)?, value)));
    known.into_iter().any(|(key, value)| key.origin == Origin::Ours || is_in(value, &key.kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_has_one_spelling() {
        for (bind, places) in [
            ("localhost:80", &["127.0.0.1:80"][..]),
            ("*:80 ssl crt /x", &["*:80"]),
            (":80", &["*:80"]),
            ("ipv4@0.0.0.0:80", &["*:80"]),
            ("10.0.0.1:80,:81", &["10.0.0.1:80", "*:81"]),
            ("10.0.0.1:80-82", &["10.0.0.1:80", "10.0.0.1:81", "10.0.0.1:82"]),
            (":80 interface eth0", &["*%eth0:80"]),
            ("/run/web.sock", &["/run/web.sock"]),
            ("[::1]:80", &["[::1]:80"]),
            ("${ADDRESS}", &["${ADDRESS}"]),
            ("", &[""]),
        ] {
            assert_eq!(spelled(bind), places, "{bind}");
        }
    }
}
