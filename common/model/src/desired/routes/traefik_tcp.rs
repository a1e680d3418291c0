//! Traefik's TCP routers (v2, v3) that pass TLS through: `traefik.tcp.routers.*.rule=HostSNI(…)` with `tls.passthrough=true`.
//!
//! A router that would end TLS, takes any name, or asks for a middleware or the PROXY protocol is refused: it would be something else here.

use std::collections::BTreeSet;

use super::rule::{self, Kind, Term};
use super::traefik::{PORT, bad, guards, port_of, service_of};
use super::traefik_labels::{Elements, Keys, Labels};
use super::{Proposal, Reading, label};
use crate::Port;
use crate::desired::values;

pub fn read(labels: &Labels<'_>, tcp: &BTreeSet<Port>, reading: &mut Reading) {
    let Reading { sni: proposals, guards: closed, .. } = reading;
    for (name, keys) in &labels.tcp.routers {
        let port = port_of(&labels.tcp.services, keys, tcp);
        let known = port.as_ref().ok().copied();
        let Some(rule) = keys.get("rule") else {
            let why = "a router without a rule is not imported";
            proposals.push(Proposal::refused(known, label(&format!("traefik.tcp.routers.{name}")), why));
            continue;
        };
        let terms = rule::parse(rule.value, Kind::Connections);
        if let Some(said) = keys.get("middlewares").filter(|said| !said.value.is_empty()) {
            closed.extend(guards(&label(said.name), known, terms.as_ref().ok()));
        }
        let names = port.and_then(|_| passes_through(keys)).and_then(|()| plain(&labels.tcp.services, keys));
        match names.and(terms) {
            Ok(terms) => proposals.extend(terms.into_iter().map(|term| {
                let route = term.and_then(|Term { host, .. }| host.ok_or_else(|| "it names no host".to_owned()));
                Proposal { port: known, origin: label(rule.name), route }
            })),
            Err(why) => proposals.push(Proposal::refused(known, label(rule.name), why)),
        }
        let unused = keys.iter().filter(|(key, _)| !is_known(key));
        proposals.extend(unused.map(|(_, said)| Proposal::refused(known, label(said.name), "is not imported")));
    }
}

/// What of a router is either imported or changes nothing here.
fn is_known(key: &str) -> bool {
    const KNOWN: [&str; 6] = ["rule", "service", "middlewares", "entrypoints", "tls", "rulesyntax"];
    KNOWN.contains(&key) || key.starts_with("tls.")
}

fn passes_through(router: &Keys<'_>) -> Result<(), String> {
    if let Some(said) = router.get("middlewares").filter(|said| !said.value.is_empty()) {
        return Err(bad(said));
    }
    match router.get("tls.passthrough").map(|said| values::go_bool(said.value).ok_or_else(|| bad(said))) {
        Some(Ok(true)) => Ok(()),
        Some(Err(why)) => Err(why),
        _ => Err("only TLS that is passed through can be imported: tls.passthrough=true".to_owned()),
    }
}

/// Whether the service is one that gets connections just as they come.
fn plain(services: &Elements<'_>, router: &Keys<'_>) -> Result<(), String> {
    for (key, said) in service_of(services, router)?.into_iter().flatten() {
        let is_off = || values::go_bool(said.value) == Some(false);
        match key.as_str() {
            // How long half of a connection may stay open is HAProxy's own to say.
            PORT | "loadbalancer.terminationdelay" => {}
            "loadbalancer.server.tls" | "loadbalancer.proxyprotocol" if is_off() => {}
            _ => return Err(bad(said)),
        }
    }
    Ok(())
}
