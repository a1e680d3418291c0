//! The edge as part of haproxy.cfg: its frontends, its sections with their servers, and the rules of its map. Pure, and cached.
//!
//! What is routed has a section of the edge's, whether it has a port of its own or not: which one it is stands in the map, and
//! nothing in the file's structure says so. `plain` is how HAProxy 3.4 gets sections at run time. See [`crate::edge`] for who is
//! routed where.

pub mod frontend;
pub mod map;
mod plain;
mod slots;
mod told;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use common::model::{Mode, Pool, ServiceMap, ServiceName, Transport};
use tokio::time::Instant;

use self::frontend::{Frame, Kind};
pub use self::map::RuleMap;
use self::map::{Line, Target, is_sni};
use self::plain::PlainDefaults;
use self::slots::Slots;
use super::compose::{TemplateError, params, servers};
use super::composing::Given;
use super::layout::{Layout, Section};
use super::synapse::Quarantined;
use crate::edge::claims::{Claim, of_config, of_service};
use crate::edge::sections::{section_name, section_number};
use crate::edge::{EdgeSettings, Place, Routing, Way, decide};
use crate::generators::haproxy::turn::plan::{Applied, is_idle};
use crate::haproxy::api::version::Capabilities;
use crate::haproxy::words::options;
use crate::reconcile::Desired;

/// Composes the edge's part of the file.
pub struct EdgeComposer {
    settings: Arc<EdgeSettings>,
    frame: Frame,
    /// The frontends; and the same while another program has one of their ports.
    footers: [Arc<str>; 2],
    /// What plain sections say, and the headers that say it for them.
    plain_lines: String,
    plain: PlainDefaults,
    asked: HashMap<ServiceName, Asked>,
    routing: Arc<Routing>,
    /// Rules of services that have no backend left, and until when they stay.
    lingering: HashMap<Arc<str>, Instant>,
    slots: ByWay,
    sections: HashMap<(Way, u32), Cached>,
    /// The last map, from what it was made, and when it must be made anew.
    last: Option<Last>,
}

/// The sections of each way.
type ByWay = BTreeMap<Way, Slots>;

/// What one service asks for.
struct Asked {
    pool: Arc<Pool>,
    claims: BTreeMap<Place, Claim>,
}

/// What becomes of the sections without a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// They stay as they are.
    Stay,
    /// Plain ones go as soon as they are empty; whole ones stay.
    Go,
    /// HAProxy loads its structure anew: plain ones go, and there is the full number of whole ones.
    Refill,
}

struct Cached {
    kind: Kind,
    pool: Option<Arc<Pool>>,
    generation: u64,
    can: Capabilities,
    section: Arc<Section>,
    quarantined: Vec<Quarantined>,
}

struct Last {
    rules: Arc<RuleMap>,
    slots: ByWay,
    routing: Arc<Routing>,
    /// Lines of services without backends, and until when they stay.
    kept: Vec<Line>,
    until: Option<Instant>,
}

impl EdgeComposer {
    /// Composes for these settings; the map's file is `map`.
    ///
    /// # Errors
    /// [`TemplateError`]: the templates are ours, so never.
    pub fn new(settings: Arc<EdgeSettings>, frame: Frame, map: &str) -> Result<Self, TemplateError> {
        let failed = |source| TemplateError::Tera { name: "edge.tera".into(), source: Box::new(source) };
        let footer = |bound| frontend::frontends(&settings, &frame, map, bound).map_err(failed);
        let footers = [footer(true)?.into(), footer(false)?.into()];
        for way in settings.ways() {
            frontend::section(&settings, &frame, *way, 1, Kind::Whole).map_err(failed)?;
        }
        let (plain_lines, plain) =
            (frontend::plain_lines(&settings, &frame).map_err(failed)?, PlainDefaults::default());
        let (asked, sections, lingering) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (routing, slots, last) = (Arc::default(), ByWay::new(), None);
        Ok(Self { settings, frame, footers, plain_lines, plain, asked, routing, lingering, slots, sections, last })
    }

    /// Where the edge listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        frontend::addresses(&self.settings, &self.frame.listen)
    }

    /// Takes over from before a restart which section each service has.
    pub fn remember(&mut self, rules: &RuleMap) {
        self.slots.clear();
        for ((way, service), section) in rules.sections() {
            if let Some((_, number)) = section_number(&section).filter(|(kind, _)| *kind == way) {
                self.slots.entry(way).or_default().of.insert(service, number);
            }
        }
    }

    /// The registrations that the last turn left out.
    pub fn quarantined(&self) -> impl Iterator<Item = &Quarantined> {
        self.sections.values().flat_map(|cached| &cached.quarantined)
    }

    /// What happens where, and what came to nothing.
    pub fn routing(&self) -> &Arc<Routing> {
        &self.routing
    }

    /// The section of each service that is reached this way; how many are spare, and how many are plain. `None`: nobody is reached so.
    pub fn sections(&self, way: Way) -> Option<(BTreeMap<ServiceName, String>, [usize; 2])> {
        let slots = self.slots.get(&way)?;
        let of = slots.of.iter().map(|(service, number)| (service.clone(), section_name(way, *number)));
        Some((of.collect(), [slots.spare(), slots.plain()]))
    }

    /// When a rule's time is up.
    pub fn next_end(&self, now: Instant) -> Option<Instant> {
        self.lingering.values().filter(|at| **at > now).min().copied()
    }

    /// Adds the edge to `layout`, with such sections of `applied` as nobody needs as `idle` says.
    pub fn compose(
        &mut self,
        layout: &mut Layout,
        desired: &Desired,
        given: &Given<'_>,
        applied: &Applied,
        now: Instant,
        idle: Idle,
    ) {
        let services = &desired.services;
        let changed = self.route(services, &applied.layout);
        let (kept, until) = self.linger(services, &applied.layout, now, changed);
        let plain = self.plain.in_header(&layout.header, &self.plain_lines).filter(|_| given.can.add_backend);
        let assigned = |way: &Way| {
            // Sections in mode tcp are whole ones.
            let adds = plain.is_some() && *way == Way::Http;
            (*way, self.assign(*way, services, &kept, applied, adds, idle))
        };
        let slots: ByWay = self.settings.ways().iter().map(assigned).collect();
        layout.header = plain.unwrap_or_else(|| layout.header.clone());
        self.sections.retain(|(way, number), _| slots.get(way).is_some_and(|slots| slots.all.contains_key(number)));
        for (way, slots) in &slots {
            let by_number: HashMap<u32, &ServiceName> = slots.of.iter().map(|(s, number)| (*number, s)).collect();
            for (number, kind) in &slots.all {
                let service = by_number.get(number).copied();
                layout.sections.push(self.section((*way, *number), *kind, service, services, given));
            }
        }
        layout.rules = Some(self.rules(&slots, kept, &applied.layout, until));
        layout.footer = format!("{}{}", layout.footer, self.footers[usize::from(given.ports.edge_taken)]).into();
        self.slots = slots;
    }

    /// Decides anew where a service asks for something else than before; tells whether any service is another one at all.
    fn route(&mut self, services: &ServiceMap, applied: &Layout) -> bool {
        let (mut changed, mut other) = (self.last.is_none(), false);
        for (service, pool) in services {
            let asked = self.asked.get_mut(service);
            if asked.as_ref().is_some_and(|asked| Arc::ptr_eq(&asked.pool, pool)) {
                continue;
            }
            other = true;
            let claims = of_service(service, pool, &self.settings, self.frame.default_mode);
            match asked {
                Some(asked) if asked.claims == claims => asked.pool = pool.clone(),
                _ => {
                    changed |= !claims.is_empty() || asked.is_some_and(|asked| !asked.claims.is_empty());
                    self.asked.insert(service.clone(), Asked { pool: pool.clone(), claims });
                }
            }
        }
        if self.asked.len() > services.len() {
            self.asked.retain(|service, asked| {
                let stays = services.contains_key(service);
                changed |= !stays && !asked.claims.is_empty();
                other |= !stays;
                stays
            });
        }
        if !changed {
            return other;
        }
        let before = |place: &Place| applied.rules.as_ref().and_then(|rules| rules.service_at(place));
        let own: Vec<Claim> = of_config(&self.settings).collect();
        let all = own.iter().chain(self.asked.values().flat_map(|asked| asked.claims.values()));
        let routing = decide(all, &self.settings, before);
        if routing != *self.routing {
            self.routing = Arc::new(routing);
        }
        true
    }

    /// The lines of `applied` that stay although nobody asks for them: those of services that have lost their last backend. Such
    /// a host answers 503 for a while, and nothing must be made anew when a container comes back.
    fn linger(
        &mut self,
        services: &ServiceMap,
        applied: &Layout,
        now: Instant,
        changed: bool,
    ) -> (Vec<Line>, Option<Instant>) {
        let Some(running) = &applied.rules else { return (Vec::new(), None) };
        let same =
            |last: &&Last| !changed && Arc::ptr_eq(&last.rules, running) && last.until.is_none_or(|until| until > now);
        if let Some(last) = self.last.as_ref().filter(same) {
            return (last.kept.clone(), last.until);
        }
        let gone = |service: &str| !services.get(service).is_some_and(|pool| has_tcp(pool));
        let passes = self.settings.sni_port.is_some();
        let until = now + self.frame.linger;
        let mut kept = Vec::new();
        let mut ends = HashMap::new();
        let lines = running.missing_from(&self.routing, gone).filter(|(key, _)| passes || !is_sni(key));
        for (key, value) in lines {
            let end = self.lingering.get(key).copied().unwrap_or(until);
            ends.insert(key.clone(), end);
            if end > now {
                kept.push((key.clone(), value.clone()));
            }
        }
        self.lingering = ends;
        (kept, self.next_end(now))
    }

    /// Which section each service has; where HAProxy `adds` sections, plain ones are among them.
    fn assign(
        &self,
        way: Way,
        services: &ServiceMap,
        kept: &[Line],
        applied: &Applied,
        adds: bool,
        idle: Idle,
    ) -> Slots {
        static NONE: BTreeMap<ServiceName, u32> = BTreeMap::new();
        let held = self.slots.get(&way).map_or(&NONE, |slots| &slots.of);
        // Names that were read back from the map are those of services that had sections, which did for them.
        let waiting = kept.iter().filter(|(key, _)| is_sni(key) == (way == Way::Sni));
        let waiting = waiting.filter_map(|(_, value)| Target::parse(value));
        let waiting = waiting.filter_map(|target| held.get_key_value(target.service).map(|(name, _)| name));
        let mut needed: BTreeMap<&ServiceName, Kind> = waiting.map(|service| (service, Kind::Plain)).collect();
        for (_, rule) in self.routing.rules.iter().filter(|(place, _)| place.way == way) {
            if services.get(&rule.service).is_some_and(|pool| has_tcp(pool)) {
                let need = if rule.route.sticky { Kind::Whole } else { Kind::Plain };
                let most = needed.entry(&rule.service).or_insert(need);
                *most = need.max(*most);
            }
        }
        let number_of = |section: &Arc<Section>| {
            section_number(&section.name).filter(|(of, _)| *of == way).map(|(_, number)| number)
        };
        let numbered = |section: &Arc<Section>| {
            let kind = if adds && section.made_from().is_some() { Kind::Plain } else { Kind::Whole };
            Some((number_of(section)?, kind))
        };
        let running = applied.layout.sections.iter().filter_map(numbered).collect();
        let slots = Slots::assign(&needed, held, &running, adds);
        let busy = || {
            let full = applied.layout.sections.iter().filter(|section| !is_idle(section, applied));
            full.filter_map(number_of).collect::<HashSet<u32>>()
        };
        match idle {
            Idle::Stay => slots,
            Idle::Go if !adds => slots,
            Idle::Go => {
                let busy = busy();
                slots.without_idle(|number| busy.contains(&number))
            }
            Idle::Refill => slots.refilled(self.settings.spare_sections),
        }
    }

    fn section(
        &mut self,
        at: (Way, u32),
        kind: Kind,
        service: Option<&ServiceName>,
        services: &ServiceMap,
        given: &Given<'_>,
    ) -> Arc<Section> {
        let held = service.and_then(|service| Some((service, services.get(service)?)));
        let same = |cached: &&Cached| {
            cached.generation == given.names.generation()
                && (cached.kind, cached.can) == (kind, given.can)
                && match (&cached.pool, held) {
                    (None, None) => true,
                    (Some(was), Some((_, pool))) => Arc::ptr_eq(was, pool),
                    _ => false,
                }
        };
        if let Some(cached) = self.sections.get(&at).filter(same) {
            return cached.section.clone();
        }
        let before = self.sections.remove(&at).filter(|cached| cached.kind == kind);
        let params = params(&self.frame.check, self.frame.slow_start, &given.can);
        let place = options::Place::of_mode(if at.0 == Way::Http { Mode::Http } else { Mode::Tcp });
        let (servers, quarantined) =
            held.map(|(service, pool)| servers(service, pool, &params, given.names, &place)).unwrap_or_default();
        // The template was tried out when the composer was made.
        let skeleton = match &before {
            Some(cached) => cached.section.skeleton.clone(),
            None => frontend::section(&self.settings, &self.frame, at.0, at.1, kind).unwrap_or_default().into(),
        };
        let name = section_name(at.0, at.1).into();
        let section = Section { name, skeleton, servers, inherited: "".into(), text: Default::default() };
        let section = match before {
            Some(cached) if *cached.section == section => cached.section,
            _ => Arc::new(section),
        };
        let (generation, pool) = (given.names.generation(), held.map(|(_, pool)| pool.clone()));
        let cached = Cached { kind, pool, generation, can: given.can, section: section.clone(), quarantined };
        self.sections.insert(at, cached);
        section
    }

    /// The map; the very same as long as nothing that it is made of has changed.
    fn rules(&mut self, slots: &ByWay, kept: Vec<Line>, applied: &Layout, until: Option<Instant>) -> Arc<RuleMap> {
        if let Some(last) = &mut self.last
            && last.kept == kept
            && Arc::ptr_eq(&last.routing, &self.routing)
            && last.slots == *slots
        {
            last.until = until;
            return last.rules.clone();
        }
        let section_of = |way: Way, service: &ServiceName| {
            slots.get(&way)?.of.get(service).map(|number| section_name(way, *number).into())
        };
        let rules = RuleMap::of(&self.routing, &self.settings, kept.iter().cloned(), section_of);
        let known = [applied.rules.as_ref(), self.last.as_ref().map(|last| &last.rules)];
        let same = known.into_iter().flatten().find(|known| ***known == rules).cloned();
        let rules = same.unwrap_or_else(|| Arc::new(rules));
        let (slots, routing) = (slots.clone(), self.routing.clone());
        self.last = Some(Last { rules: rules.clone(), slots, routing, kept, until });
        rules
    }
}

fn has_tcp(pool: &Pool) -> bool {
    pool.backends().iter().any(|b| b.transport == Transport::Tcp)
}
