//! From what runs to what is desired: runtime operations where they serve, a reload with its reasons where not. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::changes::{NewSection, SectionChanges, ServerChange, Step};
use super::reason::ReloadReason;
use super::state::HaproxyState;
use crate::edge::Way;
use crate::edge::sections::empty;
use crate::generators::haproxy::file::edge::map::RuleChange;
use crate::generators::haproxy::file::layout::{Layout, Retired, Section};
use crate::generators::haproxy::file::server::Server;
use crate::haproxy::api::version::Capabilities;

/// What runs in HAProxy as far as we know: read back at start and after each reload, and kept by every operation.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// The structure that was loaded, and the servers that take traffic.
    pub layout: Layout,
    /// Servers in maintenance that wait for their deletion, by section: not in the file any more.
    pub lingering: Retired,
    /// How much of that is known.
    pub state: HaproxyState,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// What runs is what is desired.
    Unchanged,
    /// The runtime API does it all.
    Live(Live),
    /// The structure must change. What can go over the runtime API goes at once, so that nothing known to be dead gets
    /// traffic while the reload waits for its time.
    Reload {
        /// Changes of servers within the structure that runs.
        interim: Option<Live>,
        /// The file to load.
        layout: Layout,
        /// Why: at least one.
        reasons: BTreeSet<ReloadReason>,
    },
}

/// Changes that need no reload: of servers, of the edge's rules, and from 3.4 on of sections that are made from `defaults` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The file that corresponds to the operations.
    pub layout: Layout,
    /// Sections that come and go.
    pub sections: SectionChanges,
    /// Servers that are known to be dead and wait for nothing; [`super::slices`] finds them.
    pub first: Vec<Step>,
    /// In the order of their urgency.
    pub ops: Vec<Step>,
    /// What becomes of the edge's rules: after servers have come, and before others go.
    pub rules: Option<RuleChange>,
}

impl Live {
    /// Whether `other` gives HAProxy the same to do.
    pub fn same_work(&self, other: &Self) -> bool {
        self.sections == other.sections
            && self.first == other.first
            && self.ops == other.ops
            && self.rules == other.rules
    }

    /// Every change of a server, in the order in which they are made.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.first.iter().chain(&self.ops)
    }

    /// Whether HAProxy has nothing to do for it.
    pub fn is_idle(&self) -> bool {
        self.sections.is_empty() && self.first.is_empty() && self.ops.is_empty() && self.rules.is_none()
    }
}

/// Compares `desired` with what is `applied`. Costs a pointer comparison for each section that both share.
pub fn plan(desired: &Layout, applied: &Applied, can: &Capabilities) -> Plan {
    if applied.state.reason().is_none() && applied.lingering.is_empty() && is_same(desired, &applied.layout) {
        return Plan::Unchanged;
    }
    let mut reasons: BTreeSet<ReloadReason> = applied.state.reason().into_iter().collect();
    if let Some(ReloadReason::Start | ReloadReason::EditedByHand) = applied.state.reason() {
        // Nothing is known to compare with, so further reasons would be made up.
        return Plan::Reload { interim: None, layout: desired.clone(), reasons };
    }
    let edge_is_new = desired.rules.is_some() && applied.layout.rules.is_none();
    if desired.header != applied.layout.header || desired.footer != applied.layout.footer || edge_is_new {
        reasons.insert(ReloadReason::Header);
    }
    let mut interim = applied.layout.clone();
    let mut sections = SectionChanges { come: new_sections(&mut interim, desired, can), go: Vec::new() };
    let counterparts = counterparts(&interim, desired);
    // No name is there twice: as many counterparts as are desired are all of them.
    if counterparts.iter().flatten().count() < desired.sections.len() {
        reasons.insert(ReloadReason::SectionAdded);
    }

    let refuses_cookies = !can.cookie_in_add_server;
    let in_defaults = refuses_cookies && has_cookies(&desired.header);
    let mut ops = Vec::new();
    for (section, wanted) in interim.sections.iter_mut().zip(counterparts) {
        let Some(wanted) = wanted else {
            match can.add_backend && section.made_from().is_some() && section.is_idle(&applied.lingering) {
                true => sections.go.push(section.name.clone()),
                false => _ = reasons.insert(ReloadReason::SectionRemoved),
            }
            continue;
        };
        if Arc::ptr_eq(section, wanted) {
            continue;
        }
        if section.skeleton != wanted.skeleton {
            reasons.insert(ReloadReason::SectionChanged);
        }
        let no_cookie = refuses_cookies.then(|| in_defaults || has_cookies(&wanted.skeleton));
        let lingering = applied.lingering.get(&section.name);
        let servers = servers(section, wanted, lingering, &mut ops, can, no_cookie, &mut reasons);
        *section = match section.skeleton == wanted.skeleton && servers == wanted.servers {
            true => Arc::clone(wanted),
            false => Arc::new(Section { servers, ..(**section).clone() }),
        };
    }
    if !can.del_server && too_many_linger(applied, &ops, desired) {
        reasons.insert(ReloadReason::Lingering);
    }
    ops.sort_by_cached_key(|step: &Step| step.change.urgency());
    interim.sections.retain(|section| !sections.go.contains(&section.name));
    let rules = rules(desired, &mut interim);

    if !reasons.is_empty() {
        // After a refusal what runs was read back; after an interrupted reload the sections that run are in doubt.
        let interim = Live { layout: interim, sections, first: Vec::new(), ops, rules };
        let interim = (applied.state.is_known() && !interim.is_idle()).then_some(interim);
        return Plan::Reload { interim, layout: desired.clone(), reasons };
    }
    let live = Live { layout: desired.clone(), sections, first: Vec::new(), ops, rules };
    if live.is_idle() && same_order(desired, &applied.layout) { Plan::Unchanged } else { Plan::Live(live) }
}

/// Adds to `running`, without servers, the sections that HAProxy can make from `defaults` that it has loaded.
fn new_sections(running: &mut Layout, desired: &Layout, can: &Capabilities) -> Vec<NewSection> {
    if !can.add_backend || desired.header != running.header || same_names(running, desired) {
        return Vec::new();
    }
    let names: HashSet<Arc<str>> = running.sections.iter().map(|section| section.name.clone()).collect();
    let mut come = Vec::new();
    for section in desired.sections.iter().filter(|section| !names.contains(&section.name)) {
        let Some(defaults) = section.made_from() else { continue };
        come.push(NewSection { name: section.name.clone(), defaults: defaults.into() });
        running.sections.push(Arc::new(Section { servers: Vec::new(), ..(**section).clone() }));
    }
    come
}

/// What becomes of the rules while the structure of `running` stays, which gets them. A rule whose section does not run yet
/// waits for it where another rule is in its place.
fn rules(desired: &Layout, running: &mut Layout) -> Option<RuleChange> {
    let (Some(wanted), Some(now)) = (&desired.rules, &running.rules) else { return None };
    if Arc::ptr_eq(wanted, now) {
        return None;
    }
    let sections: HashSet<&str> = running.sections.iter().map(|section| &*section.name).collect();
    let all_run = desired.sections.iter().all(|section| sections.contains(&*section.name));
    let is_empty = |section: &str| section == empty(Way::Http) || section == empty(Way::Sni);
    let reached = match all_run {
        true => wanted.clone(),
        false => Arc::new(wanted.within(now, |section| is_empty(section) || sections.contains(section))),
    };
    let change = now.change_to(&reached);
    running.rules = Some(reached);
    change
}

/// What each section that runs is to become; `None`: it goes. As long as none comes or goes, nothing is searched for.
fn counterparts<'a>(running: &Layout, desired: &'a Layout) -> Vec<Option<&'a Arc<Section>>> {
    if same_names(running, desired) {
        return desired.sections.iter().map(Some).collect();
    }
    let by_name: HashMap<&str, &Arc<Section>> = desired.sections.iter().map(|s| (&*s.name, s)).collect();
    running.sections.iter().map(|s| by_name.get(&*s.name).copied()).collect()
}

/// Whether both have the same sections in the same order, whatever is in them.
fn same_names(a: &Layout, b: &Layout) -> bool {
    let mut pairs = a.sections.iter().zip(&b.sections);
    a.sections.len() == b.sections.len() && pairs.all(|(a, b)| Arc::ptr_eq(a, b) || a.name == b.name)
}

/// Whether both are the same down to their pointers: the usual case, and the cheapest to see.
fn is_same(a: &Layout, b: &Layout) -> bool {
    Arc::ptr_eq(&a.header, &b.header)
        && (Arc::ptr_eq(&a.footer, &b.footer) || a.footer == b.footer)
        && a.rules.as_ref().map(Arc::as_ptr) == b.rules.as_ref().map(Arc::as_ptr)
        && a.sections.len() == b.sections.len()
        && a.sections.iter().zip(&b.sections).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn same_order(a: &Layout, b: &Layout) -> bool {
    a.sections.len() == b.sections.len() && a.sections.iter().zip(&b.sections).all(|(a, b)| Arc::ptr_eq(a, b) || a == b)
}

/// What makes an added server reuse connections below 3.0.
const POOL: &str = "pool-purge-delay 5s pool-max-conn 100";

/// Whether a section inserts or reads cookies, so that those of its servers mean something.
fn has_cookies(text: &str) -> bool {
    text.lines().any(|l| l.starts_with(char::is_whitespace) && l.split_whitespace().next() == Some("cookie"))
}

/// Whether HAProxy itself makes the cookies of a section's servers.
fn has_dynamic_cookies(text: &str) -> bool {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.any(|mut words| words.next() == Some("cookie") && words.any(|word| word == "dynamic"))
}

/// The operations for one section; `no_cookie`: `add server` refuses cookies, and whether they mean something here. gives the servers as the file is to list them while the running structure stays.
fn servers(
    section: &Section,
    wanted: &Section,
    lingering: Option<&BTreeMap<Arc<str>, Server>>,
    ops: &mut Vec<Step>,
    can: &Capabilities,
    no_cookie: Option<bool>,
    reasons: &mut BTreeSet<ReloadReason>,
) -> Vec<Server> {
    let was: HashMap<&str, &Server> = section.servers.iter().map(|s| (&*s.name, s)).collect();
    let now: HashSet<&str> = wanted.servers.iter().map(|s| &*s.name).collect();
    // Below 3.0 an added server never reuses a connection unless told to (docs/haproxy.md); our own lines say so
    // themselves, somebody else's stay as they are in the file.
    let foreign = wanted.servers.iter().any(|s| s.line.is_some());
    let inherited: Arc<str> = match can.needs_pool_settings && foreign {
        true => format!("{POOL} {}", wanted.inherited).into(),
        false => wanted.inherited.clone(),
    };
    let refresh_cookies = !can.dynamic_cookie_in_add_server && has_dynamic_cookies(&wanted.skeleton);
    let mut step = |change| {
        let (section, inherited, without_cookie) = (section.name.clone(), inherited.clone(), no_cookie == Some(false));
        ops.push(Step { section, change, inherited, without_cookie, refresh_cookies });
    };
    let mut listed = Vec::with_capacity(wanted.servers.len());
    let mut missing = false;
    for server in &wanted.servers {
        let lingers = lingering.and_then(|l| l.get(&server.name));
        let other_params =
            |was: &Server| was.params != server.params && was.params_at_run_time() != server.params_at_run_time();
        match (was.get(&*server.name), lingers) {
            (Some(was), _) if was.same_but_for_its_id(server) => {}
            (Some(was), _) if other_params(was) && can.del_server => {
                step(ServerChange::Replace { was: (*was).clone(), now: server.clone() });
            }
            (Some(was), _) if other_params(was) => {
                reasons.insert(ReloadReason::ServerChanged);
                listed.push((*was).clone());
                continue;
            }
            (Some(was), _) => step(ServerChange::Alter { was: (*was).clone(), now: server.clone() }),
            (None, Some(was)) if other_params(was) && can.del_server => {
                step(ServerChange::Replace { was: Server { maint: true, ..was.clone() }, now: server.clone() });
            }
            (None, Some(was)) if other_params(was) => {
                reasons.insert(ReloadReason::ServerChanged);
                missing = true;
                continue;
            }
            (None, Some(was)) => step(ServerChange::Revive { was: was.clone(), now: server.clone() }),
            (None, None) if !can.add_server || no_cookie == Some(true) && server.has_cookie() => {
                reasons.insert(ReloadReason::ServerChanged);
                missing = true;
                continue;
            }
            (None, None) => step(ServerChange::Add(server.clone())),
        }
        listed.push(server.clone());
    }
    // While servers wait for a reload, those that they replace go on: an empty pool would answer nobody.
    let stay = missing && !listed.iter().any(Server::serves);
    for server in section.servers.iter().filter(|s| !now.contains(&*s.name)) {
        match stay {
            true => listed.push(server.clone()),
            false => step(ServerChange::Retire(server.clone())),
        }
    }
    listed
}

/// Below HAProxy 3.0 a retired server stays in maintenance until a reload collects it; more than this is too many.
fn too_many_linger(applied: &Applied, ops: &[Step], desired: &Layout) -> bool {
    let retiring = ops.iter().filter(|s| matches!(s.change, ServerChange::Retire(_))).count();
    let lingering = applied.lingering.values().map(BTreeMap::len).sum::<usize>() + retiring;
    let live: usize = desired.sections.iter().map(|s| s.servers.len()).sum();
    lingering > 64.max(live / 4)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
