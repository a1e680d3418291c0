//! A turn does a slice of a plan, so that no service keeps the others waiting: what is known dead first, then the services
//! with the fewest changes, then the rest in turn. Pure.
//!
//! A slice is a plan of its own: its file holds what its operations make, and what it leaves out stays as it was. So the next
//! plan, and a discover that starts anew between two slices, find nothing half done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashSet};

use super::changes::{ServerChange, Step};
use super::plan::{Applied, Live, Plan, ReloadReason};
use crate::edge::Way;
use crate::edge::sections::empty;
use crate::generators::haproxy::file::layout::{Layout, Section};
use crate::generators::haproxy::file::server::Server;

/// The most changes of servers that one slice makes: three operations each at most, but for cookies.
pub const MOST: usize = 256;
/// The fewest that it may be cut down to: HAProxy 2.6 takes 3 ms to add a server to a section of 10,000 (measured).
const FEWEST: usize = 16;
/// How long HAProxy may be busy with one slice.
const TARGET: Duration = Duration::from_millis(200);

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
    /// HAProxy took `time` for so many changes.
    pub fn took(&mut self, changes: usize, time: Duration) {
        if time > TARGET {
            let fit = TARGET.as_secs_f64() / time.as_secs_f64() * changes as f64;
            self.most = (fit as usize).clamp(FEWEST, MOST);
        } else if changes >= self.most && time < TARGET / 2 {
            self.most = (self.most * 2).min(MOST);
        }
    }

    /// What of `plan` is to be done now, and what is not.
    pub fn cut(&self, plan: Plan, applied: &Applied) -> (Plan, Behind) {
        match plan {
            Plan::Unchanged => (plan, Behind::new()),
            Plan::Live(live) => {
                let (live, behind) = slice(live, applied, self.most);
                (Plan::Live(live), behind)
            }
            Plan::Reload { interim, layout, reasons } => {
                let (interim, mut behind) = match interim.map(|live| slice(live, applied, self.most)) {
                    Some((live, behind)) => (Some(live), behind),
                    None => (None, Behind::new()),
                };
                let (layout, later) = begin(layout, applied, &reasons);
                behind.extend(later);
                (Plan::Reload { interim, layout, reasons }, behind)
            }
        }
    }
}

/// A section's steps in the order in which they may be made: any number of the first of them leaves no pool without servers.
struct Queue {
    section: Arc<str>,
    steps: Vec<Step>,
    /// So many of the steps wait for nothing: the servers are known to be dead.
    dead: usize,
    /// So many of the steps are in the slice.
    taken: usize,
    /// So many more have their turn only when the edge's rules lead elsewhere.
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

/// Takes the steps out of `live`: one queue for each section, the shortest first.
fn queues(live: &mut Live, running: &HashMap<&str, &Arc<Section>>, most: usize) -> Vec<Queue> {
    let steps = std::mem::take(&mut live.ops);
    // Servers that a rule may still lead to wait for the rules, and those for the newcomers.
    let hold = live.rules.is_some() && steps.len() > most;
    let wanted: HashMap<&str, usize> = live.layout.sections.iter().map(|s| (&*s.name, serving(s))).collect();
    let mut by_section: BTreeMap<Arc<str>, Vec<Step>> = BTreeMap::new();
    for step in steps {
        by_section.entry(step.section.clone()).or_default().push(step);
    }
    let queue = |(section, steps): (Arc<str>, Vec<Step>)| {
        let now = running.get(&*section).map_or(0, |s| serving(s));
        let then = wanted.get(&*section).copied().unwrap_or_default();
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
    queues.sort_by_key(|queue| queue.steps.len());
    queues
}

/// Takes steps from the queues in turn, each time one, until `most` are taken or each queue has given what it `may`.
fn fill<'a>(queues: impl Iterator<Item = &'a mut Queue>, most: usize, may: impl Fn(&Queue) -> usize) {
    let mut queues: Vec<&mut Queue> = queues.collect();
    let mut room = most.saturating_sub(queues.iter().map(|queue| queue.taken).sum());
    loop {
        queues.retain(|queue| queue.taken < may(queue));
        if queues.is_empty() || room == 0 {
            return;
        }
        for queue in queues.iter_mut().take(room) {
            queue.taken += 1;
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
    for section in layout.sections.iter_mut().filter(|section| section.servers.len() > MOST) {
        let was = running.get(&*section.name).map(|was| was.servers.as_slice()).unwrap_or_default();
        let known: HashSet<&str> = was.iter().map(|server| &*server.name).collect();
        let (mut room, all) = (MOST, section.servers.len());
        let mut servers = Vec::with_capacity(room);
        for server in &section.servers {
            let new = !known.contains(&*server.name);
            if new && room == 0 {
                continue;
            }
            room -= usize::from(new);
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
