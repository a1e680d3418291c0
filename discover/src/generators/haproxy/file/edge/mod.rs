//! The edge as part of haproxy.cfg: its frontends, its sections with their servers, and the rules of its map. Pure, and cached.
//!
//! | module | what it holds |
//! |---|---|
//! | `asking` | what the services ask for, and what came of it |
//! | [`frontend`] | the frontends and the sections behind them, as text |
//! | [`map`] | the rules as HAProxy's map has them, and what leads from one map to another |
//! | `slots` | which section holds which service |
//! | `plain` | how HAProxy 3.4 gets sections at run time |
//! | `told` | the headers about clients that the edge removes |
//!
//! Each service that is routed has a section of the edge's, whether it has a port of its own or not. The map says which one, and
//! nothing in the file's structure does. See [`crate::edge`] for who is routed where.

mod asking;
pub mod frontend;
pub mod map;
mod plain;
mod slots;
mod told;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use model::{Mode, Pool, ServiceMap, ServiceName, Transport};
use tokio::time::Instant;

use self::asking::Asking;
use self::frontend::{Frame, Kind};
pub use self::map::RuleMap;
use self::map::{Line, Target, is_sni};
use self::plain::PlainDefaults;
use self::slots::Slots;
use super::compose::{TemplateError, params, servers};
use super::composing::Given;
use super::layout::{Layout, Section};
use super::synapse::Quarantined;
use crate::edge::sections::{section_name, section_number};
use crate::edge::{EdgeSettings, Routing, Way};
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
    asking: Asking,
    /// Rules of services that have no backend left, and until when they stay.
    lingering: HashMap<Arc<str>, Instant>,
    slots: ByWay,
    /// The same for a structure that is loaded anew: with the full number of spare sections, and without plain ones that nobody needs.
    refilled: ByWay,
    sections: HashMap<(Way, u32, Kind), Cached>,
    /// The last map, from what it was made, and when it must be made anew.
    last: Option<Last>,
}

/// The sections of each way.
type ByWay = BTreeMap<Way, Slots>;

/// What becomes of the sections without a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// They stay as they are.
    Stay,
    /// Plain ones go as soon as they are empty; whole ones stay.
    Go,
}

struct Cached {
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
        let (asking, sections, lingering) = (Asking::default(), HashMap::new(), HashMap::new());
        let (slots, refilled, last) = (ByWay::new(), ByWay::new(), None);
        Ok(Self { settings, frame, footers, plain_lines, plain, asking, lingering, slots, refilled, sections, last })
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
        self.asking.routing()
    }

    /// The section of each service that is reached this way; how many are spare, and how many are plain. `None`: nobody is reached so.
    /// `refilled`: as of the [`refilled`](Self::refilled) layout.
    pub fn sections(&self, way: Way, refilled: bool) -> Option<(BTreeMap<ServiceName, String>, [usize; 2])> {
        let slots = if refilled { &self.refilled } else { &self.slots }.get(&way)?;
        let of = slots.of.iter().map(|(service, number)| (service.clone(), section_name(way, *number)));
        Some((of.collect(), [slots.spare(), slots.plain()]))
    }

    /// When a rule's time is up.
    pub fn next_end(&self, now: Instant) -> Option<Instant> {
        self.lingering.values().filter(|at| **at > now).min().copied()
    }

    /// Adds the edge to `layout`. `idle` says what becomes of running sections that nobody needs.
    pub fn compose(&mut self, layout: &mut Layout, desired: &Desired, given: &Given<'_>, idle: Idle) {
        let services = &desired.services;
        let is_first = self.last.is_none();
        let changed = self.asking.route(services, given.running, &self.settings, self.frame.default_mode, is_first);
        let (kept, until) = self.linger(services, given, changed);
        let plain = self.plain.in_header(&layout.header, &self.plain_lines).filter(|_| given.can.add_backend);
        let assigned = |way: &Way| {
            // Sections in mode tcp are whole ones.
            let adds = plain.is_some() && *way == Way::Http;
            (*way, self.assign(*way, services, &kept, given, adds, idle))
        };
        let slots: ByWay = self.settings.ways().iter().map(assigned).collect();
        layout.header = plain.unwrap_or_else(|| layout.header.clone());
        self.refilled =
            slots.iter().map(|(way, of)| (*way, of.clone().refilled(self.settings.spare_sections))).collect();
        let has = |of: &ByWay, (way, number, kind): &(Way, u32, Kind)| {
            of.get(way).is_some_and(|slots| slots.all.get(number) == Some(kind))
        };
        self.sections.retain(|at, _| has(&slots, at) || has(&self.refilled, at));
        for (way, slots) in &slots {
            let by_number: HashMap<u32, &ServiceName> = slots.of.iter().map(|(s, number)| (*number, s)).collect();
            for (number, kind) in &slots.all {
                let service = by_number.get(number).copied();
                layout.sections.push(self.section((*way, *number, *kind), service, services, given));
            }
        }
        for (way, number) in self.spares() {
            self.section((way, number, Kind::Whole), None, services, given);
        }
        layout.rules = Some(self.rules(&slots, kept, given.running, until));
        layout.footer = format!("{}{}", layout.footer, self.footers[usize::from(given.ports.edge_taken)]).into();
        self.slots = slots;
    }

    /// The spare sections of the refilled layout.
    fn spares(&self) -> Vec<(Way, u32)> {
        let of = |(way, slots): (&Way, &Slots)| slots.spares().map(|number| (*way, number)).collect::<Vec<_>>();
        self.refilled.iter().flat_map(of).collect()
    }

    /// `layout` with the full number of spare sections, and without plain ones that nobody needs: for when HAProxy loads its structure
    /// anew. Pure: [`compose`](Self::compose) has made the sections.
    pub fn refilled(&self, layout: &Layout) -> Layout {
        let (edges, mut sections): (Vec<_>, Vec<_>) =
            layout.sections.iter().cloned().partition(|section| section_number(&section.name).is_some());
        let edges: HashMap<&str, &Arc<Section>> = edges.iter().map(|section| (&*section.name, section)).collect();
        let spares: HashSet<(Way, u32)> = self.spares().into_iter().collect();
        for (way, slots) in &self.refilled {
            for number in slots.all.keys() {
                let made = || self.sections.get(&(*way, *number, Kind::Whole)).map(|cached| &cached.section);
                let section = match spares.contains(&(*way, *number)) {
                    true => made(),
                    false => edges.get(&*section_name(*way, *number)).copied(),
                };
                sections.extend(section.cloned());
            }
        }
        Layout { sections, ..layout.clone() }
    }

    /// The lines that run and stay although nobody asks for them: those of services that have lost their last backend. Such
    /// a host answers 503 for a while, and nothing must be made anew when a container comes back.
    fn linger(&mut self, services: &ServiceMap, given: &Given<'_>, changed: bool) -> (Vec<Line>, Option<Instant>) {
        let Some(running) = &given.running.rules else { return (Vec::new(), None) };
        let now = given.now;
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
        let lines = running.missing_from(self.asking.routing(), gone).filter(|(key, _)| passes || !is_sni(key));
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
        given: &Given<'_>,
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
        for (_, rule) in self.asking.routing().rules.iter().filter(|(place, _)| place.way == way) {
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
        let running = given.running.sections.iter().filter_map(numbered).collect();
        let slots = Slots::assign(&needed, held, &running, adds);
        if idle == Idle::Stay || !adds {
            return slots;
        }
        let full = given.running.sections.iter().filter(|section| !section.is_idle(given.retired));
        let busy: HashSet<u32> = full.filter_map(number_of).collect();
        slots.without_idle(|number| busy.contains(&number))
    }

    fn section(
        &mut self,
        at: (Way, u32, Kind),
        service: Option<&ServiceName>,
        services: &ServiceMap,
        given: &Given<'_>,
    ) -> Arc<Section> {
        let held = service.and_then(|service| Some((service, services.get(service)?)));
        let same = |cached: &&Cached| {
            cached.generation == given.names.generation()
                && cached.can == given.can
                && match (&cached.pool, held) {
                    (None, None) => true,
                    (Some(was), Some((_, pool))) => Arc::ptr_eq(was, pool),
                    _ => false,
                }
        };
        if let Some(cached) = self.sections.get(&at).filter(same) {
            return cached.section.clone();
        }
        let before = self.sections.remove(&at);
        let params = params(&self.frame.check, self.frame.slow_start, &given.can);
        let place = options::Place::of_mode(if at.0 == Way::Http { Mode::Http } else { Mode::Tcp });
        let (servers, quarantined) =
            held.map(|(service, pool)| servers(service, pool, &params, given.names, &place)).unwrap_or_default();
        // The template was tried out when the composer was made.
        let skeleton = match &before {
            Some(cached) => cached.section.skeleton.clone(),
            None => frontend::section(&self.settings, &self.frame, at.0, at.1, at.2).unwrap_or_default().into(),
        };
        let name = section_name(at.0, at.1).into();
        let section = Section { name, skeleton, servers, inherited: "".into(), text: Default::default() };
        let section = match before {
            Some(cached) if *cached.section == section => cached.section,
            _ => Arc::new(section),
        };
        let (generation, pool) = (given.names.generation(), held.map(|(_, pool)| pool.clone()));
        let cached = Cached { pool, generation, can: given.can, section: section.clone(), quarantined };
        self.sections.insert(at, cached);
        section
    }

    /// The map; the very same as long as nothing that it is made of has changed.
    fn rules(&mut self, slots: &ByWay, kept: Vec<Line>, applied: &Layout, until: Option<Instant>) -> Arc<RuleMap> {
        if let Some(last) = &mut self.last
            && last.kept == kept
            && Arc::ptr_eq(&last.routing, self.asking.routing())
            && last.slots == *slots
        {
            last.until = until;
            return last.rules.clone();
        }
        let section_of = |way: Way, service: &ServiceName| {
            slots.get(&way)?.of.get(service).map(|number| section_name(way, *number).into())
        };
        let rules = RuleMap::of(self.asking.routing(), &self.settings, kept.iter().cloned(), section_of);
        let known = [applied.rules.as_ref(), self.last.as_ref().map(|last| &last.rules)];
        let same = known.into_iter().flatten().find(|known| ***known == rules).cloned();
        let rules = same.unwrap_or_else(|| Arc::new(rules));
        let (slots, routing) = (slots.clone(), self.asking.routing().clone());
        self.last = Some(Last { rules: rules.clone(), slots, routing, kept, until });
        rules
    }
}

fn has_tcp(pool: &Pool) -> bool {
    pool.backends().iter().any(|b| b.transport == Transport::Tcp)
}
