//! `register.[<port>.]vhost` and what goes with it: `path`, `strip-prefix`, `priority`, `sticky`, `redirect-https`. The latter hold for routes in
//! other words, too.

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
    let route = |view: &PortView<'_, '_>, host| Options::read(view)?.apply(Route::new(host, PathPrefix::root()));
    of_ports(vocabulary, tcp, "vhost", route)
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

/// `strip-prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Strip {
    No,
    Yes,
    /// The route's path itself stands for yes.
    Path(PathPrefix),
}

/// What our labels say about the routes of a port, in whoever's words these are.
#[derive(Debug, Default)]
pub(super) struct Options {
    path: Option<PathPrefix>,
    strip_prefix: Option<Strip>,
    priority: Option<i32>,
    sticky: Option<bool>,
    redirect_https: Option<bool>,
}

impl Options {
    /// The keys.
    pub const KEYS: [&str; 5] = ["path", "strip-prefix", "priority", "sticky", "redirect-https"];

    /// What is said of one port.
    ///
    /// # Errors
    /// A value that cannot be meant, named with its label.
    pub fn read(view: &PortView<'_, '_>) -> Result<Self, String> {
        let path = match view.get("path") {
            Some(entry) => Some(entry.value.parse::<PathPrefix>().map_err(|e| format!("{}: {e}", entry.origin()))?),
            None => None,
        };
        let strip = |text: &str| match (text.parse::<PathPrefix>(), values::switch(text)) {
            (Ok(path), _) => Some(Strip::Path(path)),
            (_, Some(true)) => Some(Strip::Yes),
            (_, Some(false)) => Some(Strip::No),
            (Err(_), None) => None,
        };
        let sticky = |text: &str| if text.eq_ignore_ascii_case("cookie") { Some(true) } else { values::switch(text) };
        let said = |bad: crate::desired::Skip| bad.to_string();
        Ok(Self {
            strip_prefix: view.read("strip-prefix", STRIP, strip).map_err(said)?,
            priority: view.read("priority", PRIORITY, |text| text.parse().ok()).map_err(said)?,
            sticky: view.read("sticky", STICKY, sticky).map_err(said)?,
            redirect_https: view.read("redirect-https", SWITCH, values::switch).map_err(said)?,
            path,
        })
    }

    /// The route with what was said.
    ///
    /// # Errors
    /// The route has another path already.
    pub fn apply(&self, route: Route) -> Result<Route, String> {
        let path = match &self.path {
            Some(path) if !route.path.is_root() && route.path != *path => {
                return Err(format!("its path is {}, and the label register.path says {path}", route.path));
            }
            Some(path) => path.clone(),
            None => route.path.clone(),
        };
        let strip_prefix = match &self.strip_prefix {
            Some(Strip::Path(other)) if *other != path => {
                return Err(format!("its path is {path}, and the label register.strip-prefix says {other}"));
            }
            Some(said) => *said != Strip::No,
            None => route.strip_prefix,
        };
        Ok(Route {
            strip_prefix: strip_prefix && !path.is_root(),
            priority: self.priority.or(route.priority),
            sticky: self.sticky.unwrap_or(route.sticky),
            redirect_https: self.redirect_https.unwrap_or(route.redirect_https),
            path,
            ..route
        })
    }
}

/// Our labels about routes that no port with a route is about.
pub(super) fn idle(vocabulary: &Vocabulary<'_>, routed: &BTreeSet<Port>) -> Vec<String> {
    let entries = Options::KEYS.iter().flat_map(|key| vocabulary.all(key));
    let idle = entries.filter(|entry| !routed.iter().any(|port| entry.covers(*port, Transport::Tcp)));
    idle.map(|entry| format!("{} is not used: no port that it is about has a route", entry.origin())).collect()
}
