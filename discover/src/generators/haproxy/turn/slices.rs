//! A turn does a slice of a plan, so that no service keeps the others waiting: what is known dead first, then the services
//! with the fewest changes, then the rest in turn. Pure.
//!
//! A slice is a plan of its own: its file holds what its operations make, and what it leaves out stays as it was. So the next
//! plan, and a discover that starts anew between two slices, find nothing half done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashSet};

use super::changes::{ServerChange, Step};
use super::plan::{Applied, Live, Plan};
use super::reason::ReloadReason;
use crate::edge::Way;
use crate::edge::sections::empty;
use crate::generators::haproxy::file::layout::{Layout, Section};
use crate::generators::haproxy::file::names::first_section;
use crate::generators::haproxy::file::server::Server;

/// The most changes of servers that one slice makes: three operations each at most, but for cookies.
pub const MOST: usize = 256;
/// The fewest that it may be cut down to: HAProxy 2.6 takes 3 ms to add a server to a section of 10,000 (measured).
const FEWEST: usize = 16;
/// How long HAProxy may be busy with one slice.
const TARGET: Duration = Duration::from_millis(200);

/// What one turn does, and what it leaves to the next ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnPlan {
    /// What is to be done now.
    pub plan: Plan,
    /// How many changes of servers are left, by section.
    pub behind: Behind,
}

/// How many changes are still to be made, by section.
pub type Behind = BTreeMap<Arc<str>, usize>;

/// How large a slice is: fewer changes where HAProxy takes longer for each.
#[derive(Debug)]
pub struct Slices {
    most: usize,
}

impl Default for Slices {
    fn default() -> Self {
        Self { most: MOST }
    }
}

impl Slices {
    /// HAProxy took `time` for this many changes.
    pub fn took(&mut self, changes: usize, time: Duration) {
        if time > TARGET {
            let fit = TARGET.as_secs_f64() / time.as_secs_f64() * changes as f64;
            self.most = (fit as usize).clamp(FEWEST, MOST);
        } else if changes >= self.most && time < TARGET / 2 {
            self.most = (self.most * 2).min(MOST);
        }
    }

    /// What of `plan` is to be done now, and what is not.
    pub fn cut(&self, plan: Plan, applied: &Applied) -> TurnPlan {
        match plan {
            Plan::Unchanged => TurnPlan { plan, behind: Behind::new() },
            Plan::Live(live) => {
                let (live, behind) = slice(live, applied, self.most);
                TurnPlan { plan: Plan::Live(live), behind }
            }
            Plan::Reload { interim, layout, reasons } => {
                let (interim, mut behind) = match interim.map(|live| slice(live, applied, self.most)) {
                    Some((live, behind)) => (Some(live), behind),
                    None => (None, Behind::new()),
                };
                let (layout, later) = begin(layout, applied, &reasons);
                behind.extend(later);
                TurnPlan { plan: Plan::Reload { interim, layout, reasons }, behind }
            }
        }
    }
}

/// A section's steps in the order in which they may be made: any number of the first of them leaves no pool without servers.
struct Queue {
    section: Arc<str>,
    steps: Vec<Step>,
    /// How many steps wait for nothing: their servers are known to be dead.
    dead: usize,
    /// How many steps are in the slice.
    taken: usize,
    /// Further steps, whose turn comes only when the edge's rules lead elsewhere.
    held: Vec<Step>,
}

/// The part of `live` that is done now, at most `most` changes of servers, and what is left of it.
pub fn slice(mut live: Live, applied: &Applied, most: usize) -> (Live, Behind) {
    let running: HashMap<&str, &Arc<Section>> = applied.layout.sections.iter().map(|s| (&*s.name, s)).collect();
    let half = (most / 2).max(1);
    let mut behind = Behind::new();
    for name in live.sections.go.split_off(half.min(live.sections.go.len())) {
        live.layout.sections.extend(running.get(&*name).map(|section| Arc::clone(section)));
        behind.insert(name, 1);
    }
    let late = live.sections.come.split_off(half.min(live.sections.come.len()));
    let late: HashSet<Arc<str>> = late.into_iter().map(|new| new.name).collect();
    live.layout.sections.retain(|section| !late.contains(&section.name));

    let mut queues = queues(&mut live, &running, most);
    fill(queues.iter_mut().filter(|queue| !late.contains(&queue.section)), half, |queue| queue.dead);
    fill(queues.iter_mut().filter(|queue| !late.contains(&queue.section)), most, |queue| queue.steps.len());

    behind.extend(late.into_iter().map(|name| (name, 1)));
    let mut left: HashMap<Arc<str>, HashSet<Arc<str>>> = HashMap::default();
    for mut queue in queues {
        let mut rest = queue.steps.split_off(queue.taken);
        rest.append(&mut queue.held);
        if !rest.is_empty() {
            *behind.entry(queue.section.clone()).or_default() += rest.len();
            left.insert(queue.section, rest.iter().map(|step| step.change.server().name.clone()).collect());
        }
        let others = queue.steps.split_off(queue.dead.min(queue.taken));
        live.first.extend(queue.steps);
        live.ops.extend(others);
    }
    live.ops.sort_by_cached_key(|step: &Step| (step.change.is_dead(), step.change.urgency()));
    for section in &mut live.layout.sections {
        if let Some(left) = left.get(&section.name) {
            let was = running.get(&*section.name).map(|was| was.servers.as_slice()).unwrap_or_default();
            let servers = reached(was, &section.servers, left);
            *section = Arc::new(Section { servers, ..(**section).clone() });
        }
    }
    if !behind.is_empty() {
        hold_rules(&mut live, applied, &behind);
    }
    (live, behind)
}

/// Takes the steps out of `live`: one queue for each section, those of the services with the fewest steps first.
fn queues(live: &mut Live, running: &HashMap<&str, &Arc<Section>>, most: usize) -> Vec<Queue> {
    let steps = std::mem::take(&mut live.ops);
    // Servers that a rule may still lead to wait for the rules, and those for the newcomers.
    let hold = live.rules.is_some() && steps.len() > most;
    let wanted: HashMap<&str, &Section> = live.layout.sections.iter().map(|s| (&*s.name, &**s)).collect();
    let mut by_section: BTreeMap<Arc<str>, Vec<Step>> = BTreeMap::new();
    for step in steps {
        by_section.entry(step.section.clone()).or_default().push(step);
    }
    let queue = |(section, steps): (Arc<str>, Vec<Step>)| {
        let now = running.get(&*section).map_or(0, |s| serving(s));
        let then = wanted.get(&*section).map_or(0, |s| serving(s));
        let comes = |step: &Step| !step.change.is_dead() && step.change.server().serves();
        // Where newcomers take over, half of what serves stays until they are there.
        let stay = match then {
            0 => usize::from(live.rules.is_some()),
            _ if steps.iter().any(comes) => now.min(then).div_ceil(2),
            _ => 0,
        };
        let mut spare = now.saturating_sub(stay);
        let (mut dead, mut others) = (Vec::new(), Vec::new());
        for step in steps {
            let costs = usize::from(takes_away(&step.change));
            match step.change.is_dead() && costs <= spare {
                true => {
                    spare -= costs;
                    dead.push(step);
                }
                false => others.push(step),
            }
        }
        let (held, others) = others.into_iter().partition(|step| hold && then == 0 && step.change.is_dead());
        let mut others: Vec<Step> = others;
        others.sort_by_key(|step| step.change.is_dead());
        let sure = dead.len();
        dead.extend(others);
        Queue { section, steps: dead, dead: sure, taken: 0, held }
    };
    let mut queues: Vec<Queue> = by_section.into_iter().map(queue).collect();
    let mut of_service: HashMap<Box<str>, usize> = HashMap::default();
    for queue in &queues {
        *of_service.entry(first_section(&queue.section).into()).or_default() += queue.steps.len();
    }
    queues.sort_by_key(|queue| of_service.get(first_section(&queue.section)).copied());
    queues
}

/// Takes steps from the services in turn, each time one, until `most` are taken or each queue has given what it `may`. A service with
/// several ports has several queues, and no more turns than others.
fn fill<'a>(queues: impl Iterator<Item = &'a mut Queue>, most: usize, may: impl Fn(&Queue) -> usize) {
    let mut services: Vec<VecDeque<&mut Queue>> = Vec::new();
    let mut known: HashMap<Box<str>, usize> = HashMap::default();
    let mut room = most;
    for queue in queues {
        room = room.saturating_sub(queue.taken);
        let nth = *known.entry(first_section(&queue.section).into()).or_insert(services.len());
        match services.get_mut(nth) {
            Some(service) => service.push_back(queue),
            None => services.push(VecDeque::from([queue])),
        }
    }
    loop {
        for service in &mut services {
            service.retain(|queue| queue.taken < may(queue));
        }
        services.retain(|service| !service.is_empty());
        if services.is_empty() || room == 0 {
            return;
        }
        for service in services.iter_mut().take(room) {
            if let Some(queue) = service.pop_front() {
                queue.taken += 1;
                service.push_back(queue);
            }
            room -= 1;
        }
    }
}

/// Whether one server less serves while the change is made.
fn takes_away(change: &ServerChange) -> bool {
    match change {
        ServerChange::Retire(was) | ServerChange::Replace { was, .. } | ServerChange::Alter { was, .. } => was.serves(),
        ServerChange::Add(_) | ServerChange::Revive { .. } => false,
    }
}

fn serving(section: &Section) -> usize {
    section.servers.iter().filter(|server| server.serves()).count()
}

/// The servers of a section when the changes of those in `left` are not made: in the order wanted, then those that are to go.
fn reached(was: &[Server], wanted: &[Server], left: &HashSet<Arc<str>>) -> Vec<Server> {
    let old: HashMap<&str, &Server> = was.iter().map(|server| (&*server.name, server)).collect();
    let as_now = |server: &Server| match left.contains(&server.name) {
        true => old.get(&*server.name).map(|old| (*old).clone()),
        false => Some(server.clone()),
    };
    let names: HashSet<&str> = wanted.iter().map(|server| &*server.name).collect();
    let going = was.iter().filter(|server| left.contains(&server.name) && !names.contains(&*server.name));
    wanted.iter().filter_map(as_now).chain(going.cloned()).collect()
}

/// A rule does not lead to a section whose servers are yet to come, as long as another rule is in its place.
fn hold_rules(live: &mut Live, applied: &Applied, behind: &Behind) {
    let (Some(wanted), Some(now), Some(_)) = (&live.layout.rules, &applied.layout.rules, &live.rules) else { return };
    let sections = live.layout.sections.iter();
    let ready = sections.filter(|section| serving(section) > 0 || !behind.contains_key(&section.name));
    let ready: HashSet<&str> = ready.map(|section| &*section.name).collect();
    let is_ready = |section: &str| section == empty(Way::Http) || section == empty(Way::Sni) || ready.contains(section);
    let reached = Arc::new(wanted.within(now, is_ready));
    if reached != *wanted {
        live.rules = now.change_to(&reached);
        live.layout.rules = Some(reached);
    }
}

/// What a reload loads: of the servers that are new in a section the first ones. HAProxy's time for a file grows with the square of the
/// servers of one section, and nobody else's change can be made meanwhile; the others follow in slices.
fn begin(mut layout: Layout, applied: &Applied, reasons: &BTreeSet<ReloadReason>) -> (Layout, Behind) {
    use ReloadReason as Reason;
    let mut behind = Behind::new();
    // At a start nobody is kept waiting; what could not be done without a reload must be done by it.
    let all = [Reason::Start, Reason::EditedByHand, Reason::Interrupted, Reason::Refused, Reason::ServerChanged];
    if all.iter().any(|reason| reasons.contains(reason)) {
        return (layout, behind);
    }
    let running: HashMap<&str, &Arc<Section>> = applied.layout.sections.iter().map(|s| (&*s.name, s)).collect();
    let mut size: HashMap<Box<str>, usize> = HashMap::default();
    for section in &layout.sections {
        *size.entry(first_section(&section.name).into()).or_default() += section.servers.len();
    }
    size.retain(|_, servers| *servers > MOST);
    // For each large service, how many newcomers it may have yet.
    let mut rooms: HashMap<Box<str>, usize> = size.into_keys().map(|service| (service, MOST)).collect();
    for section in &mut layout.sections {
        let Some(room) = rooms.get_mut(first_section(&section.name)) else { continue };
        let was = running.get(&*section.name).map(|was| was.servers.as_slice()).unwrap_or_default();
        let known: HashSet<&str> = was.iter().map(|server| &*server.name).collect();
        let all = section.servers.len();
        let mut servers = Vec::with_capacity(all);
        for server in &section.servers {
            let new = !known.contains(&*server.name);
            if new && *room == 0 {
                continue;
            }
            *room -= usize::from(new);
            servers.push(server.clone());
        }
        if servers.len() < all {
            behind.insert(section.name.clone(), all - servers.len());
            *section = Arc::new(Section { servers, ..(**section).clone() });
        }
    }
    (layout, behind)
}

#[cfg(test)]
#[path = "slices_tests.rs"]
mod tests;
