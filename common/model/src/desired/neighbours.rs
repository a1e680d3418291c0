//! What is decided about one container by looking at others: whose network it is on, which ports of a shared network are its own,
//! and which networks the reader is on.
//!
//! Of all programs on one network only one listens on a port, and Docker does not say whose. So a port belongs to the container that
//! names it by label, else to the one that joined the network (`network_mode: container:X`) and exposes it, else to the network's owner.
//! Where two joined and expose one port, it is nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

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

/// Whose network the container joined, by whatever its owner wrote.
fn target(container: &Container) -> Option<&str> {
    container.network_mode.strip_prefix("container:")
}

/// The containers that joined another's network, by what they call that one.
#[derive(Debug, Default)]
pub struct Joined {
    of: BTreeMap<String, BTreeSet<ContainerId>>,
    targets: BTreeMap<ContainerId, String>,
}

impl Joined {
    /// Takes in what became of containers.
    pub fn update<'a>(&mut self, changed: impl Iterator<Item = (&'a ContainerId, Option<&'a Arc<Container>>)>) {
        for (id, container) in changed {
            let target = container.and_then(|container| target(container));
            if self.targets.get(id).map(String::as_str) == target {
                continue;
            }
            if let Some(old) = self.targets.remove(id)
                && let Some(joined) = self.of.get_mut(&old)
            {
                joined.remove(id);
                if joined.is_empty() {
                    self.of.remove(&old);
                }
            }
            if let Some(target) = target {
                self.targets.insert(id.clone(), target.to_owned());
                self.of.entry(target.to_owned()).or_default().insert(id.clone());
            }
        }
    }

    /// `some`, and all that share a network with one of them, as `all` is.
    pub fn groups(&self, some: &BTreeSet<ContainerId>, all: &ContainerMap) -> BTreeSet<ContainerId> {
        let mut groups = some.clone();
        if self.of.is_empty() {
            return groups;
        }
        let mut waiting: Vec<ContainerId> = some.iter().cloned().collect();
        while let Some(id) = waiting.pop() {
            let name = all.get(&id).map(|container| container.name.as_str());
            let short = self.of.range::<str, _>((Bound::Included(id.short()), Bound::Included(id.as_str())));
            let by_id = short.filter(|(target, _)| id.as_str().starts_with(target.as_str()));
            let by_name = name.and_then(|name| self.of.get(name));
            let owner = self.targets.get(&id).and_then(|target| ports::called(target, all)).map(|owner| &owner.id);
            let near: Vec<ContainerId> =
                by_id.map(|(_, joined)| joined).chain(by_name).flatten().chain(owner).cloned().collect();
            waiting.extend(near.into_iter().filter(|id| groups.insert(id.clone())));
        }
        groups
    }

    /// Those among `some` that joined another's network.
    pub fn of<'a>(
        &'a self,
        some: &'a BTreeSet<ContainerId>,
        all: &'a ContainerMap,
    ) -> impl Iterator<Item = &'a Arc<Container>> {
        let none = self.targets.is_empty();
        some.iter().filter(move |id| !none && self.targets.contains_key(*id)).filter_map(|id| all.get(id))
    }
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
pub(super) fn reader<'a>(all: &'a ContainerMap, settings: &Settings) -> Option<&'a Container> {
    // Shorter texts than a short id are no ids.
    let mut ids = settings.networks.own_ids.iter().filter(|own| own.len() >= 12);
    let by_id =
        |own: &String| all.from_key(own.as_str()).next().filter(|(id, _)| id.as_str().starts_with(own.as_str()));
    let (_, found) = ids.find_map(by_id)?;
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
        Self::among(all, settings, all.values())
    }

    /// Looks at `some` alone, which hold all that share a network with those that will be asked about.
    pub fn among(all: &'a ContainerMap, settings: &Settings, some: impl Iterator<Item = &'a Arc<Container>>) -> Self {
        let mut shared: BTreeMap<&ContainerId, Vec<Claims<'_>>> = BTreeMap::new();
        for container in some.filter(|c| c.state == State::Running && target(c).is_some()) {
            if let Ok(Attachment::Own(owner)) = ports::attachment(container, all) {
                let claims = shared.entry(&owner.id).or_insert_with(|| vec![Claims::of(owner, owner)]);
                claims.push(Claims::of(container, owner));
            }
        }
        Self { all, reader: reader(all, settings), shared }
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
