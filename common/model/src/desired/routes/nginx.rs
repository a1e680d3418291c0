//! nginx-proxy's variables (`VIRTUAL_HOST`, `VIRTUAL_PORT` and so on), as variables or labels. Each that is there is used, refused, or named
//! with the reason why it has no effect.
//!
//! Source: nginx-proxy's docs, "Virtual Hosts and Ports", "Path-based Routing", "Internet vs. Local Network Access", "SSL Support";
//! acme-companion's docs for `LETSENCRYPT_*` and `ACME_*`.

use std::collections::BTreeSet;

use super::{Proposal, Reading, own};
use crate::desired::container::Container;
use crate::desired::decision::Skip;
use crate::desired::labels::{Entry, Vocabulary};
use crate::desired::naming::excerpt;
use crate::{PathPrefix, Port, Route, Transport};

/// nginx-proxy's own labels begin so.
const LABELS: &str = "com.github.nginx-proxy.";

/// What restricts the container as a whole, and cannot be kept.
pub fn restricted(vocabulary: &Vocabulary<'_>) -> Option<Skip> {
    let restricted = |entry: &Entry<'_>, what| Skip::Restricted { by: entry.origin(), what };
    if let Some(entry) = vocabulary.whole("virtual.access").filter(|e| e.value.eq_ignore_ascii_case("internal")) {
        return Some(restricted(entry, "clients of internal networks"));
    }
    let open = ["off", "optional", "optional_no_ca"];
    let verify = vocabulary.whole("virtual.client-certificates").filter(|entry| !open.contains(&entry.value));
    verify.map(|entry| restricted(entry, "clients with a certificate"))
}

pub fn read(container: &Container, vocabulary: &Vocabulary<'_>, tcp: &BTreeSet<Port>) -> Reading {
    let mut reading = Reading::default();
    account(container, vocabulary, &mut reading);
    if let Some(entry) = vocabulary.whole("virtual.host-multiports") {
        let why = "is not imported: name each port by register.<port>.vhost";
        reading.routes.push(Proposal::refused(None, entry.origin(), why));
        return reading;
    }
    let Some(hosts) = vocabulary.whole("virtual.host") else { return reading };
    let port = match meant(container, vocabulary) {
        Ok(port) if tcp.contains(&port) => port,
        Ok(port) => {
            let why =
                format!("port {port} is not registered (VIRTUAL_PORT, else the only port that is exposed, else 80)");
            reading.routes.push(Proposal::refused(None, hosts.origin(), why));
            return reading;
        }
        Err(why) => {
            reading.routes.push(Proposal::refused(None, hosts.origin(), why));
            return reading;
        }
    };
    let model = options(vocabulary);
    reading.routes.extend(own::hosts(hosts.value, &[',']).into_iter().map(|host| {
        let route = host.and_then(|host| Ok(Route { host, ..model.clone()? }));
        Proposal { port: Some(port), origin: hosts.origin(), route }
    }));
    reading
}

/// The port that nginx-proxy would dial: `VIRTUAL_PORT`, else the only one that is exposed, else 80.
pub fn port(container: &Container, vocabulary: &Vocabulary<'_>) -> Option<Port> {
    let asked = vocabulary.whole("virtual.host").or_else(|| vocabulary.whole("virtual.port"));
    asked.and_then(|_| meant(container, vocabulary).ok())
}

fn meant(container: &Container, vocabulary: &Vocabulary<'_>) -> Result<Port, String> {
    if let Some(entry) = vocabulary.whole("virtual.port") {
        return entry.value.parse().map_err(|_| format!("{} is not a port", entry.origin()));
    }
    let listed = vocabulary.listed().ok().flatten();
    let exposed: BTreeSet<Port> = match &listed {
        Some(listed) => listed.iter().filter(|(_, t)| *t != Some(Transport::Udp)).map(|(port, _)| *port).collect(),
        None => container.ports.iter().filter(|p| p.transport == Transport::Tcp).map(|p| p.port).collect(),
    };
    match exposed.first() {
        Some(only) if exposed.len() == 1 => Ok(*only),
        _ => Port::new(80).ok_or_else(String::new),
    }
}

/// A route with all but the host.
fn options(vocabulary: &Vocabulary<'_>) -> Result<Route, String> {
    if let Some(entry) = vocabulary.whole("virtual.proto").filter(|entry| entry.value != "http") {
        return Err(format!("{} is not http, and the edge speaks http to backends", entry.origin()));
    }
    let path = match vocabulary.whole("virtual.path") {
        Some(entry) => entry.value.parse::<PathPrefix>().map_err(|e| format!("{}: {e}", entry.origin()))?,
        None => PathPrefix::root(),
    };
    let dest = vocabulary.whole("virtual.dest");
    if let Some(entry) = dest.filter(|entry| entry.value != "/") {
        return Err(format!("{} is not /, and a path can be stripped, but not replaced", entry.origin()));
    }
    let method = vocabulary.whole("virtual.https-method").map(|entry| entry.value);
    let host = "unset.invalid".parse().map_err(|e: crate::RouteError| e.to_string())?;
    Ok(Route {
        strip_prefix: dest.is_some() && !path.is_root(),
        redirect_https: matches!(method, Some("redirect" | "nohttp")),
        ..Route::new(host, path)
    })
}

/// Names what of nginx-proxy's words is used, and what has no effect and why.
fn account(container: &Container, vocabulary: &Vocabulary<'_>, reading: &mut Reading) {
    let proxied = ["virtual.host", "virtual.host-multiports"].iter().any(|key| vocabulary.whole(key).is_some());
    let overridden = vocabulary.whole("virtual.host-multiports").is_some();
    for (name, value) in container.env.iter().chain(&container.labels) {
        let value = value.trim();
        if value.is_empty() {
            continue;
        }
        let (told, is_used) = match (name.as_str(), value) {
            ("VIRTUAL_HOST", _) if !overridden => continue, // its routes or their refusals name it
            ("VIRTUAL_HOST_MULTIPORTS", _) => continue,
            ("VIRTUAL_HOST" | "VIRTUAL_PORT" | "VIRTUAL_PATH" | "VIRTUAL_DEST", _) if overridden => {
                ("is not used: VIRTUAL_HOST_MULTIPORTS takes its place", false)
            }
            ("VIRTUAL_PORT", _) => ("gives the port", true),
            ("VIRTUAL_PATH" | "VIRTUAL_DEST" | "VIRTUAL_PROTO", _) if proxied => ("is part of the route", true),
            ("VIRTUAL_PATH" | "VIRTUAL_DEST" | "VIRTUAL_PROTO", _) => ("is not used: there is no VIRTUAL_HOST", false),
            ("NETWORK_ACCESS", value) if value.eq_ignore_ascii_case("external") => ("is what is done anyhow", true),
            ("NETWORK_ACCESS", _) if proxied => ("is not used: it is neither internal nor external", false),
            ("HTTPS_METHOD", "redirect" | "nohttp") if proxied => ("redirects plain HTTP to HTTPS", true),
            ("HTTPS_METHOD", "noredirect") if proxied => ("is what is done anyhow", true),
            ("HTTPS_METHOD", "nohttps") if proxied => {
                ("is not used: the edge serves HTTPS for every host that it has a certificate for", false)
            }
            ("HTTPS_METHOD", _) if proxied => ("is not used: it is not redirect, noredirect, nohttp or nohttps", false),
            ("HSTS", "off") if proxied => ("is what is done anyhow", true),
            ("HSTS", _) if proxied => ("is not used: the edge adds no Strict-Transport-Security", false),
            ("CERT_NAME", _) if proxied => {
                ("is not used: the edge takes the certificate for the name that the client asks for", false)
            }
            ("SSL_POLICY", _) if proxied => ("is not used: the edge has one set of TLS versions for all hosts", false),
            (name, _) if name.starts_with("LETSENCRYPT_") || (proxied && name.starts_with("ACME_")) => {
                ("is not used: no certificate is fetched, they come from files (--edge-certs)", false)
            }
            // Python's virtual environments have variables of such names.
            (name, _) if name.starts_with("VIRTUAL_ENV") => continue,
            (name, _) if proxied && name.starts_with("VIRTUAL_") => {
                ("is not used: the edge knows no such variable", false)
            }
            (name, value) if name.starts_with(LABELS) => label_of_the_proxy(name, value),
            _ => continue,
        };
        let line = format!("{} {told}", excerpt(name));
        if is_used { reading.notes.push(line) } else { reading.unused.push(line) }
    }
}

fn label_of_the_proxy(name: &str, value: &str) -> (&'static str, bool) {
    match name.rsplit('.').next().unwrap_or_default() {
        "ssl_verify_client" if value == "off" => ("is what is done anyhow", true),
        "ssl_verify_client" => ("is not used: no client is asked for a certificate", false),
        "keepalive" => ("is not used: HAProxy keeps idle connections as it sees fit", false),
        "loadbalance" => ("is not used: the edge balances all services alike", false),
        _ => ("is not used: the edge knows no such label", false),
    }
}
