//! The rules in their order: from containers to decisions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::address::{self, Address};
use super::build::Subject;
use super::container::{Container, ContainerId, State};
use super::decision::{Decision, Outcome, Skip};
use super::flood;
use super::labels::{PortView, Vocabulary};
use super::naming::{self, Given};
use super::neighbours::Neighbours;
use super::ports::{self, Attachment};
use super::routes::{self, PortRoutes};
use super::{ContainerMap, Settings};
use crate::{BackendId, Host, Port, ServiceName, Transport};

/// A decision for each port of each container, and one for a container without a port.
///
/// Containers come in the order in which they were started (then by id), their ports by number: equal input gives equal output.
/// Nothing that one container says can change what is decided about another, but for two that claim one id or one address of one
/// service: there the container that was started first keeps it.
pub fn decide(containers: &ContainerMap, settings: &Settings) -> Vec<Decision> {
    let neighbours = Neighbours::new(containers, settings);
    let one = |container: &Arc<Container>| decide_among(container, &neighbours, settings);
    let mut decisions: Vec<Arc<Decision>> = in_order(containers).into_iter().flat_map(one).map(Arc::new).collect();
    settle_clashes(&mut decisions);
    decisions.into_iter().map(Arc::unwrap_or_clone).collect()
}

/// Containers as they were started.
pub(super) fn in_order(containers: &ContainerMap) -> Vec<&Arc<Container>> {
    let mut order: Vec<&Arc<Container>> = containers.values().collect();
    order.sort_by(|a, b| (&a.started_at, &a.id).cmp(&(&b.started_at, &b.id)));
    order
}

/// The decisions about one container alone; clashes with others are not seen. The `neighbours` are asked only about shared networks.
pub(super) fn decide_among(container: &Container, neighbours: &Neighbours<'_>, settings: &Settings) -> Vec<Decision> {
    let vocabulary = Vocabulary::read(container);
    let whole = |skip: Skip| {
        let mut warnings = vocabulary.warnings.clone();
        if matches!(skip, Skip::NoPortOfItsOwn(_) | Skip::Restricted { .. }) {
            warnings.push(skip.to_string());
        }
        vec![decision(container, None, Outcome::Skip(skip), Vec::new(), warnings)]
    };
    if let Some(filter) = settings.excluded_by(container) {
        // Its labels are no concern of this agent's.
        let skip = Skip::Filtered(filter.to_string());
        return vec![decision(container, None, Outcome::Skip(skip), Vec::new(), Vec::new())];
    }
    match container.state {
        State::Running => {}
        State::Paused => return whole(Skip::Paused),
        state => return whole(Skip::Stopped(state)),
    }
    let ignored = vocabulary.whole("ignore").filter(|entry| entry.is_yes());
    if let (None, Some(skip)) = (ignored, routes::restricted(&vocabulary)) {
        return whole(skip);
    }
    let found = ports::attachment(container, neighbours.all).and_then(|attachment| {
        let ports = ports::all(container, attachment, &vocabulary, settings)?;
        Ok((attachment, ports))
    });
    match found {
        Err(skip) => whole(skip),
        Ok((attachment, ports)) if ports.is_empty() => whole(match (ignored, attachment) {
            (Some(entry), _) => Skip::Ignored { by: entry.origin() },
            (None, Attachment::Own(owner)) if owner.id != container.id => Skip::NoPortOfItsOwn(owner.name.clone()),
            (None, _) => Skip::NoPort,
        }),
        Ok((attachment, ports)) => {
            let drafts = Drafts { container, attachment, vocabulary: &vocabulary, settings, neighbours };
            let (kept, left_out) = drafts.cap(ports);
            let mut decisions = drafts.decide(&kept);
            decisions.extend(left_out.into_iter().map(|skip| {
                let said = vec![skip.to_string()];
                decision(container, None, Outcome::Skip(skip), Vec::new(), said)
            }));
            decisions
        }
    }
}

fn decision(
    container: &Container,
    port: Option<(Port, Transport)>,
    outcome: Outcome,
    trail: Vec<String>,
    warnings: Vec<String>,
) -> Decision {
    let name = container.name.as_str().into();
    Decision { container: container.id.clone(), name, port, outcome, trail, warnings }
}

/// One port on its way to a decision.
struct Draft<'p, 'v, 'a> {
    port: &'p ports::Candidate,
    view: PortView<'v, 'a>,
    address: Result<Address, Skip>,
    /// It counts when the container's ports are counted: what is ignored, unpublished or unreachable does not, so it
    /// cannot change the names of the others; what is merely faulty does, for the same reason.
    eligible: bool,
}

/// What all ports of one container share.
struct Drafts<'a, 'v> {
    container: &'a Container,
    attachment: Attachment<'a>,
    vocabulary: &'v Vocabulary<'a>,
    settings: &'a Settings,
    neighbours: &'v Neighbours<'a>,
}

/// How a port stands among those of its service.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The service has no other port of this container.
    alone: bool,
    /// The service has this port over TCP, too.
    beside_tcp: bool,
}

impl<'a, 'v> Drafts<'a, 'v> {
    /// The ports that may be registered, and why others may not.
    fn cap(&self, ports: Vec<ports::Candidate>) -> (Vec<ports::Candidate>, Vec<Skip>) {
        let is_named = |port: &ports::Candidate| self.vocabulary.at(port.port, port.transport).is_named();
        let counts = |port: &ports::Candidate| self.draft(port).eligible;
        flood::cap(ports, self.attachment, self.settings.max_ports, is_named, counts)
    }

    fn decide(&self, ports: &[ports::Candidate]) -> Vec<Decision> {
        let drafts: Vec<Draft<'_, 'v, 'a>> = ports.iter().map(|port| self.draft(port)).collect();
        let eligible = || drafts.iter().filter(|draft| draft.eligible);
        let several = eligible().map(|draft| draft.port.port).collect::<BTreeSet<_>>().len() > 1;
        let named: Vec<_> = drafts.iter().map(|draft| self.name(draft, several)).collect();
        let mut sharing: BTreeMap<&ServiceName, BTreeSet<Port>> = BTreeMap::new();
        for (draft, (name, _)) in drafts.iter().zip(&named) {
            if let (true, Ok(service)) = (draft.eligible, name) {
                sharing.entry(service).or_default().insert(draft.port.port);
            }
        }
        let tcp: BTreeSet<Port> =
            eligible().filter(|d| d.port.transport == Transport::Tcp).map(|d| d.port.port).collect();
        let asked = routes::read(self.container, self.vocabulary, &tcp);
        let over_tcp: BTreeSet<(&ServiceName, Port)> = drafts
            .iter()
            .zip(&named)
            .filter(|(draft, _)| draft.eligible && draft.port.transport == Transport::Tcp)
            .filter_map(|(draft, (name, _))| Some((name.as_ref().ok()?, draft.port.port)))
            .collect();
        let mut decisions: Vec<Decision> = Vec::with_capacity(drafts.len());
        for (draft, (name, trail)) in drafts.iter().zip(&named) {
            let service = name.as_ref().ok();
            let place = Place {
                alone: service.is_none_or(|service| sharing.get(service).is_none_or(|p| p.len() < 2)),
                beside_tcp: draft.port.transport == Transport::Udp
                    && service.is_some_and(|service| over_tcp.contains(&(service, draft.port.port))),
            };
            let routes = match draft.port.transport {
                Transport::Tcp => asked.at(draft.port.port),
                Transport::Udp => PortRoutes::default(),
            };
            decisions.push(self.finish(draft, name.clone(), trail.clone(), place, routes));
        }
        if let Some(first) = decisions.first_mut() {
            first.trail.extend(asked.notes);
            first.warnings.extend(asked.warnings);
            first.warnings.extend(self.vocabulary.warnings.iter().cloned());
        }
        decisions
    }

    fn draft<'p>(&self, port: &'p ports::Candidate) -> Draft<'p, 'v, 'a> {
        let view = self.vocabulary.at(port.port, port.transport);
        let ignored = view.get("ignore").filter(|entry| entry.is_yes());
        let address = match ignored {
            Some(entry) => Err(Skip::Ignored { by: entry.origin() }),
            None if port.unlisted => Err(Skip::NotListed),
            None => match self.taken(port) {
                Some(skip) => Err(skip),
                None => address::choose(port, self.attachment, &view, self.settings, self.neighbours.reader),
            },
        };
        // A port that another container has counts, so that no name depends on what else runs.
        let eligible = matches!(
            &address,
            Ok(_) | Err(Skip::BadLabel { .. } | Skip::HostIpMissing | Skip::OfAnother(_) | Skip::Contested(_))
        );
        Draft { port, view, address, eligible }
    }

    fn taken(&self, port: &ports::Candidate) -> Option<Skip> {
        let Attachment::Own(owner) = self.attachment else { return None };
        self.neighbours.taken(owner, self.container, (port.port, port.transport))
    }

    /// The service's name and the trail of how it came about.
    fn name(&self, draft: &Draft<'_, 'v, 'a>, several: bool) -> (Result<ServiceName, Skip>, Vec<String>) {
        if !draft.eligible {
            let skip = draft.address.as_ref().err().cloned().unwrap_or(Skip::NoPort);
            return (Err(skip), Vec::new());
        }
        let given = match draft.view.get("service") {
            Some(entry) => Ok(Given { text: entry.value.to_owned(), from: entry.origin(), exact: entry.is_per_port() }),
            None if self.settings.explicit => Err(Skip::NotExplicit),
            None => naming::from_settings(self.container, Some((draft.port.port, draft.port.transport)), self.settings),
        };
        let given = match given {
            Ok(given) => given,
            Err(skip) => return (Err(skip), Vec::new()),
        };
        let name = naming::service(&given, several.then_some(draft.port.port));
        let trail = match &name {
            Ok(service) if several && !given.exact => {
                vec![format!("service: {} → {service} (the port appended, as there are several)", given.from)]
            }
            Ok(service) => vec![format!("service: {} → {service}", given.from)],
            Err(_) => Vec::new(),
        };
        (name, trail)
    }

    fn finish(
        &self,
        draft: &Draft<'_, 'v, 'a>,
        name: Result<ServiceName, Skip>,
        mut trail: Vec<String>,
        place: Place,
        routes: PortRoutes,
    ) -> Decision {
        let (port, transport) = (draft.port.port, draft.port.transport);
        let mut warnings = Vec::new();
        let build = || {
            let service = name?;
            let address = draft.address.clone()?;
            let id = self.id(draft, place, &mut trail)?;
            trail.push(address.why.clone());
            warnings.extend(address.warnings.iter().cloned());
            let subject = Subject {
                container: self.container,
                port,
                transport,
                view: draft.view,
                host_network: self.attachment == Attachment::Host,
                routes,
            };
            subject.candidate(service, id, address, self.settings, &mut trail, &mut warnings)
        };
        let outcome = match build() {
            Ok(candidate) => Outcome::Register(Box::new(candidate)),
            Err(skip) => Outcome::Skip(skip),
        };
        decision(self.container, Some((port, transport)), outcome, trail, warnings)
    }

    /// `<12-hex>[:<port>][:udp]`, or what a label says.
    fn id(&self, draft: &Draft<'_, 'v, 'a>, place: Place, trail: &mut Vec<String>) -> Result<BackendId, Skip> {
        if let Some(entry) = draft.view.get("id") {
            let mut text = entry.value.to_owned();
            if !place.alone && !entry.is_per_port() {
                text = format!("{text}:{}", draft.port.port);
            }
            if place.beside_tcp && !entry.is_per_transport() {
                text.push_str(":udp");
            }
            let id = text.parse().map_err(|_| entry.bad("1 to 255 of A-Z a-z 0-9 _ . : @ - and not \"port\""))?;
            trail.push(format!("id: {} → {id}", entry.origin()));
            return Ok(id);
        }
        let mut text = self.container.id.short().to_owned();
        if !place.alone {
            text.push_str(&format!(":{}", draft.port.port));
        }
        if draft.port.transport == Transport::Udp {
            text.push_str(":udp");
        }
        trail.push(format!("id: container id → {text}"));
        text.parse().map_err(|e: crate::NameError| Skip::BadName { from: "container id".into(), why: e.to_string() })
    }
}

/// Of two registrations with one id or one address in one service, the earlier one stays.
pub(super) fn settle_clashes(decisions: &mut [Arc<Decision>]) {
    let mut ids: HashMap<(ServiceName, BackendId), ContainerId> = HashMap::new();
    let mut addresses: HashMap<(ServiceName, Host, Port, Transport), ContainerId> = HashMap::new();
    for decision in decisions {
        let Outcome::Register(candidate) = &decision.outcome else { continue };
        let (service, backend) = (candidate.service.clone(), &candidate.backend);
        let id = (service.clone(), backend.id.clone());
        let address = (service.clone(), backend.host.clone(), backend.port, backend.transport);
        let clash = if let Some(holder) = ids.get(&id) {
            Skip::SameId { service, id: id.1, holder: holder.clone() }
        } else if let Some(holder) = addresses.get(&address) {
            Skip::SameAddress { service, address: backend.address(), holder: holder.clone() }
        } else {
            ids.insert(id, decision.container.clone());
            addresses.insert(address, decision.container.clone());
            continue;
        };
        *decision = Arc::new(Decision { outcome: Outcome::Skip(clash), ..(**decision).clone() });
    }
}
