//! The rules as HAProxy's map has them: one line for each host and path, `HOST/PATH/ SECTION|FLAGS|SERVICE`.
//!
//! The frontend looks `HOST/PATH/` of a request up by its longest beginning (`map_beg`, a tree: ten thousand rules cost no more than
//! ten); the slash at the end of both makes `/api` cover `/api/x` and not `/apis`. A host whose rules leave paths over has a line of
//! its own that says [`NOBODY`], so that no wildcard above it gets them. Names of TLS that is passed through are in the same map, as
//! `sni=NAME/`, which is no host's.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use model::{HostPattern, PathPrefix, ServiceName};

use crate::edge::decide::{Routing, Rule};
use crate::edge::sections::{empty, section_name, section_number};
use crate::edge::settings::EdgeSettings;
use crate::edge::{Place, Way};
use crate::haproxy::api::ops::Op;

/// In the place of a section: nobody serves here, which is answered with 404; TLS is not passed through.
pub const NOBODY: &str = "nobody";
/// Begins the key of a name of TLS; no host has such a character.
pub const SNI: &str = "sni=";
/// With more changes than this, the whole map is replaced at once.
const MOST_SINGLE_CHANGES: usize = 500;

/// A rule that stays for a while although no registration claims its place any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub place: Place,
    /// What is done there, as in the map.
    flags: Arc<str>,
    service: Arc<str>,
}

/// The edge's map: what HAProxy's memory holds, and the file that it is loaded from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleMap {
    /// Values by keys.
    entries: BTreeMap<Arc<str>, Arc<str>>,
    /// HAProxy has a key twice, or one that is none of ours: it is not known which one counts.
    tangled: bool,
}

/// What leads from one map to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleChange {
    /// These keys get a value (`Some`), a new one where the flag says so, or go (`None`).
    Keys(Vec<(Arc<str>, Option<Arc<str>>, bool)>),
    /// All of it is put in place at once.
    Swap(Arc<RuleMap>),
}

/// One line's value, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The section that answers.
    pub section: &'a str,
    /// What is done, as letters.
    flags: &'a str,
    /// The service behind it; of several the first.
    pub service: &'a str,
}

impl<'a> Target<'a> {
    /// Reads a value; `None` for that of a line without a service.
    pub fn parse(value: &'a str) -> Option<Self> {
        let mut parts = value.split('|');
        let (section, flags, service) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { section, flags, service })
    }
}

fn key(place: &Place) -> String {
    match (place.way, place.path.is_root()) {
        (Way::Sni, _) => format!("{SNI}{}/", place.host),
        (Way::Http, true) => format!("{}/", place.host),
        (Way::Http, false) => format!("{}{}/", place.host, place.path),
    }
}

fn place(key: &str) -> Option<Place> {
    if let Some(name) = key.strip_prefix(SNI) {
        return Some(Place::sni(name.strip_suffix('/')?.parse().ok()?));
    }
    let at = key.find('/')?;
    let path = key[at..].strip_suffix('/')?;
    let path = if path.is_empty() { PathPrefix::root() } else { path.parse().ok()? };
    Some(Place::http(key[..at].parse().ok()?, path))
}

/// What is done to a request, as letters: `r` redirect to HTTPS, `s` sticky, a digit for the segments stripped; `-` nothing.
fn flags(rule: &Rule) -> String {
    let mut flags = String::new();
    if rule.route.redirect_https {
        flags.push('r');
    }
    if rule.route.sticky {
        flags.push('s');
    }
    if rule.route.strip_prefix && !rule.route.path.is_root() {
        flags.push_str(&rule.route.path.as_str().matches('/').count().to_string());
    }
    if flags.is_empty() { "-".into() } else { flags }
}

impl RuleMap {
    /// The map of these rules, and of the `kept` ones whose registrations are gone. `section_of` says which section serves a place;
    /// one without is answered by [`empty`]. Hosts that the settings give to an owner, and have no rule, are nobody's.
    pub fn of<'a>(
        routing: &Routing,
        settings: &EdgeSettings,
        kept: impl IntoIterator<Item = &'a Kept>,
        section_of: impl Fn(&Place) -> Option<u32>,
    ) -> Self {
        let value = |place: &Place, flags: &str, service: &str| match section_of(place) {
            Some(number) => format!("{}|{flags}|{service}", section_name(place.way, number)),
            None => format!("{}|{flags}|{service}", empty(place.way)),
        };
        let nobody: Arc<str> = NOBODY.into();
        // Sorted at once: the last value of a key counts.
        let mut entries: Vec<(Arc<str>, Arc<str>)> = Vec::with_capacity(routing.rules.len() * 2);
        let floor = |host: &HostPattern, way| -> (Arc<str>, Arc<str>) {
            (key(&Place { way, ..Place::sni(host.clone()) }).into(), nobody.clone())
        };
        for host in settings.owners.hosts() {
            entries.push(floor(host, Way::Http));
            if settings.sni_port.is_some() {
                entries.push(floor(host, Way::Sni));
            }
        }
        let kept: Vec<&Kept> = kept.into_iter().collect();
        if settings.shares_port() {
            let names = routing.rules.keys().chain(kept.iter().map(|kept| &kept.place));
            let hosts = hosts_below_names(routing, names.filter(|place| place.way == Way::Sni));
            entries.extend(hosts.map(|host| floor(host, Way::Sni)));
        }
        let mut last: Option<&HostPattern> = None;
        for (place, rule) in &routing.rules {
            if place.way == Way::Http && last != Some(&place.host) {
                last = Some(&place.host);
                // Unless the very host has a rule, which comes first.
                if !place.path.is_root() {
                    entries.push(floor(&place.host, Way::Http));
                }
            }
            entries.push((key(place).into(), value(place, &flags(rule), rule.service.as_str()).into()));
        }
        entries.extend(
            kept.iter().map(|Kept { place, flags, service }| (key(place).into(), value(place, flags, service).into())),
        );
        Self { entries: entries.into_iter().collect(), tangled: false }
    }

    /// A map of lines as HAProxy shows them or a file has them.
    pub fn of_entries(lines: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut map = Self::default();
        for (key, value) in lines {
            map.tangled |= map.entries.insert(key.into(), value.into()).is_some();
        }
        map
    }

    /// Reads the file; what is no line of ours is passed over.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once(' '));
        Self::of_entries(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())))
    }

    /// The file's text: equal maps give equal bytes.
    pub fn render(&self) -> String {
        let size: usize = self.entries.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
        let mut text = String::with_capacity(size + 64);
        text.push_str("# Written by discover: the rules of the HTTP edge; edits are undone.\n");
        for (key, value) in &self.entries {
            text.extend([key, " ", value, "\n"]);
        }
        text
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values.
    pub fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.entries.iter()
    }

    pub fn service_at(&self, place: &Place) -> Option<ServiceName> {
        let value = self.entries.get(&*key(place))?;
        Target::parse(value)?.service.parse().ok()
    }

    /// The number of the section that serves each place.
    pub fn sections(&self) -> impl Iterator<Item = (Place, u32)> {
        self.entries.iter().filter_map(|(key, value)| {
            let (place, target) = (place(key)?, Target::parse(value)?);
            let (way, number) = section_number(target.section)?;
            (way == place.way).then_some((place, number))
        })
    }

    /// The numbers of the sections of this way that rules lead to, each as often as one does.
    pub fn numbers(&self, way: Way) -> impl Iterator<Item = u32> {
        let sections = self.entries.values().filter_map(|value| section_number(Target::parse(value)?.section));
        sections.filter(move |(of, _)| *of == way).map(|(_, number)| number)
    }

    /// The rules for which `stays` says so, at places that `now` has none for.
    pub fn missing_from(&self, now: &Routing, stays: impl Fn(&Place, Target<'_>) -> bool) -> Vec<Kept> {
        let missing = self.entries.iter().filter_map(|(key, value)| {
            let target = Target::parse(value)?;
            let place = place(key).filter(|place| !now.rules.contains_key(place) && stays(place, target))?;
            Some(Kept { place, flags: target.flags.into(), service: target.service.into() })
        });
        in_order(missing)
    }

    /// The same, of these `places`, which are all that this map has rules for and some more.
    pub fn missing_of<'a>(
        &self,
        places: impl Iterator<Item = &'a Place>,
        now: &Routing,
        stays: impl Fn(&Place, Target<'_>) -> bool,
    ) -> Vec<Kept> {
        let missing = places.filter(|place| !now.rules.contains_key(place)).filter_map(|place| {
            let target = Target::parse(self.entries.get(&*key(place))?)?;
            let kept = || Kept { place: place.clone(), flags: target.flags.into(), service: target.service.into() };
            stays(place, target).then(kept)
        });
        in_order(missing)
    }

    /// The part of `self` that can be had while only `sections` run: what points elsewhere stays as it is in `running`.
    pub fn within(&self, running: &Self, has_section: impl Fn(&str) -> bool) -> Self {
        let reachable = |value: &str| Target::parse(value).is_none_or(|target| has_section(target.section));
        let entries = self.entries.iter().map(|(key, value)| {
            let old = (!reachable(value)).then(|| running.entries.get(key)).flatten();
            (key.clone(), old.unwrap_or(value).clone())
        });
        Self { entries: entries.collect(), tangled: false }
    }

    /// What leads from `self` to `to`; `None` when nothing does.
    pub fn change_to(&self, to: &Arc<Self>) -> Option<RuleChange> {
        if self.tangled {
            return Some(RuleChange::Swap(to.clone()));
        }
        // Both are sorted.
        let (mut keys, mut gone) = (Vec::new(), Vec::new());
        let (mut old, mut new) = (self.entries.iter().peekable(), to.entries.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let was = if order == Ordering::Greater { None } else { old.next() };
            let is = if order == Ordering::Less { None } else { new.next() };
            match (was, is) {
                (Some((_, was)), Some((_, is))) if Arc::ptr_eq(was, is) || was == is => {}
                (was, Some((key, value))) => keys.push((key.clone(), Some(value.clone()), was.is_none())),
                (Some((key, _)), None) => gone.push((key.clone(), None, false)),
                (None, None) => {}
            }
        }
        // Nothing goes before what takes its place has come.
        keys.extend(gone);
        match keys.len() {
            0 => None,
            n if n > MOST_SINGLE_CHANGES => Some(RuleChange::Swap(to.clone())),
            _ => Some(RuleChange::Keys(keys)),
        }
    }
}

fn in_order(kept: impl Iterator<Item = Kept>) -> Vec<Kept> {
    let mut kept: Vec<Kept> = kept.collect();
    kept.sort_by(|a, b| a.place.cmp(&b.place));
    kept
}

/// The hosts with routes that a wildcard among these names of TLS would catch: who has a rule for a host has nothing to fear from one.
fn hosts_below_names<'a>(
    routing: &'a Routing,
    names: impl Iterator<Item = &'a Place>,
) -> impl Iterator<Item = &'a HostPattern> {
    let wild: Vec<&HostPattern> = names.map(|place| &place.host).filter(|name| name.wildcard().is_some()).collect();
    let hosts = routing.rules.keys().filter(|place| place.way == Way::Http).map(|place| &place.host);
    hosts.filter(move |host| wild.iter().any(|name| name.covers(host.as_str())))
}

impl RuleChange {
    /// The operations on the map at `path`; `None` when all of it is to be put in place at once.
    pub fn ops(&self, path: &str) -> Option<Vec<Op>> {
        let Self::Keys(keys) = self else { return None };
        let op = |(key, value, new): &(Arc<str>, Option<Arc<str>>, bool)| {
            let (map, key) = (path.to_owned(), key.to_string());
            match value {
                None => Op::MapDel { map, key },
                Some(value) if *new => Op::MapAdd { map, key, value: value.to_string() },
                Some(value) => Op::MapSet { map, key, value: value.to_string() },
            }
        };
        Some(keys.iter().map(op).collect())
    }
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
