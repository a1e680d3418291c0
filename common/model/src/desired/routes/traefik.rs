//! Traefik's labels (v2, v3) as routes: a router's rule, its service's port and cookie, and of the middlewares `stripprefix` and
//! `redirectscheme`. A router that asks for more is left out; if it restricts access, its places are closed to other routers, too.
//!
//! `entrypoints` and `tls` change nothing: each route is served on both of the edge's ports.

use std::collections::{BTreeMap, BTreeSet};

use super::guard::{Closed, Guard};
use super::rule::{self, Kind, Term};
use super::traefik_labels::{Elements, Keys, Labels, Said};
use super::{Proposal, Reading, bounded, label};
use crate::desired::values;
use crate::{PathPrefix, Port, Route, RouteError};

pub(super) const PORT: &str = "loadbalancer.server.port";
const SCHEME: &str = "loadbalancer.server.scheme";

pub fn read(labels: &Labels<'_>, tcp: &BTreeSet<Port>) -> Reading {
    let mut reading = Reading::default();
    let mut proposals = Vec::new();
    for (name, keys) in &labels.http.routers {
        let port = port_of(&labels.http.services, keys, tcp);
        let known = port.as_ref().ok().copied();
        let rule = keys.get("rule");
        let terms = rule.map(|rule| rule::parse(rule.value, Kind::Requests));
        let restriction = restriction(labels, keys);
        if let Some(by) = &restriction {
            reading.guards.extend(guards(by, known, terms.as_ref().and_then(|terms| terms.as_ref().ok())));
        }
        let (Some(rule), Some(terms)) = (rule, terms) else {
            let why =
                "a router without a rule is not imported: Traefik's default rule is the agent's, not the container's";
            proposals.push(Proposal::refused(known, label(&format!("traefik.http.routers.{name}")), why));
            continue;
        };
        let refused = |why: String| vec![Proposal::refused(known, label(rule.name), why)];
        let options = port.and_then(|_| Options::of(labels, keys)).and_then(|options| match &restriction {
            Some(by) => Err(format!("{by} restricts who may reach it, which the edge cannot keep")),
            None => Ok(options),
        });
        let routes = options.and_then(|options| {
            let route = |term: Result<Term, String>| options.route(term?);
            Ok(terms?.into_iter().map(route).collect::<Vec<_>>())
        });
        proposals.extend(routes.map_or_else(refused, |routes| {
            routes.into_iter().map(|route| Proposal { port: known, origin: label(rule.name), route }).collect()
        }));
        let unused = keys.iter().filter(|(key, _)| !is_known(key));
        proposals.extend(unused.map(|(_, said)| Proposal::refused(known, label(said.name), "is not imported")));
    }
    let unused = labels.strange.iter().map(|name| Proposal::refused(None, label(name), "is not imported"));
    reading.routes = joined(proposals);
    reading.routes.extend(unused);
    account(labels, &mut reading);
    reading
}

/// The label by which a router restricts access in a way that the edge cannot keep: TLS options, which may ask for client certificates, or a
/// middleware that may refuse a client. One of another provider may do anything.
fn restriction(labels: &Labels<'_>, router: &Keys<'_>) -> Option<String> {
    let options = router.get("tls.options").filter(|said| !matches!(said.value, "" | "default"));
    let middleware = || {
        let said = router.get("middlewares")?;
        let restricts = |name: &str| match referred(name).ok().and_then(|name| labels.http.middlewares.get(&name)) {
            Some(keys) => keys.iter().find(|(key, _)| may_refuse(key)).map(|(_, said)| said.name),
            None => Some(said.name),
        };
        said.value.split(',').map(str::trim).filter(|name| !name.is_empty()).find_map(restricts)
    };
    options.map(|said| said.name).or_else(middleware).map(label)
}

/// Whether a middleware with this key may turn a client away. The others change a request or an answer.
///
/// Source: Traefik's reference, "HTTP Middlewares".
fn may_refuse(key: &str) -> bool {
    const OPEN: [&str; 16] = [
        "addprefix",
        "buffering",
        "circuitbreaker",
        "compress",
        "contenttype",
        "errors",
        "grpcweb",
        "headers",
        "passtlsclientcert",
        "redirectregex",
        "redirectscheme",
        "replacepath",
        "replacepathregex",
        "retry",
        "stripprefix",
        "stripprefixregex",
    ];
    !OPEN.contains(&key.split('.').next().unwrap_or_default())
}

/// What a restricted router closes.
pub(super) fn guards(by: &str, port: Option<Port>, terms: Option<&Vec<Result<Term, String>>>) -> Vec<Guard> {
    let guard = |closed| Guard { port, by: by.to_owned(), closed };
    let closed = |term: &Result<Term, String>| match term {
        Ok(Term { host, path }) => Closed::At(host.clone(), path.clone().unwrap_or_else(PathPrefix::root)),
        Err(_) => Closed::All,
    };
    terms.map_or_else(|| vec![guard(Closed::All)], |terms| terms.iter().map(closed).map(guard).collect())
}

/// Names what became of each label that no route and no refusal names.
fn account(labels: &Labels<'_>, reading: &mut Reading) {
    let mut tell = |said: &Said<'_>, (told, is_used): (&str, bool)| {
        let line = format!("{} {told}", label(said.name));
        if is_used { reading.notes.push(line) } else { reading.unused.push(line) }
    };
    let (http, tcp) = (&labels.http, &labels.tcp);
    let of_tcp = tcp.routers.values().flatten().map(|router| (true, router));
    for (is_tcp, (key, said)) in http.routers.values().flatten().map(|router| (false, router)).chain(of_tcp) {
        match key.as_str() {
            "service" | "priority" | "middlewares" => tell(said, ("is part of the route", true)),
            "entrypoints" | "rulesyntax" => {
                // One of HTTP's that has another name may be one that few can reach.
                let is_common = |name: &str| ["web", "websecure", "http", "https"].contains(&name.trim());
                let is_used =
                    is_tcp || key != "entrypoints" || said.value.to_ascii_lowercase().split(',').all(is_common);
                tell(said, ("has no effect: a route is served on all ports of the edge", is_used))
            }
            "tls.options" if said.value != "default" => {}
            "tls.passthrough" => tell(said, ("is part of the route", true)),
            key if key == "tls" || key.starts_with("tls.") => {
                tell(said, ("has no effect: certificates come from files (--edge-certs)", true));
            }
            key if key.starts_with("observability.") => tell(said, ("has no effect", true)),
            _ => {}
        }
    }
    for (key, said) in http.services.values().chain(tcp.services.values()).flatten() {
        match key.as_str() {
            key if key.starts_with("loadbalancer.healthcheck.") => {
                tell(said, ("is not used: the checks here are the labels register.check…", false));
            }
            key if key.starts_with("loadbalancer.responseforwarding.") => tell(said, ("has no effect", true)),
            _ => tell(said, ("is read where a router means its service", true)),
        }
    }
    for said in http.middlewares.values().chain(tcp.middlewares.values()).flat_map(Keys::values) {
        tell(said, ("is read where a router names its middleware", true));
    }
    reading.notes.extend(labels.about_docker.iter().map(|name| {
        let told = if name.to_ascii_lowercase().ends_with(".network") { "gives the network" } else { "has no effect" };
        format!("{} {told}", label(name))
    }));
}

/// What of a router is either imported or changes nothing here.
fn is_known(key: &str) -> bool {
    const KNOWN: [&str; 7] = ["rule", "service", "priority", "middlewares", "entrypoints", "tls", "rulesyntax"];
    KNOWN.contains(&key) || key.starts_with("tls.") || key.starts_with("observability.")
}

/// The ports that services name.
pub fn ports(labels: &BTreeMap<String, String>) -> BTreeSet<Port> {
    let labels = Labels::read(labels);
    let services = labels.http.services.values().chain(labels.tcp.services.values());
    let named = services.filter_map(|keys| keys.get(PORT)?.value.parse().ok());
    if labels.disabled.is_some() { BTreeSet::new() } else { named.collect() }
}

/// The ports whose services are said to speak HTTP/2 without TLS, and by which label.
pub fn h2(labels: &BTreeMap<String, String>, tcp: &BTreeSet<Port>) -> Vec<(Port, String)> {
    let labels = Labels::read(labels);
    let speaks = |keys: &Keys<'_>| {
        let said = keys.get(SCHEME).filter(|said| said.value.eq_ignore_ascii_case("h2c"))?;
        let port = keys.get(PORT).map_or_else(|| tcp.first().copied(), |said| said.value.parse().ok())?;
        Some((port, label(said.name)))
    };
    labels.http.services.values().filter_map(speaks).collect()
}

/// Of a router that redirects to HTTPS and one that serves, for one host and path, a single route that does both: the usual
/// pair of one for each entry point.
fn joined(proposals: Vec<Proposal>) -> Vec<Proposal> {
    let redirects = |p: &Proposal| p.route.as_ref().is_ok_and(|route| route.redirect_https);
    let (redirecting, mut others): (Vec<_>, Vec<_>) = proposals.into_iter().partition(redirects);
    for redirect in redirecting {
        let Ok(wanted) = &redirect.route else { continue };
        let same = |route: &Route| route.host == wanted.host && route.path == wanted.path;
        let served = others.iter_mut().filter(|p| p.port == redirect.port).filter_map(|p| p.route.as_mut().ok());
        let mut served = served.filter(|route| same(route)).peekable();
        if served.peek().is_some() {
            served.for_each(|route| route.redirect_https = true);
        } else {
            others.push(redirect);
        }
    }
    others
}

/// A name as a reference has it, without the provider where that is Docker.
pub(super) fn referred(reference: &str) -> Result<String, String> {
    match reference.trim().to_ascii_lowercase().rsplit_once('@') {
        Some((name, "docker" | "swarm")) => Ok(name.to_owned()),
        Some(_) => Err(format!("{} is not this container's", shown(reference))),
        None => Ok(reference.trim().to_ascii_lowercase()),
    }
}

/// The service that a router means: the one it names, or the only one; `None`: there is none, and Traefik makes one.
pub(super) fn service_of<'l, 'a>(
    services: &'l Elements<'a>,
    router: &Keys<'_>,
) -> Result<Option<&'l Keys<'a>>, String> {
    match router.get("service") {
        Some(said) => {
            let found = services.get(&referred(said.value)?);
            found.map(Some).ok_or_else(|| format!("service {} is not this container's", shown(said.value)))
        }
        None if services.len() > 1 => Err("there are several services, and it names none".to_owned()),
        None => Ok(services.values().next()),
    }
}

/// The service's port, else the lowest that is registered.
pub(super) fn port_of(services: &Elements<'_>, router: &Keys<'_>, tcp: &BTreeSet<Port>) -> Result<Port, String> {
    match service_of(services, router)?.and_then(|keys| keys.get(PORT)) {
        Some(said) => {
            let port = said.value.parse::<Port>().map_err(|_| format!("{} is not a port", label(said.name)))?;
            if tcp.contains(&port) { Ok(port) } else { Err(format!("port {port} is not registered")) }
        }
        None => tcp.first().copied().ok_or_else(|| "no TCP port is registered".to_owned()),
    }
}

/// What a router does beside its rule.
#[derive(Default)]
struct Options {
    priority: Option<i32>,
    sticky: bool,
    redirect_https: bool,
    strip: Vec<PathPrefix>,
}

impl Options {
    fn of(labels: &Labels<'_>, router: &Keys<'_>) -> Result<Self, String> {
        let priority = router.get("priority").map(|said| said.value.parse().map_err(|_| bad(said))).transpose()?;
        // 0 is Traefik's default: by length.
        let mut options = Self { priority: priority.filter(|priority| *priority != 0), ..Self::default() };
        for (key, said) in service_of(&labels.http.services, router)?.into_iter().flatten() {
            options.service(key, said)?;
        }
        let names = router.get("middlewares").map_or("", |said| said.value);
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let found = labels.http.middlewares.get(&referred(name).map_err(|why| format!("middleware {why}"))?);
            let keys = found.ok_or_else(|| format!("middleware {} is not this container's", shown(name)))?;
            keys.iter().try_for_each(|(key, said)| options.middleware(key, said))?;
        }
        Ok(options)
    }

    fn service(&mut self, key: &str, said: &Said<'_>) -> Result<(), String> {
        // HAProxy and the agent check in their own way; how an answer is flushed does not change it.
        const PASSED_OVER: [&str; 2] = ["loadbalancer.healthcheck.", "loadbalancer.responseforwarding."];
        match key {
            PORT => {}
            SCHEME if ["http", "h2c"].iter().any(|scheme| said.value.eq_ignore_ascii_case(scheme)) => {}
            "loadbalancer.passhostheader" if values::go_bool(said.value) == Some(true) => {}
            "loadbalancer.sticky" | "loadbalancer.sticky.cookie" => {
                self.sticky |= values::go_bool(said.value).ok_or_else(|| bad(said))?;
            }
            key if key.starts_with("loadbalancer.sticky.cookie.") => self.sticky = true,
            key if PASSED_OVER.iter().any(|prefix| key.starts_with(prefix)) => {}
            _ => return Err(bad(said)),
        }
        Ok(())
    }

    fn middleware(&mut self, key: &str, said: &Said<'_>) -> Result<(), String> {
        match key {
            "stripprefix.prefixes" => {
                for prefix in bounded(said.value)?.split(',') {
                    self.strip
                        .push(prefix.trim().parse().map_err(|e: RouteError| format!("{}: {e}", label(said.name)))?);
                }
            }
            "redirectscheme.scheme" if said.value.eq_ignore_ascii_case("https") => self.redirect_https = true,
            "redirectscheme.port" if said.value == "443" => {}
            "redirectscheme.permanent" | "stripprefix.forceslash" => {}
            // Smaller answers of the same meaning.
            key if key == "compress" || key.starts_with("compress.") => {}
            _ => return Err(bad(said)),
        }
        Ok(())
    }

    fn route(&self, term: Term) -> Result<Route, String> {
        let host = term.host.ok_or_else(|| "no Host: a route is one host's".to_owned())?;
        let path = term.path.unwrap_or_else(PathPrefix::root);
        // Traefik strips the first prefix that fits; one that fits a part of the requests only, or leaves a rest, is no route's.
        let fits = |prefix: &&PathPrefix| prefix.covers(path.as_str()) || path.covers(prefix.as_str());
        let strip_prefix = match self.strip.iter().find(fits) {
            Some(prefix) if *prefix == path => !path.is_root(),
            Some(prefix) => return Err(format!("stripping {prefix} from {host}{path} cannot be imported")),
            None => false,
        };
        let (priority, sticky, redirect_https) = (self.priority, self.sticky, self.redirect_https);
        Ok(Route { strip_prefix, priority, sticky, redirect_https, ..Route::new(host, path) })
    }
}

/// The refusal of a label. Its value may be a secret and is not shown.
pub(super) fn bad(said: &Said<'_>) -> String {
    format!("{} cannot be imported", label(said.name))
}

/// A reference where it is a name; anything else may be a secret.
fn shown(reference: &str) -> String {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
    let reference = reference.trim();
    if reference.len() <= 64 && reference.bytes().all(is_name) { format!("{reference:?}") } else { "it".to_owned() }
}
