//! From what runs to what is desired: runtime operations where they serve, a reload with its reasons where not. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::layout::{Layout, Section};
use super::server::Server;
use crate::haproxy::command::CommandError;
use crate::haproxy::ops::{Op, ServerParams, ServerRef};
use crate::haproxy::version::Capabilities;

/// What runs in HAProxy as far as we know: read back at start and after each reload, and kept by every operation.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// The structure that was loaded, and the servers that take traffic.
    pub layout: Layout,
    /// Servers in maintenance that wait for their deletion, by section: not in the file any more.
    pub lingering: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Server>>,
    /// Why the structure on disk is not what runs, if so: only a reload helps.
    pub unknown: Option<ReloadReason>,
}

/// Why only a reload will do. The words are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReloadReason {
    /// HAProxy has loaded nothing of ours yet, or its file is not ours.
    Start,
    /// The file was edited by hand.
    EditedByHand,
    /// A reload was begun and its outcome is not known.
    Interrupted,
    /// Global, defaults or another part outside the services changed.
    Header,
    /// A service is new.
    SectionAdded,
    /// A service is gone for good.
    SectionRemoved,
    /// A service's bind, mode or options changed.
    SectionChanged,
    /// A server's parameters changed, and this version cannot replace it.
    ServerChanged,
    /// HAProxy refused an operation.
    Refused,
    /// Too many servers linger in maintenance, and this version cannot delete them.
    Lingering,
    /// Somebody asked for it.
    Asked,
}

impl ReloadReason {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::EditedByHand => "edited_by_hand",
            Self::Interrupted => "interrupted",
            Self::Header => "header",
            Self::SectionAdded => "section_added",
            Self::SectionRemoved => "section_removed",
            Self::SectionChanged => "section_changed",
            Self::ServerChanged => "server_changed",
            Self::Refused => "refused",
            Self::Lingering => "lingering",
            Self::Asked => "asked",
        }
    }
}

impl fmt::Display for ReloadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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

/// Changes of servers only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The file that corresponds to the operations.
    pub layout: Layout,
    /// In the order of their urgency.
    pub ops: Vec<Step>,
}

/// One server's change, as the operations that make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The section.
    pub section: Arc<str>,
    /// What becomes of the server.
    pub change: ServerChange,
    /// What `add server` is given before the server's own parameters.
    pub inherited: Arc<str>,
    /// This version refuses `cookie` in `add server`, and here it means nothing: left out.
    pub without_cookie: bool,
}

impl Step {
    /// The operations, in order.
    ///
    /// # Errors
    /// [`CommandError`] when a name or a parameter cannot be sent over the runtime API.
    pub fn ops(&self) -> Result<Vec<Op>, CommandError> {
        match &self.change {
            ServerChange::Add(now) if self.without_cookie => {
                ServerChange::Add(now.without_cookie()).ops(&self.section, &self.inherited)
            }
            change => change.ops(&self.section, &self.inherited),
        }
    }
}

/// What becomes of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerChange {
    /// It is new in its section.
    Add(Server),
    /// It lingers in maintenance with the same parameters: enabled again.
    Revive {
        /// As it is.
        was: Server,
        /// As it should be.
        now: Server,
    },
    /// Its address, weight or maintenance changed.
    Alter {
        /// As it is.
        was: Server,
        /// As it should be.
        now: Server,
    },
    /// Its parameters changed: deleted and added anew. Refused while it is busy, and then a reload does it.
    Replace {
        /// As it is.
        was: Server,
        /// As it should be.
        now: Server,
    },
    /// It goes: maintenance at once, deletion when it is idle.
    Retire(Server),
}

impl ServerChange {
    fn urgency(&self) -> u8 {
        match self {
            // New servers first: a pool that is replaced as a whole is never empty in between.
            Self::Add(_) | Self::Revive { .. } => 0,
            Self::Alter { .. } => 1,
            Self::Replace { .. } => 2,
            Self::Retire(_) => 3,
        }
    }

    /// The operations, in order.
    ///
    /// # Errors
    /// [`CommandError`] when a name or a parameter cannot be sent over the runtime API.
    fn ops(&self, section: &str, inherited: &str) -> Result<Vec<Op>, CommandError> {
        let at = |server: &Server| ServerRef::new(section, &*server.name);
        let mut ops = Vec::with_capacity(3);
        match self {
            Self::Add(server) => add(&mut ops, at(server)?, server, inherited)?,
            Self::Replace { was, now } => {
                if !was.maint {
                    ops.push(Op::Maint(at(was)?));
                }
                ops.push(Op::DelServer(at(was)?));
                add(&mut ops, at(now)?, now, inherited)?;
            }
            Self::Revive { was, now } | Self::Alter { was, now } => {
                let revived = matches!(self, Self::Revive { .. });
                if was.address != now.address {
                    ops.push(Op::SetAddr(at(now)?, now.address));
                }
                if was.weight != now.weight {
                    ops.push(Op::SetWeight(at(now)?, now.weight));
                }
                match (was.maint || revived, now.maint) {
                    (true, false) => ops.push(Op::Ready(at(now)?)),
                    (false, true) => ops.push(Op::Maint(at(now)?)),
                    _ => {}
                }
            }
            Self::Retire(server) if server.maint => {}
            Self::Retire(server) => ops.push(Op::Maint(at(server)?)),
        }
        Ok(ops)
    }
}

/// A new server starts in maintenance and with its checks off, whatever its parameters say.
fn add(ops: &mut Vec<Op>, at: ServerRef, server: &Server, inherited: &str) -> Result<(), CommandError> {
    let params = ServerParams::parse(&server.runtime_params(inherited))?;
    let checked = params.has_check();
    ops.push(Op::AddServer(at.clone(), server.address, params));
    if checked {
        ops.push(Op::EnableHealth(at.clone()));
    }
    if !server.maint {
        ops.push(Op::Ready(at));
    }
    Ok(())
}

/// Compares `desired` with what is `applied`. Costs a pointer comparison for each section that both share.
pub fn plan(desired: &Layout, applied: &Applied, can: &Capabilities) -> Plan {
    if applied.unknown.is_none() && applied.lingering.is_empty() && is_same(desired, &applied.layout) {
        return Plan::Unchanged;
    }
    let mut reasons: BTreeSet<ReloadReason> = applied.unknown.into_iter().collect();
    if let Some(ReloadReason::Start | ReloadReason::EditedByHand) = applied.unknown {
        // Nothing is known to compare with, so further reasons would be made up.
        return Plan::Reload { interim: None, layout: desired.clone(), reasons };
    }
    if desired.header != applied.layout.header || desired.footer != applied.layout.footer {
        reasons.insert(ReloadReason::Header);
    }
    let counterparts = counterparts(&applied.layout, desired);
    // No name is there twice: as many counterparts as are desired are all of them.
    if counterparts.iter().flatten().count() < desired.sections.len() {
        reasons.insert(ReloadReason::SectionAdded);
    }

    let refuses_cookies = !can.cookie_in_add_server;
    let in_defaults = refuses_cookies && has_cookies(&desired.header);
    let mut ops = Vec::new();
    let mut interim = applied.layout.clone();
    for (section, wanted) in interim.sections.iter_mut().zip(counterparts) {
        let Some(wanted) = wanted else {
            reasons.insert(ReloadReason::SectionRemoved);
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

    if !reasons.is_empty() {
        // After a refusal what runs was read back; after an interrupted reload the sections that run are in doubt.
        let known = matches!(applied.unknown, None | Some(ReloadReason::Refused));
        let interim = (known && !ops.is_empty()).then_some(Live { layout: interim, ops });
        Plan::Reload { interim, layout: desired.clone(), reasons }
    } else if ops.is_empty() && same_order(desired, &applied.layout) {
        Plan::Unchanged
    } else {
        Plan::Live(Live { layout: desired.clone(), ops })
    }
}

/// What each section that runs is to become; `None`: it goes. As long as none comes or goes, nothing is searched for.
fn counterparts<'a>(running: &Layout, desired: &'a Layout) -> Vec<Option<&'a Arc<Section>>> {
    let pairs = || running.sections.iter().zip(&desired.sections);
    if running.sections.len() == desired.sections.len() && pairs().all(|(a, b)| Arc::ptr_eq(a, b) || a.name == b.name) {
        return desired.sections.iter().map(Some).collect();
    }
    let by_name: HashMap<&str, &Arc<Section>> = desired.sections.iter().map(|s| (&*s.name, s)).collect();
    running.sections.iter().map(|s| by_name.get(&*s.name).copied()).collect()
}

/// Whether both are the same down to their pointers: the usual case, and the cheapest to see.
fn is_same(a: &Layout, b: &Layout) -> bool {
    Arc::ptr_eq(&a.header, &b.header)
        && Arc::ptr_eq(&a.footer, &b.footer)
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
    // Below 3.0 an added server never reuses a connection unless told to (dataplane.md section 1.6); our own lines say so
    // themselves, somebody else's stay as they are in the file.
    let foreign = wanted.servers.iter().any(|s| s.line.is_some());
    let inherited: Arc<str> = match can.needs_pool_settings && foreign {
        true => format!("{POOL} {}", wanted.inherited).into(),
        false => wanted.inherited.clone(),
    };
    let mut step = |change| {
        let without_cookie = no_cookie == Some(false);
        ops.push(Step { section: section.name.clone(), change, inherited: inherited.clone(), without_cookie });
    };
    let mut listed = Vec::with_capacity(wanted.servers.len());
    let mut missing = false;
    for server in &wanted.servers {
        let lingers = lingering.and_then(|l| l.get(&server.name));
        let other_params = |was: &Server| was.params != server.params;
        match (was.get(&*server.name), lingers) {
            (Some(was), _) if *was == server => {}
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
