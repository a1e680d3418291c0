//! A budget of structural changes for each service: every one costs a reload, and a worker of HAProxy that lives on for as long as its
//! sessions do. A service whose structure changes again and again waits longer each time, and no other service waits with it. Its servers
//! follow as before, within the structure that is loaded. Pure, with injected time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use tokio::time::Instant;
use tracing::warn;

use super::reason::ReloadReason;
use crate::edge::sections::section_number;
use crate::generators::haproxy::file::layout::{Layout, Section};
use crate::generators::haproxy::file::names::first_section;
use crate::generators::haproxy::file::server::Server;
use crate::haproxy::process::ports::tcp_binds;

/// How many changes in a row wait for nothing.
const FREE: u32 = 3;
/// The pause after the next one; it doubles with each.
const FIRST: Duration = Duration::from_secs(2);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);
/// A service whose structure has stayed for so long has its whole budget again: more than the longest pause.
const QUIET: Duration = Duration::from_secs(600);

/// What each service has used up, whatever its ports: a service goes by the name of its first section.
#[derive(Debug, Default)]
pub struct Churn {
    used: HashMap<Arc<str>, Used>,
    /// Those whose wanted structure waits, as of the last [`hold`](Self::hold).
    held: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct Used {
    changes: u32,
    last: Instant,
    told: bool,
}

impl Used {
    fn until(&self) -> Instant {
        let doubled = self.changes.checked_sub(FREE + 1).map(|n| FIRST.saturating_mul(1 << n.min(20)).min(LONGEST));
        self.last + doubled.unwrap_or_default()
    }
}

impl Churn {
    /// A reload for these reasons made `after` of `before`: each service whose sections were among the reasons has used some of its budget.
    pub fn loaded(&mut self, before: &Layout, after: &Layout, reasons: &BTreeSet<ReloadReason>, now: Instant) {
        // Servers change without a reload, but for some words on some versions.
        let for_servers = reasons.iter().any(|r| matches!(r, ReloadReason::ServerChanged | ReloadReason::Refused));
        self.used.retain(|_, used| now.saturating_duration_since(used.last) < QUIET);
        let was: HashMap<&str, &Arc<Section>> = before.sections.iter().map(|s| (&*s.name, s)).collect();
        let is: HashSet<&str> = after.sections.iter().map(|s| &*s.name).collect();
        let same = |s: &Section| {
            let was = was.get(&*s.name);
            was.is_some_and(|was| was.skeleton == s.skeleton && !(for_servers && have_other_words(was, s)))
        };
        let changed = after.sections.iter().filter(|s| !same(s));
        let gone = before.sections.iter().filter(|s| !is.contains(&*s.name));
        // The edge's numbered sections are nobody's own.
        let sections = changed.chain(gone).filter(|s| section_number(&s.name).is_none());
        for service in sections.map(|s| first_section(&s.name)).collect::<BTreeSet<_>>() {
            let used = self.used.entry(service.into()).or_insert(Used { changes: 0, last: now, told: false });
            (used.changes, used.last) = (used.changes.saturating_add(1), now);
        }
    }

    /// Puts into `layout` the structure that is `applied` of each section that may not change yet.
    pub fn hold(&mut self, layout: &mut Layout, applied: &Layout, now: Instant) {
        self.held.clear();
        let paused: HashSet<&str> =
            self.used.iter().filter(|(_, u)| u.until() > now).map(|(name, _)| &**name).collect();
        if paused.is_empty() {
            return;
        }
        let sections = layout.sections.iter().chain(&applied.sections).map(|s| &s.name);
        let names: BTreeSet<Arc<str>> = sections.filter(|name| paused.contains(first_section(name))).cloned().collect();
        for name in names {
            let wanted = layout.sections.iter().position(|s| s.name == name);
            let running = applied.sections.iter().find(|s| s.name == name);
            match (wanted, running) {
                (Some(at), Some(running)) => {
                    let wanted = &layout.sections[at];
                    let other = wanted.skeleton != running.skeleton;
                    if other && !keeps_its_port(running, layout, Some(at))
                        || !other && !have_other_words(running, wanted)
                    {
                        continue;
                    }
                    let servers = with_loaded_words(running, wanted);
                    layout.sections[at] = Arc::new(Section { servers, ..(**running).clone() });
                    self.hold_back(first_section(&name), now);
                }
                // One that HAProxy makes without a reload costs nothing.
                (Some(at), None) if layout.sections[at].made_from().is_none() => {
                    layout.sections.remove(at);
                    self.hold_back(first_section(&name), now);
                }
                (None, Some(running)) if running.made_from().is_none() && keeps_its_port(running, layout, None) => {
                    let at = layout.sections.partition_point(|s| s.name < name);
                    layout.sections.insert(at, Arc::new(Section { servers: Vec::new(), ..(**running).clone() }));
                    self.hold_back(first_section(&name), now);
                }
                _ => {}
            }
        }
    }

    fn hold_back(&mut self, service: &str, now: Instant) {
        if let Some(used) = self.used.get_mut(service)
            && !std::mem::replace(&mut used.told, true)
        {
            let (wait, changes) = (humantime::format_duration(whole(used.until() - now)).to_string(), used.changes);
            warn!(section = %service, changes, wait, "This service's ports, mode or options change again and again; each change waits longer now, and its servers go on as they are loaded.");
        }
        self.held.insert(service.into());
    }

    /// When the next change that waits may be made.
    pub fn next_due(&self) -> Option<Instant> {
        self.held.iter().filter_map(|name| self.used.get(name)).map(Used::until).min()
    }

    /// The services whose next change waits: how many changes there were, and for how long it waits.
    pub fn waiting(&self, now: Instant) -> BTreeMap<String, (u32, Duration)> {
        let used = self.used.iter().filter(|(_, used)| used.until() > now);
        used.map(|(name, used)| (name.to_string(), (used.changes, used.until().saturating_duration_since(now))))
            .collect()
    }
}

/// Whether nobody else is to listen on a port of this section, which stands in `layout` at `own`.
fn keeps_its_port(section: &Section, layout: &Layout, own: Option<usize>) -> bool {
    let ports = |text: &str| tcp_binds(text).into_iter().map(|at| at.port()).collect::<BTreeSet<u16>>();
    let own_ports = ports(&section.skeleton);
    let others = layout.sections.iter().enumerate().filter(|(at, _)| Some(*at) != own);
    let mut texts = others.map(|(_, s)| &*s.skeleton).chain([&*layout.header, &*layout.footer]);
    texts.all(|text| own_ports.is_disjoint(&ports(text)))
}

/// Whether a server of both has other parameters in one than in the other.
fn have_other_words(a: &Section, b: &Section) -> bool {
    let words: HashMap<&str, &str> = a.servers.iter().map(|s| (&*s.name, &*s.params)).collect();
    b.servers.iter().any(|s| words.get(&*s.name).is_some_and(|words| *words != &*s.params))
}

/// The servers of `wanted`, with the parameters that `running` has.
fn with_loaded_words(running: &Section, wanted: &Section) -> Vec<Server> {
    let loaded: HashMap<&str, &Server> = running.servers.iter().map(|s| (&*s.name, s)).collect();
    let server = |s: &Server| match loaded.get(&*s.name) {
        Some(was) if was.params == s.params => s.clone(),
        Some(was) if was.line.is_some() => (*was).clone(),
        Some(was) => Server { address: s.address, weight: s.weight, maint: s.maint, ..(*was).clone() },
        None => s.clone(),
    };
    wanted.servers.iter().map(server).collect()
}

/// Whole seconds, at least one.
fn whole(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(name: &str, port: u16, servers: usize) -> Arc<Section> {
        let server = |n| Server::parse(&format!("server s{n} 127.0.0.1:{}", 2000 + n)).unwrap();
        Arc::new(Section {
            name: name.into(),
            skeleton: format!("listen {name}\n\tbind 127.0.0.1:{port}\n").into(),
            servers: (0..servers).map(server).collect(),
            inherited: "".into(),
            text: Default::default(),
        })
    }

    fn layout(sections: &[&Arc<Section>]) -> Layout {
        Layout { sections: sections.iter().map(|s| Arc::clone(s)).collect(), ..Layout::default() }
    }

    fn changed() -> BTreeSet<ReloadReason> {
        BTreeSet::from([ReloadReason::SectionChanged])
    }

    /// Takes what may be loaded every half second, as a key that flips would have it; gives the seconds at which it was.
    fn flips(churn: &mut Churn, seconds: u64) -> Vec<u64> {
        let (began, mut applied, mut loads) = (Instant::now(), layout(&[&section("a", 1, 1)]), Vec::new());
        for half in 0..seconds * 2 {
            let now = began + Duration::from_millis(half * 500);
            let mut wanted = layout(&[&section("a", 1 + u16::try_from(half % 7).unwrap(), 1)]);
            churn.hold(&mut wanted, &applied, now);
            if wanted != applied {
                churn.loaded(&applied, &wanted, &changed(), now);
                loads.push(half / 2);
                applied = wanted;
            }
        }
        loads
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_changes_all_the_time_changes_ever_more_seldom_and_is_as_free_as_before_after_a_quiet_time() {
        let mut churn = Churn::default();
        let loads = flips(&mut churn, 3600);
        assert!(loads.iter().filter(|at| **at < 45).count() <= 9, "{loads:?}");
        let gaps: Vec<u64> = loads.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap <= 301) && *gaps.last().unwrap() >= 300, "{gaps:?}");
        let later = Instant::now() + Duration::from_secs(3600) + QUIET;
        let (was, is) = (layout(&[&section("a", 1, 1)]), layout(&[&section("a", 2, 1)]));
        churn.loaded(&was, &is, &changed(), later);
        let mut wanted = was.clone();
        churn.hold(&mut wanted, &is, later);
        assert_eq!((wanted, churn.next_due()), (was, None));
    }

    #[tokio::test(start_paused = true)]
    async fn its_servers_follow_and_others_change_as_they_like() {
        let (mut churn, now) = (Churn::default(), Instant::now());
        for port in 1..=4 {
            let of = |port| layout(&[&section("a", port, 1)]);
            churn.loaded(&of(port), &of(port + 1), &changed(), now);
        }
        let applied = layout(&[&section("a", 5, 1), &section("b", 7, 1)]);
        let mut wanted = layout(&[&section("a", 6, 2), &section("b", 8, 1)]);
        churn.hold(&mut wanted, &applied, now);
        assert_eq!(wanted, layout(&[&section("a", 5, 2), &section("b", 8, 1)]));
        assert_eq!(churn.waiting(now), BTreeMap::from([("a".to_owned(), (4, Duration::from_secs(2)))]));
        assert_eq!(churn.next_due(), Some(now + Duration::from_secs(2)));
        let mut gone = layout(&[&section("b", 7, 1)]);
        churn.hold(&mut gone, &applied, now);
        assert_eq!(gone, layout(&[&section("a", 5, 0), &section("b", 7, 1)]), "a removal costs a reload, too");
        let mut back = layout(&[&section("a", 6, 2), &section("b", 7, 1)]);
        churn.hold(&mut back, &layout(&[&section("b", 7, 1)]), now);
        assert_eq!(back, layout(&[&section("b", 7, 1)]), "so does its return");
        let mut free = wanted.clone();
        churn.hold(&mut free, &applied, now + Duration::from_secs(2));
        assert_eq!((free, churn.next_due()), (wanted, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_another_service_gets_is_not_held() {
        let (mut churn, now) = (Churn::default(), Instant::now());
        for port in 1..=4 {
            let of = |port| layout(&[&section("a", port, 1)]);
            churn.loaded(&of(port), &of(port + 1), &changed(), now);
        }
        let applied = layout(&[&section("a", 5, 1), &section("b", 7, 1)]);
        let wanted = layout(&[&section("a", 6, 1), &section("b", 5, 1)]);
        let mut held = wanted.clone();
        churn.hold(&mut held, &applied, now);
        assert_eq!(held, wanted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_has_one_budget_for_all_of_its_ports() {
        let (mut churn, now, web) = (Churn::default(), Instant::now(), section("web", 80, 1));
        let further = |port: u16| section(&format!("web:port-{port}"), port, 1);
        for port in 1..=4 {
            churn.loaded(&layout(&[&web, &further(port)]), &layout(&[&web, &further(port + 1)]), &changed(), now);
        }
        assert_eq!(churn.waiting(now), BTreeMap::from([("web".to_owned(), (4, Duration::from_secs(2)))]));
        let applied = layout(&[&web, &further(5)]);
        let mut wanted = layout(&[&web, &further(6)]);
        churn.hold(&mut wanted, &applied, now);
        assert_eq!(wanted, layout(&[&web, &section("web:port-5", 5, 0)]), "its other port goes, a new one waits");
        assert_eq!(churn.next_due(), Some(now + Duration::from_secs(2)));
    }

    /// Below 3.0 a server's other words cost a reload, too.
    #[tokio::test(start_paused = true)]
    async fn so_do_other_words_of_a_server_where_they_cost_a_reload() {
        let with = |words: &str| {
            let server = Server::parse(&format!("server s0 127.0.0.1:1 {words}")).unwrap();
            layout(&[&Arc::new(Section { servers: vec![server], ..(*section("a", 1, 0)).clone() })])
        };
        let (mut live, mut churn, now) = (Churn::default(), Churn::default(), Instant::now());
        for n in 1..=4 {
            let (was, is) = (with(&format!("maxconn {n}")), with(&format!("maxconn {}", n + 1)));
            live.loaded(&was, &is, &BTreeSet::from([ReloadReason::SectionAdded]), now);
            churn.loaded(&was, &is, &BTreeSet::from([ReloadReason::ServerChanged]), now);
        }
        let (mut free, mut held) = (with("maxconn 6 weight 7"), with("maxconn 6 weight 7"));
        live.hold(&mut free, &with("maxconn 5"), now);
        churn.hold(&mut held, &with("maxconn 5"), now);
        assert_eq!((free, held), (with("maxconn 6 weight 7"), with("maxconn 5 weight 7")));
    }
}
