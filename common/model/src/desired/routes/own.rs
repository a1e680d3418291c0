//! `register.[<port>.]vhost` and what goes with it: `path`, `strip-prefix`, `priority`, `sticky`, `redirect-https`.

use std::collections::BTreeSet;

use super::{Proposal, bounded, usual};
use crate::desired::labels::{PortView, Vocabulary};
use crate::desired::naming::excerpt;
use crate::desired::values;
use crate::{HostPattern, PathPrefix, Port, Route, Transport};

const PRIORITY: &str = "a whole number from -2147483648 to 2147483647";
const STICKY: &str = "true, false or cookie";
const SWITCH: &str = "true or false";
const STRIP: &str = "true, false or the route's path";

pub fn read(vocabulary: &Vocabulary<'_>, tcp: &BTreeSet<Port>) -> Vec<Proposal> {
    of_ports(vocabulary, tcp, "vhost", |view, host| with_options(host, view))
}

/// What a list of hosts under `key` comes to for each port that it is about; without a port in the label that is the usual one.
pub(super) fn of_ports<T>(
    vocabulary: &Vocabulary<'_>,
    tcp: &BTreeSet<Port>,
    key: &str,
    read: impl Fn(&PortView<'_, '_>, HostPattern) -> Result<T, String>,
) -> Vec<Proposal<T>> {
    let mut proposals = Vec::new();
    for &port in tcp {
        let view = vocabulary.at(port, Transport::Tcp);
        let Some(list) = view.get(key).filter(|entry| !entry.is_for_all() || usual(tcp) == Some(port)) else {
            continue;
        };
        for host in hosts(list.value, &[',']) {
            let route = host.and_then(|host| read(&view, host));
            proposals.push(Proposal { port: Some(port), origin: list.origin(), route });
        }
    }
    if let Some(entry) = vocabulary.whole(key).filter(|entry| entry.is_for_all() && usual(tcp).is_none()) {
        let why = format!("of the registered ports none is the only one, or 80: name it (register.<port>.{key})");
        proposals.push(Proposal::refused(None, entry.origin(), why));
    }
    proposals
}

/// The hosts of a list, each judged alone.
pub(super) fn hosts(list: &str, separators: &[char]) -> Vec<Result<HostPattern, String>> {
    let host = |host: &str| match host.strip_prefix('~') {
        Some(_) => Err(format!("{:?} is a regular expression, which no route has", excerpt(host))),
        None => host.parse::<HostPattern>().map_err(|e| e.to_string()),
    };
    match bounded(list) {
        Ok(list) => list.split(separators).map(str::trim).filter(|host| !host.is_empty()).map(host).collect(),
        Err(why) => vec![Err(why)],
    }
}

fn with_options(host: HostPattern, view: &PortView<'_, '_>) -> Result<Route, String> {
    let path = match view.get("path") {
        Some(entry) => entry.value.parse::<PathPrefix>().map_err(|e| format!("{}: {e}", entry.origin()))?,
        None => PathPrefix::root(),
    };
    let switch = |key: &str| view.read(key, SWITCH, values::switch).map_err(|bad| bad.to_string());
    let strip = |text: &str| match text.parse::<PathPrefix>() {
        Ok(same) => (same == path).then_some(true),
        Err(_) => values::switch(text),
    };
    let strip_prefix = view.read("strip-prefix", STRIP, strip).map_err(|bad| bad.to_string())?.unwrap_or(false);
    let priority = view.read("priority", PRIORITY, |text| text.parse().ok()).map_err(|bad| bad.to_string())?;
    let sticky = |text: &str| if text.eq_ignore_ascii_case("cookie") { Some(true) } else { values::switch(text) };
    let sticky = view.read("sticky", STICKY, sticky).map_err(|bad| bad.to_string())?.unwrap_or(false);
    let redirect_https = switch("redirect-https")?.unwrap_or(false);
    Ok(Route {
        strip_prefix: strip_prefix && !path.is_root(),
        priority,
        sticky,
        redirect_https,
        ..Route::new(host, path)
    })
}
