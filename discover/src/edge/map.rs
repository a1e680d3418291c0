//! The rules as HAProxy's map has them: one line for each host and path, `HOST/PATH/ SECTION|FLAGS|SERVICE`.
//!
//! The frontend looks `HOST/PATH/` of a request up by its longest beginning (`map_beg`, a tree: ten thousand rules cost no more than
//! ten); the slash at the end of both makes `/api` cover `/api/x` and not `/apis`. A host whose rules leave paths over has a line of
//! its own that says [`NOBODY`], so that no wildcard above it gets them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use common::model::{HostPattern, PathPrefix, ServiceName};

use super::decide::{Routing, Rule};
use super::settings::Owners;
use super::{Place, frontend};
use crate::haproxy::ops::Op;

/// In the place of a section: nobody serves here, which is answered with 404.
pub const NOBODY: &str = "nobody";
/// Above so many changes the whole map is put in place at once.
const MOST_SINGLE_CHANGES: usize = 500;

/// A key and its value.
pub type Line = (Arc<str>, Arc<str>);

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
    /// The service behind it.
    pub service: &'a str,
}

impl<'a> Target<'a> {
    /// Reads a value; `None` for that of a line without a service.
    pub fn parse(value: &'a str) -> Option<Self> {
        let mut parts = value.split('|');
        let (section, _, service) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { section, service })
    }
}

/// The key of a place.
fn key(place: &Place) -> String {
    match place.path.is_root() {
        true => format!("{}/", place.host),
        false => format!("{}{}/", place.host, place.path),
    }
}

/// The place of a key.
fn place(key: &str) -> Option<Place> {
    let at = key.find('/')?;
    let path = key[at..].strip_suffix('/')?;
    let path = if path.is_empty() { PathPrefix::root() } else { path.parse().ok()? };
    Some(Place { host: key[..at].parse().ok()?, path })
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
    /// The map of these rules. `section_of` says which section holds a service's servers; a service without one is answered by
    /// [`frontend::EMPTY`]. Hosts of `owners` without a rule are nobody's.
    pub fn of(routing: &Routing, owners: &Owners, section_of: impl Fn(&ServiceName) -> Option<Arc<str>>) -> Self {
        let mut entries = BTreeMap::new();
        let mut sections: HashMap<&ServiceName, Arc<str>> = HashMap::new();
        let nobody: Arc<str> = NOBODY.into();
        let root = |host: &HostPattern| Place { host: host.clone(), path: PathPrefix::root() };
        let mut last: Option<&HostPattern> = None;
        let floor = |entries: &mut BTreeMap<Arc<str>, Arc<str>>, host: &HostPattern| {
            entries.insert(key(&root(host)).into(), nobody.clone());
        };
        owners.hosts().for_each(|host| floor(&mut entries, host));
        for (place, rule) in &routing.rules {
            // A host's places are sorted by path, so its root would be the first.
            if last != Some(&place.host) && !place.path.is_root() {
                floor(&mut entries, &place.host);
            }
            last = Some(&place.host);
            let section = sections.entry(&rule.service);
            let section =
                section.or_insert_with(|| section_of(&rule.service).unwrap_or_else(|| frontend::EMPTY.into()));
            let value = format!("{section}|{}|{}", flags(rule), rule.service);
            entries.insert(key(place).into(), value.into());
        }
        Self { entries, tangled: false }
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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values.
    pub fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.entries.iter()
    }

    /// Whose a place is.
    pub fn service_at(&self, place: &Place) -> Option<ServiceName> {
        let value = self.entries.get(&*key(place))?;
        Target::parse(value)?.service.parse().ok()
    }

    /// The sections that services have here.
    pub fn sections(&self) -> BTreeMap<ServiceName, Arc<str>> {
        let mut found: BTreeMap<ServiceName, Arc<str>> = BTreeMap::new();
        for target in self.entries.values().filter_map(|value| Target::parse(value)) {
            if !found.contains_key(target.service)
                && let Ok(service) = target.service.parse()
            {
                found.insert(service, target.section.into());
            }
        }
        found
    }

    /// The rules of services for which `stays` says so, at places that `self` has no rule for.
    pub fn missing_from<'a>(
        &'a self,
        now: &'a Routing,
        stays: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<str>)> {
        self.entries.iter().filter(move |(key, value)| {
            Target::parse(value).is_some_and(|target| stays(target.service))
                && place(key).is_some_and(|place| !now.rules.contains_key(&place))
        })
    }

    /// Adds lines, in the place of those with the same keys.
    pub fn extend(&mut self, lines: impl IntoIterator<Item = Line>) {
        self.entries.extend(lines);
    }

    /// The part of `self` that can be had while only `sections` run: what points elsewhere stays as it is in `running`.
    pub fn within(&self, running: &Self, has_section: impl Fn(&str) -> bool) -> Self {
        let reachable = |value: &str| Target::parse(value).is_none_or(|target| has_section(target.section));
        let entries = self.entries.iter().map(|(key, value)| match running.entries.get(key) {
            Some(old) if !reachable(value) => (key.clone(), old.clone()),
            _ => (key.clone(), value.clone()),
        });
        Self { entries: entries.collect(), tangled: false }
    }

    /// What leads from `self` to `to`; `None` when nothing does.
    pub fn change_to(&self, to: &Arc<Self>) -> Option<RuleChange> {
        if self.tangled {
            return Some(RuleChange::Swap(to.clone()));
        }
        let mut keys = Vec::new();
        for (key, value) in &to.entries {
            match self.entries.get(key) {
                Some(old) if Arc::ptr_eq(old, value) || old == value => {}
                old => keys.push((key.clone(), Some(value.clone()), old.is_none())),
            }
        }
        // Nothing goes before what takes its place has come.
        let gone = self.entries.keys().filter(|key| !to.entries.contains_key(*key));
        keys.extend(gone.map(|key| (key.clone(), None, false)));
        match keys.len() {
            0 => None,
            n if n > MOST_SINGLE_CHANGES => Some(RuleChange::Swap(to.clone())),
            _ => Some(RuleChange::Keys(keys)),
        }
    }
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn any_map()(raw in prop::collection::btree_map("[a-c](/[a-b]){0,2}/", "edge:[1-3]\\|[-s]\\|[x-z]|nobody", 0..6)) -> RuleMap {
            RuleMap::of_entries(raw)
        }
    }

    proptest! {
        #[test]
        fn a_change_leads_to_the_other_map_and_equal_maps_need_none(old in any_map(), new in any_map()) {
            let new = Arc::new(new);
            prop_assert_eq!(new.change_to(&new), None);
            let mut replayed = old.entries.clone();
            match old.change_to(&new) {
                None => {}
                Some(RuleChange::Swap(_)) => prop_assert!(false, "few changes"),
                Some(RuleChange::Keys(keys)) => for (key, value, is_new) in keys {
                    prop_assert_eq!(is_new, value.is_some() && !replayed.contains_key(&key));
                    match value {
                        Some(value) => _ = replayed.insert(key, value),
                        None => prop_assert!(replayed.remove(&key).is_some()),
                    }
                },
            }
            prop_assert_eq!(&replayed, &new.entries);
        }

        #[test]
        fn a_file_is_read_back_as_it_was_written(map in any_map()) {
            prop_assert_eq!(RuleMap::parse(&map.render()), map);
        }

        #[test]
        fn a_key_is_read_back_as_its_place(host in "(\\*\\.)?[a-z]{1,5}\\.example", path in "(/[a-z%2]{1,3}){0,3}") {
            if let Ok(path) = format!("{path}/").parse() {
                let at = Place { host: host.parse().unwrap(), path };
                prop_assert_eq!(place(&key(&at)), Some(at));
            }
        }
    }

    #[test]
    fn a_key_that_haproxy_has_twice_has_the_whole_map_replaced() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let map = RuleMap::of_entries([pair("a/", "edge:1|-|a"), pair("a/", "edge:2|-|b")]);
        let to = Arc::new(RuleMap::of_entries([pair("a/", "edge:2|-|b")]));
        assert_eq!(map.change_to(&to), Some(RuleChange::Swap(to.clone())));
        let many = Arc::new(RuleMap::of_entries((0..600).map(|n| pair(&format!("h{n}/"), "edge:1|-|a"))));
        assert!(matches!(to.change_to(&many), Some(RuleChange::Swap(_))));
    }

    #[test]
    fn what_points_to_a_section_that_does_not_run_stays_as_it_is_until_it_does() {
        let map = |to: [&str; 2]| {
            let keys = ["a/", "b/"].map(str::to_owned);
            RuleMap::of_entries(keys.into_iter().zip(to.map(|section| format!("{section}|-|x"))))
        };
        let within = map(["edge:2", "edge:1"]).within(&map(["edge:1", "edge:3"]), |section| section == "edge:1");
        assert_eq!(within, map(["edge:1", "edge:1"]));
    }
}
