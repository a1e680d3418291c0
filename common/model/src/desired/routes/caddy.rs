//! caddy-docker-proxy's labels, where they say no more than a host and a port: `caddy=HOST…`, `caddy.reverse_proxy={{upstreams
//! PORT}}`, and the same with `caddy_1` and so on. A site with any other directive is left out.
//!
//! Source: caddy-docker-proxy's README, "Labels to Caddyfile conversion" and "Template functions".

use std::collections::{BTreeMap, BTreeSet};

use super::guard::{Closed, Guard};
use super::{Proposal, Reading, label, own, usual};
use crate::{PathPrefix, Port, Route};

/// One site: its addresses, what it hands on to, and what else is said of it.
#[derive(Default)]
struct Site<'a> {
    addresses: Option<&'a str>,
    upstreams: Option<&'a str>,
    strange: Option<&'a str>,
}

/// The site that a label is about, and its directive.
fn parts(name: &str) -> Option<(&str, &str)> {
    let (key, directive) = name.split_once('.').unwrap_or((name, ""));
    let number = key.strip_prefix("caddy")?;
    let number = number.strip_prefix('_').unwrap_or(number);
    number.bytes().all(|b| b.is_ascii_digit()).then_some((key, directive))
}

/// Whether a directive is about certificates or compression, which change no answer's meaning.
fn is_harmless(directive: &str) -> bool {
    let first = directive.split('.').next().unwrap_or_default();
    matches!(first, "tls" | "encode") && !directive.starts_with("tls.client_auth")
}

fn sites(labels: &BTreeMap<String, String>) -> BTreeMap<&str, Site<'_>> {
    let mut sites: BTreeMap<&str, Site<'_>> = BTreeMap::new();
    for (name, value) in labels {
        let Some((key, directive)) = parts(name) else { continue };
        let site = sites.entry(key).or_default();
        match directive {
            "" => site.addresses = Some(value.trim()),
            "reverse_proxy" => site.upstreams = Some(value.trim()),
            _ if is_harmless(directive) => {}
            _ => site.strange = Some(name),
        }
    }
    sites
}

pub fn read(labels: &BTreeMap<String, String>, tcp: &BTreeSet<Port>) -> Reading {
    let mut reading = Reading::default();
    for (key, site) in sites(labels) {
        let Some(addresses) = site.addresses.filter(|addresses| !addresses.starts_with('(')) else { continue };
        let port = match site.upstreams.map(upstreams) {
            Some(Ok(Some(port))) => Some(port).filter(|port| tcp.contains(port)).ok_or("its port is not registered"),
            Some(Ok(None)) => usual(tcp).ok_or("of the registered ports none is the only one, or 80"),
            Some(Err(())) => Err("reverse_proxy is not {{upstreams}}, with a port or without"),
            None => Err("it has no reverse_proxy"),
        };
        // The scheme says which of Caddy's ports: the edge has both.
        let addresses = addresses.replace("http://", "").replace("https://", "");
        let hosts = own::hosts(&addresses, &[' ', ',']);
        if let Some(strange) = site.strange {
            let by = label(strange);
            let at = |host: Option<_>| host.map_or(Closed::All, |host| Closed::At(Some(host), PathPrefix::root()));
            let guard = |closed| Guard { port: port.ok(), by: by.clone(), closed };
            reading.guards.extend(hosts.into_iter().map(|host| guard(at(host.ok()))));
            reading.routes.push(Proposal::refused(port.ok(), label(key), format!("{by} cannot be imported")));
            continue;
        }
        match port {
            Ok(port) => reading.routes.extend(hosts.into_iter().map(|host| Proposal {
                port: Some(port),
                origin: label(key),
                route: host.map(|host| Route::new(host, PathPrefix::root())),
            })),
            Err(why) => reading.routes.push(Proposal::refused(None, label(key), why)),
        }
    }
    reading.notes = labels.keys().filter_map(|name| note(labels, name)).collect();
    reading
}

/// What became of a label that no route and no refusal names.
fn note(labels: &BTreeMap<String, String>, name: &str) -> Option<String> {
    if name == "caddy_ingress_network" {
        return Some(format!("{} gives the network", label(name)));
    }
    let (key, directive) = parts(name)?;
    let told = match labels.get(key) {
        _ if directive.is_empty() => return None,
        None => "is not used: without addresses it is one of Caddy's global options",
        Some(addresses) if addresses.trim_start().starts_with('(') => "is not used: it is part of a snippet",
        Some(_) if is_harmless(directive) => {
            "has no effect: certificates come from files, and answers go on as they are"
        }
        Some(_) if directive == "reverse_proxy" => "gives the port",
        Some(_) => return None,
    };
    Some(format!("{} {told}", label(name)))
}

/// The ports that sites name.
pub fn ports(labels: &BTreeMap<String, String>) -> impl Iterator<Item = Port> {
    sites(labels)
        .into_values()
        .filter_map(|site| upstreams(site.upstreams?).ok().flatten())
        .collect::<Vec<_>>()
        .into_iter()
}

/// The port of `{{upstreams}}`, `{{upstreams 8080}}`, `{{upstreams http 8080}}`.
fn upstreams(text: &str) -> Result<Option<Port>, ()> {
    let inner = text.strip_prefix("{{").and_then(|text| text.strip_suffix("}}")).ok_or(())?;
    let words: Vec<&str> = inner.split_whitespace().collect();
    match words[..] {
        ["upstreams"] | ["upstreams", "http"] => Ok(None),
        ["upstreams", port] | ["upstreams", "http", port] => port.parse().map(Some).map_err(|_| ()),
        _ => Err(()),
    }
}
