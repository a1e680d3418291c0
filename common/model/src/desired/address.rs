//! Under which address a port is published: the rules in their order, the first that applies decides.

use std::net::{IpAddr, SocketAddr};

use super::container::{Binding, Container, Network};
use super::decision::Skip;
use super::labels::PortView;
use super::naming::excerpt;
use super::ports::{Attachment, Candidate};
use super::reachable;
use super::settings::{Family, Settings};
use super::values;
use crate::{Host, Port};

/// What the rules gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// What is published.
    pub host: Host,
    /// The port on it.
    pub port: Port,
    /// The container's own address and port, where it has one.
    pub dial: Option<SocketAddr>,
    /// Which rule gave it.
    pub why: String,
    /// What may be wrong with it all the same.
    pub warnings: Vec<String>,
}

/// Applies the rules: label → host network → published binding → the container's own address (`--internal`, or a port that the
/// label `register.port` or `register.<port>.network` asks for).
///
/// # Errors
/// The [`Skip`] that says which rule failed and what would mend it.
pub fn choose(
    port: &Candidate,
    attachment: Attachment<'_>,
    view: &PortView<'_, '_>,
    settings: &Settings,
    reader: Option<&Container>,
) -> Result<Address, Skip> {
    let by_label = if settings.no_address_labels { None } else { by_label(port, attachment, view, settings)? };
    let mut found = match by_label {
        Some(found) => found,
        None => by_attachment(port, attachment, view, settings, reader)?,
    };
    if let (true, Some(entry)) = (settings.no_address_labels, view.get("address")) {
        found.warnings.push(format!("{} is not allowed here (--no-address-labels) and does not count", entry.origin()));
    }
    if found.dial.is_none() {
        found.dial = own_address(port, attachment, view, settings, reader);
    }
    Ok(found)
}

fn by_label(
    port: &Candidate,
    attachment: Attachment<'_>,
    view: &PortView<'_, '_>,
    settings: &Settings,
) -> Result<Option<Address>, Skip> {
    let Some(entry) = view.get("address") else { return Ok(None) };
    let read = values::host_and_port(entry.value);
    let (host, given) = read.ok_or_else(|| entry.bad("an address or a host name, with or without a port"))?;
    if let Some(what) = reachable::fault(&host) {
        return Err(entry.bad(format!("an address that clients can reach, but {what}")));
    }
    if !settings.allow_loopback && reachable::is_loopback(&host) {
        return Err(Skip::LoopbackOnly);
    }
    let published = pick(&port.bindings, settings).ok().map(|(binding, _)| binding.port);
    let host_network = attachment == Attachment::Host;
    let (number, whence) = match (given, published) {
        (Some(given), _) => (given, "its own port"),
        (None, Some(published)) => (published, "the published port"),
        (None, None) => (port.port, "the container's port"),
    };
    let why = format!("address: {} → {}, with {whence}", entry.origin(), host.with_port(number));
    let dial = host.ip().filter(|_| host_network).map(|ip| SocketAddr::new(ip, port.port.get()));
    Ok(Some(Address { host, port: number, dial, why, warnings: Vec::new() }))
}

fn by_attachment(
    port: &Candidate,
    attachment: Attachment<'_>,
    view: &PortView<'_, '_>,
    settings: &Settings,
    reader: Option<&Container>,
) -> Result<Address, Skip> {
    let Attachment::Own(container) = attachment else {
        let ip = host_ip(settings)?;
        return Ok(Address {
            host: ip.into(),
            port: port.port,
            dial: Some(SocketAddr::new(ip, port.port.get())),
            why: format!("address: host network → HOST_IP {ip}"),
            warnings: Vec::new(),
        });
    };
    if container.network_mode == "none" {
        let why = "its network is none, where publishing a port does nothing; give it another network";
        return Err(Skip::NoAddress(why.to_owned()));
    }
    let by_own_address = port.asked_for || view.get("network").is_some();
    if settings.internal {
        let chosen = network(container, view, settings, reader)?;
        return internal(port, container, chosen, settings, "--internal");
    }
    if !port.bindings.is_empty() {
        return published(port, settings);
    }
    if by_own_address {
        let chosen = network(container, view, settings, reader)?;
        let mut found = internal(port, container, chosen, settings, "asked for by label, not published")?;
        found.warnings.push(format!(
            "port {} is not published: {} is reachable only where the container's network is routed",
            port.port, found.host
        ));
        return Ok(found);
    }
    Err(Skip::NotPublished)
}

fn published(port: &Candidate, settings: &Settings) -> Result<Address, Skip> {
    let (binding, wildcard) = pick(&port.bindings, settings)?;
    let shown = binding.ip.map_or_else(|| format!("*:{}", binding.port), |ip| Host::Ip(ip).with_port(binding.port));
    let mut warnings = Vec::new();
    let (ip, why) = if wildcard {
        let ip = host_ip(settings)?;
        if let Some(bound) = binding.ip
            && bound.is_ipv4() != ip.is_ipv4()
        {
            warnings.push(format!("the port is published on {shown} only, and HOST_IP {ip} is of the other family"));
        }
        (ip, format!("address: published binding {shown} → HOST_IP {ip}"))
    } else {
        let ip = binding.ip.ok_or_else(|| Skip::NoAddress("the binding has none".to_owned()))?;
        (ip, format!("address: published binding {shown}"))
    };
    Ok(Address { host: ip.into(), port: binding.port, dial: None, why, warnings })
}

/// HOST_IP, where it is known and may be published.
fn host_ip(settings: &Settings) -> Result<IpAddr, Skip> {
    match settings.host_ip {
        None => Err(Skip::HostIpMissing),
        Some(ip) if ip.to_canonical().is_unspecified() => Err(Skip::HostIpMissing),
        Some(ip) if is_loopback(ip) && !settings.allow_loopback => Err(Skip::LoopbackOnly),
        Some(ip) => Ok(ip),
    }
}

/// The binding to publish and whether it stands for every address of the host. A specific address of the preferred family is
/// best, then a specific one, then all addresses (those of HOST_IP's family first), then loopback where that is allowed. Of
/// equal ones the lowest wins, so the order in the daemon's answer has no say.
fn pick(bindings: &[Binding], settings: &Settings) -> Result<(Binding, bool), Skip> {
    let is_wildcard = |b: &Binding| b.ip.is_none_or(|ip| ip.to_canonical().is_unspecified());
    let host_is_v6 = settings.host_ip.is_some_and(|ip| ip.is_ipv6());
    let rank = |b: &Binding| match b.ip {
        _ if is_wildcard(b) => 2 + u8::from(b.ip.is_some_and(|ip| ip.is_ipv6() != host_is_v6)),
        Some(ip) if is_loopback(ip) => 4,
        Some(ip) => u8::from(ip.is_ipv6() != (settings.family == Family::Ipv6)),
        None => 2,
    };
    let usable = bindings.iter().filter(|b| settings.allow_loopback || !b.ip.is_some_and(is_loopback));
    let best = usable.min_by_key(|b| (rank(b), **b)).copied();
    best.map(|binding| (binding, is_wildcard(&binding))).ok_or(if bindings.is_empty() {
        Skip::NotPublished
    } else {
        Skip::LoopbackOnly
    })
}

fn internal(
    port: &Candidate,
    container: &Container,
    chosen: Chosen<'_>,
    settings: &Settings,
    rule: &str,
) -> Result<Address, Skip> {
    let Chosen { name, network, by, mut warnings } = chosen;
    let ip = address_on(network, settings.family)
        .ok_or_else(|| Skip::NoAddress(format!("the container has none on its network {name}")))?;
    if is_loopback(ip) && !settings.allow_loopback {
        return Err(Skip::LoopbackOnly);
    }
    if container.networks.len() > 1 && by == By::Order {
        warnings.push(format!(
            "the container is on several networks and {name} was taken as the first by name; the label register.network chooses"
        ));
    }
    let shared = if by == By::Reader { ", which this program is on, too" } else { "" };
    Ok(Address {
        host: ip.into(),
        port: port.port,
        dial: Some(SocketAddr::new(ip, port.port.get())),
        why: format!("address: {rule} → {ip} on network {name}{shared}"),
        warnings,
    })
}

/// One of a container's networks.
struct Chosen<'c> {
    name: &'c str,
    network: &'c Network,
    by: By,
    warnings: Vec<String>,
}

/// What chose a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// A label or a setting.
    Word,
    /// The reader is on it.
    Reader,
    /// The order of names.
    Order,
}

/// The network that gives a container's own address: by label, by another proxy's label, by setting, else the first by name that the
/// reader is on, else the first that has an address.
fn network<'c>(
    container: &'c Container,
    view: &PortView<'_, '_>,
    settings: &Settings,
    reader: Option<&Container>,
) -> Result<Chosen<'c>, Skip> {
    let names = |of: &Container| of.networks.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let known = |name: &str| container.networks.get_key_value(name);
    let chosen = |(name, network): (&'c String, &'c Network), by, warnings| Chosen { name, network, by, warnings };
    if let Some(entry) = view.get("network") {
        let listed = || entry.bad(format!("one of the container's networks ({})", names(container)));
        return Ok(chosen(known(entry.value).ok_or_else(listed)?, By::Word, Vec::new()));
    }
    let mut warnings = Vec::new();
    if let Some(wanted) = view.get("proxy.network").map(|entry| entry.value).or(settings.networks.name.as_deref()) {
        match known(wanted) {
            Some(found) => return Ok(chosen(found, By::Word, warnings)),
            None => warnings.push(format!(
                "the container is not on network {}; it is on {}",
                excerpt(wanted),
                names(container)
            )),
        }
    }
    let usable = || container.networks.iter().filter(|(_, network)| network.ipv4.is_some() || network.ipv6.is_some());
    let of_reader = |(name, _): &(&String, &Network)| reader.is_some_and(|reader| reader.networks.contains_key(*name));
    if let Some(shared) = usable().find(of_reader) {
        return Ok(chosen(shared, By::Reader, warnings));
    }
    let first = usable().next().ok_or_else(|| {
        Skip::NoAddress(format!("the container has none of its own (network mode {:?})", container.network_mode))
    })?;
    if let Some(reader) = reader {
        warnings.push(format!(
            "the container is on no network that this program is on ({}), so it may not be reachable; it is on {}",
            names(reader),
            names(container)
        ));
    }
    Ok(chosen(first, By::Order, warnings))
}

fn address_on(network: &Network, family: Family) -> Option<IpAddr> {
    let usable = |ip: &IpAddr| !ip.is_unspecified();
    let v4 = network.ipv4.map(IpAddr::V4).filter(usable);
    let v6 = network.ipv6.map(IpAddr::V6).filter(usable);
    match family {
        Family::Ipv4 => v4.or(v6),
        Family::Ipv6 => v6.or(v4),
    }
}

/// The container's own address for checks, whatever is published; a bad network label was refused where it matters.
fn own_address(
    port: &Candidate,
    attachment: Attachment<'_>,
    view: &PortView<'_, '_>,
    settings: &Settings,
    reader: Option<&Container>,
) -> Option<SocketAddr> {
    match attachment {
        Attachment::Host => settings.host_ip.map(|ip| SocketAddr::new(ip, port.port.get())),
        Attachment::Own(container) => {
            let Chosen { network, .. } = network(container, view, settings, reader).ok()?;
            Some(SocketAddr::new(address_on(network, settings.family)?, port.port.get()))
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
