//! nginx-proxy's `VIRTUAL_HOST`, `VIRTUAL_PORT`, `VIRTUAL_PATH`, `VIRTUAL_DEST`, `VIRTUAL_PROTO`, as variables or labels.
//!
//! Source: nginx-proxy's docs, "Virtual Hosts and Ports" and "Path-based Routing".

use std::collections::BTreeSet;

use super::{Proposal, own, usual};
use crate::desired::labels::Vocabulary;
use crate::desired::naming::excerpt;
use crate::{PathPrefix, Port, Route};

pub fn read(vocabulary: &Vocabulary<'_>, tcp: &BTreeSet<Port>) -> Vec<Proposal> {
    let mut proposals = Vec::new();
    if let Some(entry) = vocabulary.whole("virtual.host-multiports") {
        proposals.push(Proposal::refused(
            None,
            entry.origin(),
            "is not imported: name each port by register.<port>.vhost",
        ));
    }
    let Some(hosts) = vocabulary.whole("virtual.host") else { return proposals };
    let meant = match port(vocabulary) {
        Some(Ok(port)) => Some(port).filter(|port| tcp.contains(port)),
        Some(Err(_)) => None,
        None => usual(tcp),
    };
    let Some(meant) = meant else {
        proposals.push(Proposal::refused(
            None,
            hosts.origin(),
            "no registered port is the only one, 80 or VIRTUAL_PORT",
        ));
        return proposals;
    };
    let options = options(vocabulary);
    for host in own::hosts(hosts.value, &[',']) {
        let route = host.and_then(|host| {
            let (path, strip_prefix) = options.clone()?;
            Ok(Route { strip_prefix, ..Route::new(host, path) })
        });
        proposals.push(Proposal { port: Some(meant), origin: hosts.origin(), route });
    }
    proposals
}

/// `VIRTUAL_PORT`.
pub fn port(vocabulary: &Vocabulary<'_>) -> Option<Result<Port, ()>> {
    vocabulary.whole("virtual.port").map(|entry| entry.value.parse().map_err(|_| ()))
}

/// The path, and whether it is stripped.
fn options(vocabulary: &Vocabulary<'_>) -> Result<(PathPrefix, bool), String> {
    if let Some(entry) = vocabulary.whole("virtual.proto").filter(|entry| entry.value != "http") {
        return Err(format!("{} is {:?}, and the edge speaks http to backends", entry.origin(), excerpt(entry.value)));
    }
    let path = match vocabulary.whole("virtual.path") {
        Some(entry) => entry.value.parse::<PathPrefix>().map_err(|e| format!("{}: {e}", entry.origin()))?,
        None => PathPrefix::root(),
    };
    match vocabulary.whole("virtual.dest") {
        Some(entry) if entry.value != "/" => Err(format!(
            "{} is {:?}, and a path can be stripped, but not replaced",
            entry.origin(),
            excerpt(entry.value)
        )),
        dest => Ok((path.clone(), dest.is_some() && !path.is_root())),
    }
}
