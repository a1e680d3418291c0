//! What is decided about one container by looking at others: whose network it is on, which ports of a shared network are its own,
//! and which networks the reader is on.
//!
//! Of all programs on one network only one listens on a port, and Docker does not say whose. So a port belongs to the container that
//! names it by label, else to the one that joined the network (`network_mode: container:X`) and exposes it, else to the network's owner.
//! Where two joined and expose one port, it is nobody's.

use std::collections::{BTreeMap, BTreeSet};

use super::container::{Container, ContainerId, State};
use super::decision::Skip;
use super::labels::Vocabulary;
use super::ports::{self, Attachment};
use super::{ContainerMap, Settings, routes};
use crate::{Port, Transport};

type Socket = (Port, Transport);

/// The other containers, as far as they matter.
#[derive(Debug)]
pub struct Neighbours<'a> {
    /// All of them.
    pub all: &'a ContainerMap,
    /// The container that this program runs in.
    pub reader: Option<&'a Container>,
    /// By the owner of a network that others joined.
    shared: BTreeMap<&'a ContainerId, Vec<Claims<'a>>>,
}

/// Which ports of a shared network a container says are its own.
#[derive(Debug)]
struct Claims<'a> {
    container: &'a Container,
    named: BTreeSet<Socket>,
    exposed: BTreeSet<Socket>,
}

impl<'a> Claims<'a> {
    fn of(container: &'a Container, owner: &'a Container) -> Self {
        let vocabulary = Vocabulary::read(container);
        let socket = |port: &super::ContainerPort| (port.port, port.transport);
        let joined = container.id != owner.id;
        Self {
            container,
            named: named(container, owner, &vocabulary),
            exposed: container.ports.iter().filter(|_| joined).map(socket).collect(),
        }
    }
}

/// The container that this program runs in, if it has networks of its own.
fn reader<'a>(all: &'a ContainerMap, settings: &Settings) -> Option<&'a Container> {
    // Shorter texts than a short id are no ids.
    let ids = || settings.networks.own_ids.iter().filter(|own| own.len() >= 12);
    let (_, found) = all.iter().find(|(id, _)| ids().any(|own| id.as_str().starts_with(own.as_str())))?;
    match ports::attachment(found, all) {
        Ok(Attachment::Own(container)) => Some(container),
        Ok(Attachment::Host) | Err(_) => None,
    }
}

/// The ports that a container's labels and variables name by number.
fn named(container: &Container, owner: &Container, vocabulary: &Vocabulary<'_>) -> BTreeSet<Socket> {
    let known = container.ports.iter().chain(&owner.ports).map(|port| (port.port, port.transport));
    let mut named: BTreeSet<Socket> =
        known.filter(|(port, transport)| vocabulary.at(*port, *transport).is_named()).collect();
    let listed = vocabulary.listed().ok().flatten().unwrap_or_default();
    named.extend(listed.into_iter().map(|(port, transport)| (port, transport.unwrap_or_default())));
    named.extend(routes::named_ports(container, vocabulary).into_iter().map(|port| (port, Transport::Tcp)));
    named
}

impl<'a> Neighbours<'a> {
    /// Looks at all containers once.
    pub fn new(all: &'a ContainerMap, settings: &Settings) -> Self {
        let mut shared: BTreeMap<&ContainerId, Vec<Claims<'_>>> = BTreeMap::new();
        let joined = all.values().filter(|c| c.state == State::Running && c.network_mode.starts_with("container:"));
        for container in joined {
            if let Ok(Attachment::Own(owner)) = ports::attachment(container, all) {
                let claims = shared.entry(&owner.id).or_insert_with(|| vec![Claims::of(owner, owner)]);
                claims.push(Claims::of(container, owner));
            }
        }
        Self { all, reader: reader(all, settings), shared }
    }

    /// Whether what is decided about `container` depends on others.
    pub fn concern(&self, container: &Container) -> bool {
        container.network_mode.starts_with("container:") || self.shared.contains_key(&container.id)
    }

    /// Why a port of the network of `owner` is not `container`'s, if it is another's.
    pub fn taken(&self, owner: &Container, container: &Container, socket: Socket) -> Option<Skip> {
        let claims = self.shared.get(&owner.id)?;
        let by_label = claims.iter().any(|claims| claims.named.contains(&socket));
        let holds = |claims: &&Claims<'_>| if by_label { &claims.named } else { &claims.exposed }.contains(&socket);
        let holders: Vec<&Container> = claims.iter().filter(holds).map(|claims| claims.container).collect();
        let is_holder = holders.iter().any(|holder| holder.id == container.id);
        let other = holders.iter().find(|holder| holder.id != container.id)?;
        match (is_holder, by_label) {
            (true, true) => None,
            (true, false) => Some(Skip::Contested(other.name.clone())),
            (false, _) => Some(Skip::OfAnother(other.name.clone())),
        }
    }
}
