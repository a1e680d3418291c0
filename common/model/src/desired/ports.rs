//! Which ports of a container are looked at, and where each is published.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::container::{Binding, Container, State};
use super::decision::Skip;
use super::labels::Vocabulary;
use super::{ContainerMap, Settings, routes};
use crate::{Port, Transport};

/// How a container is attached to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment<'a> {
    /// It has a network of its own, or its owner's: addresses and bindings are this container's.
    Own(&'a Container),
    /// It uses the host's.
    Host,
}

/// Whose network a container uses, `network_mode: container:X` followed (a few steps at most).
///
/// # Errors
/// [`Skip::NetworkOwnerMissing`] when X is not known or does not run.
pub fn attachment<'a>(container: &'a Container, all: &'a ContainerMap) -> Result<Attachment<'a>, Skip> {
    const MOST_STEPS: usize = 4;
    let mut current = container;
    for _ in 0..MOST_STEPS {
        if current.network_mode == "host" {
            return Ok(Attachment::Host);
        }
        let Some(owner) = current.network_mode.strip_prefix("container:") else { return Ok(Attachment::Own(current)) };
        let missing = || Skip::NetworkOwnerMissing(super::naming::excerpt(owner));
        current = called(owner, all).filter(|c| c.state == State::Running).ok_or_else(missing)?;
    }
    Err(Skip::NetworkOwnerMissing(super::naming::excerpt(&container.network_mode)))
}

/// The container that `container:` names so. The daemon stores the id; Podman and people may leave a name or a short id.
pub fn called<'a>(name: &str, all: &'a ContainerMap) -> Option<&'a Arc<Container>> {
    let by_id = all.from_key(name).next().filter(|(id, _)| name.len() >= 12 && id.as_str().starts_with(name));
    by_id.map(|(_, container)| container).or_else(|| all.values().find(|c| c.name == name))
}

/// One port to be decided about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The port inside the container.
    pub port: Port,
    /// Its transport.
    pub transport: Transport,
    /// Where it is published.
    pub bindings: Vec<Binding>,
    /// Its owner asked for it by number (`register.port`), so it need not be published.
    pub asked_for: bool,
    /// `register.port` lists others.
    pub unlisted: bool,
}

/// All ports of a container: exposed, published, and listed by `register.port`. On another's network its bindings are the owner's, and those
/// of the owner's ports count that a label names. Those that other proxies' labels and `VIRTUAL_HOST` name count, too, wherever an
/// unpublished port can be reached. Sorted.
///
/// # Errors
/// [`Skip::BadLabel`] for a list that cannot be read.
pub fn all(
    container: &Container,
    attachment: Attachment<'_>,
    vocabulary: &Vocabulary<'_>,
    settings: &Settings,
) -> Result<Vec<Candidate>, Skip> {
    let listed = vocabulary.listed()?;
    let of_list = |(port, transport): &(Port, Transport)| {
        listed.iter().flatten().any(|(one, t)| one == port && t.is_none_or(|t| t == *transport))
    };
    let mut ports: BTreeMap<(Port, Transport), Candidate> = BTreeMap::new();
    let new = |port, transport| Candidate { port, transport, bindings: Vec::new(), asked_for: false, unlisted: false };
    for known in &container.ports {
        let key = (known.port, known.transport);
        ports.entry(key).or_insert_with(|| new(key.0, key.1)).bindings.clone_from(&known.published);
    }
    if let Attachment::Own(owner) = attachment
        && owner.id != container.id
    {
        let named_by_proxies = routes::named_ports(container, vocabulary);
        for theirs in &owner.ports {
            let key = (theirs.port, theirs.transport);
            let is_tcp = theirs.transport == Transport::Tcp;
            let named = vocabulary.at(key.0, key.1).is_named() || (is_tcp && named_by_proxies.contains(&key.0));
            if let Some(known) = ports.get_mut(&key) {
                known.bindings.clone_from(&theirs.published);
            } else if named || of_list(&key) {
                ports.insert(key, Candidate { bindings: theirs.published.clone(), ..new(key.0, key.1) });
            }
        }
    }
    if let Some(listed) = listed {
        for candidate in ports.values_mut() {
            candidate.unlisted = true;
        }
        for (port, transport) in listed {
            // Without a transport the list means what is there; where nothing is, TCP.
            let known: Vec<Transport> = [Transport::Tcp, Transport::Udp]
                .into_iter()
                .filter(|t| transport.map_or_else(|| ports.contains_key(&(port, *t)), |wanted| wanted == *t))
                .collect();
            let wanted = if known.is_empty() { vec![transport.unwrap_or_default()] } else { known };
            for transport in wanted {
                let candidate = ports.entry((port, transport)).or_insert_with(|| new(port, transport));
                (candidate.asked_for, candidate.unlisted) = (true, false);
            }
        }
    } else if settings.internal || attachment == Attachment::Host {
        for port in routes::named_ports(container, vocabulary) {
            ports.entry((port, Transport::Tcp)).or_insert_with(|| new(port, Transport::Tcp)).asked_for = true;
        }
    }
    Ok(ports.into_values().collect())
}
