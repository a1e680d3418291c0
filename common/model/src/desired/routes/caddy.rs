//! caddy-docker-proxy's labels, where they say no more than a host, a path and a port: `caddy=HOST…`, `caddy.reverse_proxy=/PATH/*
//! {{upstreams PORT}}`, and the same with `caddy_1` and so on. A site with any other directive is left out.
//!
//! Source: caddy-docker-proxy's README, "Labels to Caddyfile conversion" and "Template functions"; Caddy's docs, "Request matchers".

use std::collections::{BTreeMap, BTreeSet};

use super::guard::{Closed, Guard};
use super::{Proposal, Reading, label, own};
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
        let upstreams = site.upstreams.map_or(Err("it has no reverse_proxy"), Upstreams::read);
        let upstreams = upstreams.and_then(|upstreams| match tcp.contains(&upstreams.port) {
            true => Ok(upstreams),
            false => Err("its port is not registered"),
        });
        let port = upstreams.as_ref().ok().map(|upstreams| upstreams.port);
        // The scheme says which of Caddy's ports: the edge has both.
        let addresses = addresses.replace("http://", "").replace("https://", "");
        let hosts = own::hosts(&addresses, &[' ', ',']);
        if let Some(strange) = site.strange {
            let by = label(strange);
            let at = |host: Option<_>| host.map_or(Closed::All, |host| Closed::At(Some(host), PathPrefix::root()));
            let guard = |closed| Guard { port, by: by.clone(), closed };
            reading.guards.extend(hosts.into_iter().map(|host| guard(at(host.ok()))));
            reading.routes.push(Proposal::refused(port, label(key), format!("{by} cannot be imported")));
            continue;
        }
        match upstreams {
            Ok(Upstreams { path, .. }) => reading.routes.extend(hosts.into_iter().map(|host| Proposal {
                port,
                origin: label(key),
                route: host.map(|host| Route::new(host, path.clone())),
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

/// What the sites hand on to.
fn all_upstreams(labels: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, Upstreams)> {
    sites(labels).into_iter().filter_map(|(key, site)| Some((key, Upstreams::read(site.upstreams?).ok()?)))
}

/// The ports that sites name.
pub fn ports(labels: &BTreeMap<String, String>) -> impl Iterator<Item = Port> {
    all_upstreams(labels).map(|(_, upstreams)| upstreams.port)
}

/// The ports that are said to speak HTTP/2 without TLS, and by which label.
pub fn h2(labels: &BTreeMap<String, String>) -> impl Iterator<Item = (Port, String)> {
    all_upstreams(labels)
        .filter(|(_, upstreams)| upstreams.h2)
        .map(|(key, upstreams)| (upstreams.port, label(&format!("{key}.reverse_proxy"))))
}

/// The value of `reverse_proxy`: `{{upstreams}}`, with one of Caddy's schemes or not, with a port or 80, as Caddy dials it.
struct Upstreams {
    path: PathPrefix,
    h2: bool,
    port: Port,
}

impl Upstreams {
    fn read(text: &str) -> Result<Self, &'static str> {
        const OTHER: &str = "reverse_proxy is invalid here: it is not {{upstreams}}, with or without http or h2c, a port, and a path before it that ends in /*";
        let (matcher, template) = text.split_at_checked(text.find("{{").ok_or(OTHER)?).ok_or(OTHER)?;
        let path = match matcher.trim() {
            "" | "*" => PathPrefix::root(),
            path => path.strip_suffix("/*").and_then(|path| path.parse().ok()).ok_or(OTHER)?,
        };
        let inner = template.strip_prefix("{{").and_then(|text| text.strip_suffix("}}")).ok_or(OTHER)?;
        let mut words = inner.split_whitespace().peekable();
        words.next_if_eq(&"upstreams").ok_or(OTHER)?;
        if words.next_if_eq(&"https").is_some() {
            return Err("reverse_proxy asks for https to the container, which the edge does not speak");
        }
        let h2 = words.next_if_eq(&"http").is_none() && words.next_if_eq(&"h2c").is_some();
        let port = words.next().unwrap_or("80").parse().map_err(|_| OTHER)?;
        if words.next().is_none() { Ok(Self { path, h2, port }) } else { Err(OTHER) }
    }
}
