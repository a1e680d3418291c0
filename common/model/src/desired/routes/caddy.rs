//! caddy-docker-proxy's labels, where they say no more than a host and a port: `caddy=HOST…`, `caddy.reverse_proxy={{upstreams
//! PORT}}`, and the same with `caddy_1` and so on. Every other directive is refused.
//!
//! Source: caddy-docker-proxy's README, "Labels to Caddyfile conversion" and "Template functions".

use std::collections::{BTreeMap, BTreeSet};

use super::{Proposal, label, own, usual};
use crate::{PathPrefix, Port, Route};

/// One site: its addresses, what it hands on to, and what else is said of it.
#[derive(Default)]
struct Site<'a> {
    addresses: Option<&'a str>,
    upstreams: Option<&'a str>,
    strange: Option<&'a str>,
}

fn sites(labels: &BTreeMap<String, String>) -> BTreeMap<&str, Site<'_>> {
    let mut sites: BTreeMap<&str, Site<'_>> = BTreeMap::new();
    for (name, value) in labels {
        let (key, directive) = name.split_once('.').unwrap_or((name, ""));
        let number = key.strip_prefix("caddy").map(|rest| rest.strip_prefix('_').unwrap_or(rest));
        if number.is_none_or(|number| !number.bytes().all(|b| b.is_ascii_digit())) {
            continue;
        }
        let site = sites.entry(key).or_default();
        match directive {
            "" => site.addresses = Some(value.trim()),
            "reverse_proxy" => site.upstreams = Some(value.trim()),
            // What is about certificates and compression changes no answer's meaning.
            "tls" | "encode" => {}
            _ => site.strange = Some(name),
        }
    }
    sites
}

pub fn read(labels: &BTreeMap<String, String>, tcp: &BTreeSet<Port>) -> Vec<Proposal> {
    let mut proposals = Vec::new();
    for (key, site) in sites(labels) {
        let Some(addresses) = site.addresses else { continue };
        let port = match site.upstreams.map(upstreams) {
            Some(Ok(Some(port))) => Some(port).filter(|port| tcp.contains(port)).ok_or("its port is not registered"),
            Some(Ok(None)) => usual(tcp).ok_or("of the registered ports none is the only one, or 80"),
            Some(Err(())) => Err("reverse_proxy is not {{upstreams}}, with a port or without"),
            None => Err("it has no reverse_proxy"),
        };
        let port = match port {
            Ok(port) => port,
            Err(why) => {
                proposals.push(Proposal::refused(None, label(key), why));
                continue;
            }
        };
        if let Some(strange) = site.strange {
            let why = format!("{} cannot be imported", label(strange));
            proposals.push(Proposal::refused(Some(port), label(key), why));
            continue;
        }
        // The scheme says which of Caddy's ports: the edge has both.
        let addresses = addresses.replace("http://", "").replace("https://", "");
        for host in own::hosts(&addresses, &[' ', ',']) {
            let route = host.map(|host| Route::new(host, PathPrefix::root()));
            proposals.push(Proposal { port: Some(port), origin: label(key), route });
        }
    }
    proposals
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
