//! The edge as part of haproxy.cfg: its frontends, its sections with their servers, and the rules of its map. Pure, and cached.
//!
//! | module | what it holds |
//! |---|---|
//! | `asking` | what the services ask for, and what came of it |
//! | [`frontend`] | the frontends and the sections behind them, as text |
//! | [`map`] | the rules as HAProxy's map has them, and what leads from one map to another |
//! | `slots` | which section serves which place |
//! | `plain` | how HAProxy 3.4 gets sections at run time |
//! | `told` | the headers about clients that the edge removes |
//!
//! Each upstream, the registrations that claim the same places, has a section of the edge's, whether its services have ports of their
//! own or not. The map says which one, and nothing in the file's structure does. See [`crate::edge`] for who is routed where.

mod asking;
pub mod frontend;
pub mod map;
mod plain;
mod slots;
mod told;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _, HashSet};
use model::{Mode, ServiceMap, ServiceName};
use tokio::time::Instant;

use self::asking::Asking;
use self::frontend::{Frame, Kind};
pub use self::map::RuleMap;
use self::map::{Kept, Target};
use self::plain::PlainDefaults;
use self::slots::{Need, Runs, Slots};
use super::compose::TemplateError;
use super::known::Given;
use super::layout::{Layout, Section};
use super::members::{Member, params, server_names, servers};
use super::synapse::Quarantined;
use crate::edge::sections::{section_name, section_number};
use crate::edge::{EdgeSettings, Place, Routing, Upstream, Way};
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
    /// Places whose registrations are gone, and until when their rules stay.
    lingering: HashMap<Place, Instant>,
    slots: ByWay,
    /// The same for a structure that is loaded anew: with the full number of spare sections, and without plain ones that nobody needs.
    refilled: ByWay,
    sections: HashMap<(Way, u32, Kind), Cached>,
    /// The last map, from what it was made, and when it must be made anew.
    last: Option<Last>,
}

/// The sections that services have a part in.
pub type SectionsOf = BTreeMap<ServiceName, BTreeSet<String>>;
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
    members: Vec<Member>,
    generation: (u64, u64),
    can: Capabilities,
    section: Arc<Section>,
    quarantined: Vec<Quarantined>,
}

struct Last {
    rules: Arc<RuleMap>,
    slots: ByWay,
    routing: Arc<Routing>,
    /// Rules whose registrations are gone, and until when they stay.
    kept: Vec<Kept>,
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

    /// Takes over from before a restart which section each place has.
    pub fn remember(&mut self, rules: &RuleMap) {
        self.slots.clear();
        for (place, number) in rules.sections() {
            Arc::make_mut(&mut self.slots.entry(place.way).or_default().of).insert(place, number);
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

    /// The sections that each service has a part in, of those that are reached this way; how many are spare, and how many are plain.
    /// `None`: nobody is reached so. `refilled`: as of the [`refilled`](Self::refilled) layout.
    pub fn sections(&self, way: Way, refilled: bool) -> Option<(SectionsOf, [usize; 2])> {
        let slots = if refilled { &self.refilled } else { &self.slots }.get(&way)?;
        let mut of = SectionsOf::new();
        for upstream in self.asking.upstreams().iter().filter(|upstream| upstream.way() == Some(way)) {
            let numbers: BTreeSet<u32> =
                upstream.places.iter().filter_map(|place| slots.of.get(place)).copied().collect();
            let names: BTreeSet<String> = numbers.into_iter().map(|number| section_name(way, number)).collect();
            for (service, _) in &upstream.members {
                of.entry(service.clone()).or_default().extend(names.iter().cloned());
            }
        }
        Some((of, [slots.spare(), slots.plain()]))
    }

    /// When a rule's time is up.
    pub fn next_end(&self, now: Instant) -> Option<Instant> {
        self.lingering.values().filter(|at| **at > now).min().copied()
    }

    /// Adds the edge to `layout`. `idle` says what becomes of running sections that nobody needs.
    pub fn compose(&mut self, layout: &mut Layout, desired: &Desired, given: &Given<'_>, idle: Idle) {
        let services = &desired.services;
        let is_first = self.last.is_none();
        let changed =
            self.asking.route(services, given.known.running, &self.settings, self.frame.default_mode, is_first);
        let (kept, until) = self.linger(services, given, changed);
        let plain = self.plain.in_header(&layout.header, &self.plain_lines).filter(|_| given.can.add_backend);
        let assigned = |way: &Way| {
            // Sections in mode tcp are whole ones.
            let adds = plain.is_some() && *way == Way::Http;
            (*way, self.assign(*way, &kept, given, adds, idle))
        };
        let slots: ByWay = self.settings.ways().iter().map(assigned).collect();
        layout.header = plain.unwrap_or_else(|| layout.header.clone());
        self.refilled =
            slots.iter().map(|(way, of)| (*way, of.clone().refilled(self.settings.spare_sections))).collect();
        let has = |of: &ByWay, (way, number, kind): &(Way, u32, Kind)| {
            of.get(way).is_some_and(|slots| slots.all.get(number) == Some(kind))
        };
        self.sections.retain(|at, _| has(&slots, at) || has(&self.refilled, at));
        let upstreams = self.asking.upstreams().clone();
        for (way, slots) in &slots {
            let places = upstreams
                .iter()
                .filter(|u| u.way() == Some(*way))
                .flat_map(|u| u.places.iter().map(move |place| (place, u)));
            let numbers = places.filter_map(|(place, upstream)| Some((*slots.of.get(place)?, upstream)));
            let by_number: HashMap<u32, &Upstream> = numbers.collect();
            for (number, kind) in &slots.all {
                let members = by_number.get(number).map_or(&[][..], |upstream| &upstream.members);
                layout.sections.push(self.section((*way, *number, *kind), members, given));
            }
        }
        for (way, number) in self.spares() {
            self.section((way, number, Kind::Whole), &[], given);
        }
        layout.rules = Some(self.rules(&slots, kept, given.known.running, until));
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

    /// The rules that run and stay although nobody asks for them: those whose last registration has gone. Such a place answers 503
    /// for a while, and nothing must be made anew when a container comes back.
    fn linger(&mut self, services: &ServiceMap, given: &Given<'_>, changed: bool) -> (Vec<Kept>, Option<Instant>) {
        let Some(running) = &given.known.running.rules else { return (Vec::new(), None) };
        let now = given.now;
        let same =
            |last: &&Last| !changed && Arc::ptr_eq(&last.rules, running) && last.until.is_none_or(|until| until > now);
        if let Some(last) = self.last.as_ref().filter(same) {
            return (last.kept.clone(), last.until);
        }
        // Who is still registered has said that it does not claim the place any more; the rule goes at once.
        let withdrawn = |target: Target<'_>| {
            let Some((service, pool)) = services.get_key_value(target.service) else { return false };
            let runs: HashSet<&str> = given.known.servers(target.section).iter().map(|server| &*server.name).collect();
            !runs.is_empty() && server_names(&[(service.clone(), pool.clone())]).any(|name| runs.contains(&*name))
        };
        let passes = self.settings.sni_port.is_some();
        let stays = |place: &Place, target: Target<'_>| (passes || place.way != Way::Sni) && !withdrawn(target);
        let until = now + self.frame.linger;
        let routing = self.asking.routing();
        let mut kept = match self.last.as_ref().filter(|last| Arc::ptr_eq(&last.rules, running)) {
            // Of what this map was made of is known: its ten thousand lines need not be read for the one that is missing.
            Some(last) => {
                let before = gone(&last.routing.rules, &routing.rules).chain(last.kept.iter().map(|kept| &kept.place));
                running.missing_of(before, routing, stays)
            }
            None => running.missing_from(routing, stays),
        };
        let ends = kept.iter().map(|rule| {
            let end = self.lingering.get(&rule.place).copied().unwrap_or(until);
            (rule.place.clone(), end)
        });
        self.lingering = ends.collect();
        kept.retain(|rule| self.lingering.get(&rule.place).is_some_and(|end| *end > now));
        (kept, self.next_end(now))
    }

    /// Which section serves each place; where HAProxy `adds` sections, plain ones are among them.
    fn assign(&self, way: Way, kept: &[Kept], given: &Given<'_>, adds: bool, idle: Idle) -> Slots {
        let none = HashMap::new();
        let held = self.slots.get(&way).map_or(&none, |slots| &*slots.of);
        let upstreams: Vec<&Upstream> = self.asking.upstreams().iter().filter(|u| u.way() == Some(way)).collect();
        let kind = |sticky| if sticky { Kind::Whole } else { Kind::Plain };
        let needs: Vec<Need<'_>> = upstreams.iter().map(|u| Need { places: &u.places, kind: kind(u.sticky) }).collect();
        let waiting = kept.iter().map(|rule| &rule.place).filter(|place| place.way == way);
        let number_of = |section: &Arc<Section>| {
            section_number(&section.name).filter(|(of, _)| *of == way).map(|(_, number)| number)
        };
        let kind_of = |section: &Section| if adds && section.made_from().is_some() { Kind::Plain } else { Kind::Whole };
        let sections: BTreeMap<u32, &Arc<Section>> =
            given.known.running.sections.iter().filter_map(|section| Some((number_of(section)?, section))).collect();
        let running = sections.iter().map(|(number, section)| (*number, kind_of(section))).collect();
        let ruled = LazyCell::new(|| -> HashSet<u32> {
            given.known.running.rules.iter().flat_map(|rules| rules.numbers(way)).collect()
        });
        let runs = |number: u32, upstream: Option<usize>| {
            // A rule that still leads there would bring its requests to the section's next service.
            if upstream.is_none() && ruled.contains(&number) {
                return Runs::Foreign;
            }
            let Some(section) = sections.get(&number).filter(|section| !section.servers.is_empty()) else {
                return Runs::Nothing;
            };
            let own: HashSet<Arc<str>> =
                upstream.and_then(|n| upstreams.get(n)).map(|u| server_names(&u.members).collect()).unwrap_or_default();
            match section.servers.iter().all(|server| own.contains(&server.name)) {
                true if section.servers.len() == own.len() => Runs::All,
                true => Runs::Some,
                false => Runs::Foreign,
            }
        };
        let slots = Slots::assign(&needs, waiting, held, &running, runs, adds);
        if idle == Idle::Stay || !adds {
            return slots;
        }
        let full = given.known.running.sections.iter().filter(|section| !section.is_idle(given.known.retired));
        let busy: HashSet<u32> = full.filter_map(number_of).collect();
        slots.without_idle(|number| busy.contains(&number))
    }

    fn section(&mut self, at: (Way, u32, Kind), members: &[Member], given: &Given<'_>) -> Arc<Section> {
        let same = |cached: &&Cached| {
            let mut pairs = cached.members.iter().zip(members);
            cached.generation == given.generation()
                && cached.can == given.can
                && cached.members.len() == members.len()
                && pairs.all(|((was, old), (is, new))| Arc::ptr_eq(old, new) && was == is)
        };
        if let Some(cached) = self.sections.get(&at).filter(same) {
            return cached.section.clone();
        }
        let before = self.sections.remove(&at);
        let mode = if at.0 == Way::Http { Mode::Http } else { Mode::Tcp };
        let params =
            params(given.checking.words(), self.frame.slow_start, self.frame.silence.of_mode(mode), &given.can);
        let place = options::Place::of_mode(mode);
        let (servers, quarantined) = servers(members, &params, given.names, &place);
        // The template was tried out when the composer was made.
        let skeleton = match &before {
            Some(cached) => cached.section.skeleton.clone(),
            None => frontend::section(&self.settings, &self.frame, at.0, at.1, at.2).unwrap_or_default().into(),
        };
        let name = section_name(at.0, at.1).into();
        let section = Section { name, skeleton, servers, inherited: "".into(), text: Default::default() };
        let section = given.settle(section, before.map(|cached| cached.section));
        let (generation, members) = (given.generation(), members.to_vec());
        let cached = Cached { members, generation, can: given.can, section: section.clone(), quarantined };
        self.sections.insert(at, cached);
        section
    }

    /// The map; the very same as long as nothing that it is made of has changed.
    fn rules(&mut self, slots: &ByWay, kept: Vec<Kept>, applied: &Layout, until: Option<Instant>) -> Arc<RuleMap> {
        if let Some(last) = &mut self.last
            && last.kept == kept
            && Arc::ptr_eq(&last.routing, self.asking.routing())
            && last.slots == *slots
        {
            last.until = until;
            return last.rules.clone();
        }
        let section_of = |place: &Place| slots.get(&place.way)?.of.get(place).copied();
        let rules = RuleMap::of(self.asking.routing(), &self.settings, &kept, section_of);
        let known = [applied.rules.as_ref(), self.last.as_ref().map(|last| &last.rules)];
        let same = known.into_iter().flatten().find(|known| ***known == rules).cloned();
        let rules = same.unwrap_or_else(|| Arc::new(rules));
        let (slots, routing) = (slots.clone(), self.asking.routing().clone());
        self.last = Some(Last { rules: rules.clone(), slots, routing, kept, until });
        rules
    }
}

/// The places that `old` has and `new` has not. Both are sorted.
fn gone<'a, T>(old: &'a BTreeMap<Place, T>, new: &'a BTreeMap<Place, T>) -> impl Iterator<Item = &'a Place> {
    let mut new = new.keys().peekable();
    old.keys().filter(move |place| {
        while new.next_if(|other| other < place).is_some() {}
        new.peek() != Some(place)
    })
}
