//! From a port with a name, an id and an address to the candidate: everything else that its labels say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::address::Address;
use super::check_spec::{CheckKind, CheckSpec};
use super::container::{Container, Health};
use super::decision::{Candidate, Drain, Skip};
use super::labels::PortView;
use super::routes::PortRoutes;
use super::settings::{HealthPolicy, Settings};
use super::{checks, values};
use crate::{Backend, BackendId, Mode, Port, ServiceName, Status, Transport, Weight};

/// What is known of a port by the time its candidate is built.
pub struct Subject<'a, 'v> {
    /// The container.
    pub container: &'a Container,
    /// The port inside it.
    pub port: Port,
    /// Its transport.
    pub transport: Transport,
    /// What the labels say of it.
    pub view: PortView<'v, 'a>,
    /// The container uses the host's network.
    pub host_network: bool,
    /// How it wants to be reached through the HTTP edge.
    pub routes: PortRoutes,
}

impl Subject<'_, '_> {
    /// Everything but the name, the id and the address, which the caller gives. What was decided is added to `trail`, what was
    /// left out to `warnings`.
    ///
    /// # Errors
    /// [`Skip::BadLabel`] for a value that cannot be meant; [`Skip::HealthStarting`] or [`Skip::Unhealthy`] where the
    /// policy hides the container.
    pub fn candidate(
        self,
        service: ServiceName,
        id: BackendId,
        address: Address,
        settings: &Settings,
        trail: &mut Vec<String>,
        warnings: &mut Vec<String>,
    ) -> Result<Candidate, Skip> {
        let checks = checks::read(&self.view)?;
        let labels = self.labels(settings)?;
        let h2 = self.h2()?;
        let mode = self.mode(&checks, h2.as_deref(), trail)?;
        let options = server_options(mode, h2, trail, warnings);
        let replaces = self.replaces()?;
        let routes = self.routes.fitting(mode);
        trail.extend(routes.trail);
        warnings.extend(routes.refused.iter().map(|why| format!("route left out: {why}")));
        let weight = |text: &str| text.parse::<u32>().ok().and_then(|w| Weight::try_from(w).ok());
        let service_port = self.view.read("service-port", "a port, 1 to 65535", |t| t.parse::<Port>().ok())?;
        let drain = self.view.read("drain", DRAIN, drain)?.unwrap_or_default();
        let warmup = self.view.read("warmup", values::DURATION, values::duration)?;
        let weight = self.view.read("weight", "a whole number from 0 to 256", weight)?;
        if warmup.is_some() && weight.is_none_or(|w| w.get() <= 1) {
            trail.push("warm-up: none, as it grows a weight above 1 (label register.weight)".to_owned());
        }
        let policy = |text: &str| text.parse::<HealthPolicy>().ok();
        let policy = self.view.read("health", "hide, down or ignore", policy)?.unwrap_or(settings.health);
        let status = health(self.container.health, policy, trail)?;
        for check in &checks {
            trail.push(format!("check: {}, every {:?}", check.kind.as_str(), check.interval));
        }
        Ok(Candidate {
            service,
            backend: Backend {
                name: display_name(&self.container.name),
                weight,
                labels: Arc::new(labels),
                transport: self.transport,
                mode,
                service_port: Some(service_port.unwrap_or(self.port)),
                status,
                haproxy_server_options: options,
                routes: routes.routes,
                sni: routes.sni,
                left_out: (!routes.refused.is_empty()).then(|| routes.refused.join("; ").into()),
                ..Backend::new(id, address.host, address.port)
            },
            dial: address.dial,
            host_network: self.host_network,
            checks,
            docker_health: self.container.health.is_some() && policy != HealthPolicy::Ignore,
            health_policy: policy,
            drain,
            warmup,
            replaces,
            stop_signal: self.container.stop_signal,
            stop_timeout: self.container.stop_timeout,
        })
    }

    /// Registrator's attributes and tags, and the host's place unless an attribute says another.
    fn labels(&self, settings: &Settings) -> Result<BTreeMap<String, String>, Skip> {
        let attributes = self.view.under("attr:");
        let mut labels: BTreeMap<String, String> =
            attributes.into_iter().map(|(key, entry)| (key.to_owned(), entry.value.to_owned())).collect();
        if let Some(zone) = &settings.zone {
            let place = [("zone", Some(zone)), ("node", settings.node.as_ref())];
            for (key, value) in place.into_iter().filter_map(|(key, value)| Some((key, value?))) {
                labels.entry(key.to_owned()).or_insert_with(|| value.to_string());
            }
        }
        if let Some(entry) = self.view.get("tags") {
            let accepted = "a comma list of at most 1024 bytes without control characters";
            if entry.value.len() > 1024 || entry.value.chars().any(char::is_control) {
                return Err(entry.bad(accepted));
            }
            let tags = values::tags(entry.value);
            labels.extend((!tags.is_empty()).then(|| ("tags".to_owned(), tags)));
        }
        Ok(labels)
    }

    /// The label that says that the program speaks HTTP/2 without TLS.
    fn h2(&self) -> Result<Option<String>, Skip> {
        match self.view.get("proto") {
            Some(entry) if entry.value.eq_ignore_ascii_case("h2") => Ok(Some(entry.origin())),
            Some(entry) if entry.value.eq_ignore_ascii_case("h1") => Ok(None),
            Some(entry) => Err(entry.bad("h1 or h2")),
            None => Ok(self.routes.h2.clone()),
        }
    }

    fn mode(&self, checks: &[CheckSpec], h2: Option<&str>, trail: &mut Vec<String>) -> Result<Option<Mode>, Skip> {
        if let Some(entry) = self.view.get("mode") {
            let mode = entry.value.parse().map_err(|_| entry.bad("tcp or http"))?;
            trail.push(format!("mode: {} → {mode}", entry.origin()));
            return Ok(Some(mode));
        }
        let asked = &self.routes;
        if self.transport == Transport::Tcp && asked.routes.is_empty() && !asked.sni.is_empty() {
            trail.push("mode: tcp, as TLS is passed through to it".to_owned());
            return Ok(Some(Mode::Tcp));
        }
        let by_check = checks.iter().any(|check| matches!(check.kind, CheckKind::Http(_)));
        let why = match h2 {
            _ if by_check => Some("has an http check"),
            _ if !asked.routes.is_empty() => Some("has routes"),
            h2 => h2.map(|_| "speaks HTTP/2"),
        };
        if let Some(why) = why.filter(|_| self.transport == Transport::Tcp) {
            trail.push(format!("mode: http, as it {why}"));
            return Ok(Some(Mode::Http));
        }
        Ok(None)
    }

    fn replaces(&self) -> Result<Option<Arc<str>>, Skip> {
        let name = |text: &str| {
            let safe = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            ((1..=255).contains(&text.len()) && text.bytes().all(safe)).then(|| Arc::from(text))
        };
        self.view.read("replaces", "a container's name or id", name)
    }
}

/// The words of HAProxy's server line. HTTP/2 cannot be spoken where nothing is known of the stream.
fn server_options(
    mode: Option<Mode>,
    h2: Option<String>,
    trail: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Option<Arc<str>> {
    let origin = h2?;
    if mode != Some(Mode::Http) {
        warnings.push(format!("{origin} is not used: HTTP/2 is for mode http"));
        return None;
    }
    trail.push(format!("protocol: HTTP/2, {origin}"));
    Some("proto h2".into())
}

const DRAIN: &str = "off, on, or how long to drain, such as 30s";

fn drain(text: &str) -> Option<Drain> {
    match values::switch(text) {
        Some(false) => Some(Drain::Off),
        Some(true) => Some(Drain::UntilStopped),
        None => values::duration(text).filter(|d| *d > Duration::ZERO).map(Drain::For),
    }
}

fn health(health: Option<Health>, policy: HealthPolicy, trail: &mut Vec<String>) -> Result<Status, Skip> {
    let Some(health) = health else { return Ok(Status::Up) };
    let word = match health {
        Health::Starting => "starting",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    };
    match (policy, health) {
        (HealthPolicy::Ignore, _) => {
            trail.push(format!("health: {word}, which is ignored"));
            Ok(Status::Up)
        }
        (_, Health::Healthy) => {
            trail.push("health: healthy".to_owned());
            Ok(Status::Up)
        }
        (HealthPolicy::Down, _) => {
            trail.push(format!("health: {word} → published as down"));
            Ok(Status::Down)
        }
        (HealthPolicy::Hide, Health::Starting) => Err(Skip::HealthStarting),
        (HealthPolicy::Hide, Health::Unhealthy) => Err(Skip::Unhealthy),
    }
}

/// A container's name where it has the characters that a backend's name may have.
fn display_name(name: &str) -> Option<Arc<str>> {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"_.:@-".contains(&b);
    ((1..=255).contains(&name.len()) && name.bytes().all(safe)).then(|| name.into())
}
