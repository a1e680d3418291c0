//! Which ports go into the file: those that HAProxy listens on already, and new ones that a test-bind finds free.
//!
//! A port that somebody else has would close every listener for seconds, and `haproxy -c` does not see it (docs/haproxy.md).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{Port, ServiceMap};
use tokio::time::Instant;
use tracing::warn;

use super::assign::{Shut, Standing, assign};
use super::edge::frontend::addresses;
use super::followed::Followed;
use super::layout::{Layout, Section};
use super::ports::{Ports, ServicePort, Unlisted};
use super::published::Published;
use super::settings::HaproxySettings;
use super::tenants::{Tenants, WAITS_FOR};
use crate::haproxy::process::ports::{BindReason, bindable, tcp_binds};
use crate::reconcile::Desired;

/// How long a port that was found taken is not tried again.
/// Short, since a worker outlives its master by a moment.
const TAKEN_FOR: Duration = Duration::from_secs(1);
/// How often HAProxy is asked whether any backend works of a service that is held and has a port which another wants.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The ports of the services, and those that others have.
#[derive(Debug, Default)]
pub struct Binds {
    chosen: Ports,
    tenants: Tenants,
    /// What they were chosen from.
    followed: Followed,
    /// To choose once more from the same gave the same: a backend without a port finds its place once its service has one.
    stable: bool,
    /// What the containers of this host publish, where that is known.
    published: Published,
    /// Ports that the system refused, until when, and why.
    refused: HashMap<Port, (Instant, BindReason)>,
    /// HAProxy listened on every chosen port the last time.
    settled: bool,
    /// The edge's port was found taken, and is tried again then.
    edge_taken: Option<Instant>,
    /// A service that is held has a port that another wants: HAProxy is to be asked again then.
    ask_at: Option<Instant>,
}

/// What the running HAProxy listens on, as far as is known.
#[derive(Debug)]
pub enum Listening<'a> {
    /// It does not run: every port must be tried.
    Nothing,
    /// On what this layout binds, which it has loaded.
    Layout(&'a Layout),
    /// It runs, but the file is not known to be what it loaded: on what these texts bind, more or less.
    Files(&'a [String]),
    /// It runs elsewhere: trying ports here says nothing.
    Elsewhere,
}

impl Binds {
    /// The ports chosen last.
    pub fn chosen(&self) -> &Ports {
        &self.chosen
    }

    /// Takes over who had which port, from the text of a file of ours.
    pub fn recall(&mut self, file: &str) {
        self.tenants.recall(file);
    }

    /// Keeps off the ports that containers publish.
    pub fn keep_off(&mut self, published: Published) {
        self.published = published;
    }

    /// HAProxy has loaded this.
    pub fn loaded(&mut self, layout: &Layout) {
        self.tenants.loaded(layout);
    }

    /// Service ports that another service wants in vain, without any backend that is registered, and the sections that they have.
    pub fn in_the_way(&self, desired: &Desired) -> Vec<(Arc<str>, ServicePort)> {
        let winners: BTreeSet<ServicePort> = self.chosen.refused.values().filter_map(Unlisted::winner).collect();
        let section = |at: ServicePort| {
            let pool = self.chosen.listed.get(&at)?;
            let behind = pool.behind(at.port);
            let gone = desired.is_unregistered(&at.service, behind.backends());
            gone.then(|| (pool.section(&at), at.clone()))
        };
        winners.into_iter().filter_map(section).collect()
    }

    /// Gives each service its ports. `absent` are those without a backend that is registered or works.
    pub fn choose(
        &mut self,
        services: &ServiceMap,
        settings: &HaproxySettings,
        listening: &Listening<'_>,
        absent: &BTreeSet<ServicePort>,
        now: Instant,
    ) {
        let tried = self.refused.len();
        self.refused.retain(|_, (until, _)| *until > now);
        self.stable &= self.refused.len() == tried; // a port that was refused is tried again
        let known = match listening {
            Listening::Elsewhere => true,
            Listening::Layout(_) => self.settled,
            Listening::Nothing | Listening::Files(_) => false,
        };
        if known && absent.is_empty() && self.follow(services, settings, listening, now) {
            return;
        }
        self.tenants.review(services, settings.frame.linger.min(WAITS_FOR), now);
        let edge_taken = self.edge_is_taken(settings, listening, now);
        let published = match listening {
            Listening::Elsewhere => BTreeMap::new(),
            _ if !self.published.is_known() => BTreeMap::new(),
            _ => self.published.ports(&settings.frame.listen, &self.tenants.ports()),
        };
        let assign = |tenants: &Tenants, refused: &HashMap<Port, (Instant, BindReason)>| {
            let refused = refused.iter().map(|(port, (_, reason))| (*port, Shut::Refused(*reason)));
            let shut: BTreeMap<Port, Shut> = published.clone().into_iter().chain(refused).collect();
            Ports { edge_taken, ..assign(services, settings, &Standing { tenants, absent, shut: &shut }) }
        };
        if known && self.refused.is_empty() {
            let ports = assign(&self.tenants, &self.refused);
            if ports.same_places(&self.chosen) {
                return self.take(ports, services);
            }
        }
        let ours = self.ours(listening, settings);
        let try_port = |port: Port| {
            let tried =
                settings.listen_of(port).addresses(port).into_iter().find_map(|address| bindable(address).err());
            tried.map(|refusal| (port, refusal.reason))
        };
        loop {
            let ports = assign(&self.tenants, &self.refused);
            let stats = settings.stats.port.filter(|_| !ports.stats_taken);
            let wanted: Vec<Port> = ports.listed.keys().map(|at| at.port).chain(stats).collect();
            let refused: Vec<(Port, BindReason)> = match listening {
                Listening::Elsewhere => Vec::new(),
                _ => wanted.iter().copied().filter(|port| !ours.contains(port)).filter_map(try_port).collect(),
            };
            if refused.is_empty() {
                self.tell(&ports, settings);
                self.settled = wanted.iter().all(|port| ours.contains(port));
                return self.take(ports, services);
            }
            self.refused.extend(refused.into_iter().map(|(port, reason)| (port, (now + TAKEN_FOR, reason))));
        }
    }

    fn take(&mut self, ports: Ports, services: &ServiceMap) {
        self.tenants.take(&ports.listed);
        self.stable = ports == self.chosen;
        self.chosen = ports;
        self.followed = Followed::chosen_from(services, self.published.told());
    }

    /// Takes over pools that have changed, where no port can have: tells whether that is all.
    fn follow(
        &mut self,
        services: &ServiceMap,
        settings: &HaproxySettings,
        listening: &Listening<'_>,
        now: Instant,
    ) -> bool {
        if !self.stable || !self.refused.is_empty() || self.tenants.any_waits() {
            return false;
        }
        let Some(changes) = self.followed.changes(&self.chosen, services, self.published.told().as_ref()) else {
            return false;
        };
        if self.edge_is_taken(settings, listening, now) != self.chosen.edge_taken {
            return false;
        }
        for (at, pool) in changes {
            if let Some(behind) = self.chosen.listed.get_mut(&at) {
                behind.all = pool.clone();
            }
            self.followed.take(&at.service, &pool);
            self.tenants.follow(at, pool);
        }
        true
    }

    /// Tells what is new of who does not listen, and where.
    fn tell(&self, ports: &Ports, settings: &HaproxySettings) {
        for (service, reason) in ports.unlisted.iter().filter(|(s, r)| self.chosen.unlisted.get(*s) != Some(*r)) {
            warn!(%service, %reason, "Service is not in haproxy.cfg.");
        }
        let none = Vec::new();
        for (service, notes) in &ports.notes {
            let known = self.chosen.notes.get(service).unwrap_or(&none);
            // One of a kind: backends that come and go are no news.
            for what in notes.iter().filter(|note| !known.iter().any(|known| known.same_kind(note))) {
                warn!(%service, %what, "A service has something other than one port.");
            }
        }
        if let Some(port) = settings.stats.port.filter(|_| ports.stats_taken && !self.chosen.stats_taken) {
            let reason = self.refused.get(&port).map_or(BindReason::Other, |(_, reason)| *reason);
            warn!(%port, %reason, "The stats page's port cannot be opened; there is no stats page.");
        }
    }

    /// Whether another program has the edge's port; it is then tried again after a while.
    fn edge_is_taken(&mut self, settings: &HaproxySettings, listening: &Listening<'_>, now: Instant) -> bool {
        let Some(edge) = &settings.edge else { return false };
        if self.edge_taken.is_some_and(|until| until > now) {
            return true;
        }
        let ours = match listening {
            Listening::Elsewhere => return false,
            Listening::Nothing => BTreeSet::new(),
            Listening::Layout(layout) => tcp_binds(&layout.footer).into_iter().collect(),
            Listening::Files(texts) => texts.iter().flat_map(|text| tcp_binds(text)).collect(),
        };
        let addresses = addresses(edge, &settings.frame.listen);
        let refused = addresses.iter().filter(|address| !ours.contains(*address)).find_map(|a| bindable(*a).err());
        if let Some(refusal) = refused.as_ref().filter(|_| self.edge_taken.is_none()) {
            warn!(address = %refusal.address, reason = %refusal.reason, "The edge's address cannot be opened; it listens nowhere.");
        }
        let taken = refused.is_some();
        self.edge_taken = taken.then(|| now + TAKEN_FOR);
        taken
    }

    /// Whether a service of now wants a port that this section binds.
    pub fn wants_port_of(&self, section: &Section, settings: &HaproxySettings) -> bool {
        let mut binds = section.skeleton.lines().filter_map(|l| l.trim_start().strip_prefix("bind "));
        binds.any(|bind| {
            self.chosen.listed.keys().any(|at| settings.frame.listen.binds(at.port).iter().any(|b| b == bind))
        })
    }

    /// When a port that was taken is to be tried again.
    pub fn next_due(&self) -> Option<Instant> {
        let wanted = |port: Port| self.chosen.refused.keys().any(|at| at.port == port);
        let tenants = self.tenants.next_end(wanted);
        self.refused.values().map(|(until, _)| *until).chain(self.edge_taken).chain(self.ask_at).chain(tenants).min()
    }

    /// HAProxy is to be asked again in a while, or need not be.
    pub fn ask_again(&mut self, is_needed: bool, now: Instant) {
        self.ask_at = is_needed.then(|| now + ASK_EVERY);
    }

    /// The ports that HAProxy has on all addresses of the settings.
    fn ours(&self, listening: &Listening<'_>, settings: &HaproxySettings) -> BTreeSet<Port> {
        let stats = |address: &SocketAddr| settings.stats.port.is_some_and(|port| port.get() == address.port());
        let binds = match listening {
            Listening::Nothing | Listening::Elsewhere => BTreeSet::new(),
            Listening::Layout(layout) => {
                let sections = layout.sections.iter().flat_map(|s| tcp_binds(&s.skeleton));
                // What else the header binds is the operator's, and no service's to take.
                sections.chain(tcp_binds(&layout.header).into_iter().filter(stats)).collect()
            }
            Listening::Files(texts) => texts.iter().flat_map(|text| tcp_binds(text)).collect(),
        };
        let has = |port: &Port| settings.listen_of(*port).addresses(*port).iter().all(|a| binds.contains(a));
        let mut ours: BTreeSet<Port> = binds.iter().filter_map(|a| Port::new(a.port())).filter(has).collect();
        if matches!(listening, Listening::Files(_)) {
            // It runs, whatever has become of its file: what was chosen for it is taken by nobody but itself.
            let stats = settings.stats.port.filter(|_| !self.chosen.stats_taken);
            ours.extend(self.chosen.listed.keys().map(|at| at.port).chain(stats));
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use model::{Backend, Pool};
    use proptest::prelude::*;

    use super::super::settings::tests_support::settings;
    use super::super::stats::Stats;
    use super::*;

    const NONE: BTreeSet<ServicePort> = BTreeSet::new();

    fn wanting(ports: &[u16]) -> ServiceMap {
        let service = |port: &u16| {
            let mut backend = Backend::new("a".parse().unwrap(), "127.0.0.1".parse().unwrap(), 9.try_into().unwrap());
            backend.service_port = Port::new(*port);
            (format!("s{port}").parse().unwrap(), Arc::new(Pool::new([Arc::new(backend)])))
        };
        ports.iter().map(service).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_of_another_program_is_left_out_and_tried_again_later() {
        let (stranger, free) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let [taken, open] = [&stranger, &free].map(|l| l.local_addr().unwrap().port());
        drop(free);
        let (services, settings, mut binds) = (wanting(&[taken, open]), settings(), Binds::default());
        let listed = |binds: &Binds| binds.chosen().listed.keys().map(|at| at.port.get()).collect::<Vec<_>>();
        let now = Instant::now();
        binds.choose(&services, &settings, &Listening::Nothing, &NONE, now);
        assert_eq!(listed(&binds), [open]);
        drop(stranger);
        binds.choose(&services, &settings, &Listening::Nothing, &NONE, now);
        assert_eq!(listed(&binds), [open], "not tried at every turn");
        let due = binds.next_due().unwrap();
        binds.choose(&services, &settings, &Listening::Nothing, &NONE, due);
        assert_eq!(binds.chosen().listed.len(), 2);
    }

    #[tokio::test]
    async fn a_stats_port_of_another_program_costs_only_the_stats_page_until_it_is_free() {
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let stats = Port::new(stranger.local_addr().unwrap().port());
        let (services, settings, mut binds) = (
            wanting(&[]),
            HaproxySettings { stats: Stats { port: stats, ..Stats::default() }, ..settings() },
            Binds::default(),
        );
        let now = Instant::now();
        binds.choose(&services, &settings, &Listening::Nothing, &NONE, now);
        assert!(binds.chosen().stats_taken);
        drop(stranger);
        let due = binds.next_due().unwrap();
        binds.choose(&services, &settings, &Listening::Nothing, &NONE, due);
        assert!(!binds.chosen().stats_taken);
        let haproxy = TcpListener::bind(("127.0.0.1", stats.unwrap().get())).unwrap();
        let header = format!("frontend stats\n\tbind {}\n", haproxy.local_addr().unwrap()).into();
        let layout = Layout { header, ..Layout::default() };
        Binds::default().choose(&services, &settings, &Listening::Layout(&layout), &NONE, now);
        binds.choose(&services, &settings, &Listening::Layout(&layout), &NONE, now);
        assert!(!binds.chosen().stats_taken, "it is HAProxy's own");
    }

    #[tokio::test]
    async fn what_haproxy_itself_listens_on_is_not_taken() {
        let haproxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = haproxy.local_addr().unwrap().port();
        let (services, settings) = (wanting(&[port]), settings());
        let skeleton = format!("listen x\n\tbind 127.0.0.1:{port}\n");
        let section = Section {
            name: "x".into(),
            skeleton: skeleton.as_str().into(),
            servers: vec![],
            inherited: "".into(),
            text: Default::default(),
        };
        let layout = Layout { sections: vec![Arc::new(section)], ..Layout::default() };
        let listed = |listening: &Listening<'_>| {
            let mut binds = Binds::default();
            binds.choose(&services, &settings, listening, &NONE, Instant::now());
            binds.chosen().listed.len()
        };
        assert_eq!(listed(&Listening::Layout(&layout)), 1);
        assert_eq!(listed(&Listening::Files(&[skeleton])), 1, "its file was edited, but it runs");
        assert_eq!(listed(&Listening::Elsewhere), 1);
        assert_eq!(listed(&Listening::Nothing), 0);
    }

    proptest! {
        #[test]
        fn to_follow_pools_gives_what_choosing_anew_gives(
            turns in prop::collection::vec(prop::collection::vec((0_usize..4, 0_u16..4, 0_u16..3), 0..9), 1..12),
        ) {
            let (mut following, mut anew) = (Binds::default(), Binds::default());
            let (settings, now) = (settings(), Instant::now());
            let mut pools: BTreeMap<(usize, u16), u16> = BTreeMap::new();
            let mut services = ServiceMap::new();
            for (nth, changes) in turns.into_iter().enumerate() {
                let mut touched = BTreeSet::new();
                for (service, id, port) in changes {
                    // A backend without a port, at its usual one, or at another's.
                    let port = [0, 80 + service as u16, 80][usize::from(port)];
                    pools.insert((service, id), port);
                    touched.insert(service);
                }
                for service in touched {
                    let backend = |((_, id), port): (&(usize, u16), &u16)| {
                        let id = format!("b{id}").parse().unwrap();
                        let mut backend = Backend::new(id, "127.0.0.1".parse().unwrap(), 9.try_into().unwrap());
                        (backend.service_port, backend.created) = (Port::new(*port), Some(nth as u64 + 1));
                        Arc::new(backend)
                    };
                    let of = pools.iter().filter(|((of, _), _)| *of == service).map(backend);
                    services.insert(format!("s{service}").parse().unwrap(), Arc::new(Pool::new(of)));
                }
                let now = now + Duration::from_secs(nth as u64 * 3);
                anew.followed = Followed::default();
                for binds in [&mut following, &mut anew] {
                    binds.choose(&services, &settings, &Listening::Elsewhere, &NONE, now);
                }
                prop_assert_eq!(following.chosen(), anew.chosen());
                prop_assert_eq!(&following.tenants, &anew.tenants);
            }
        }
    }

    #[tokio::test]
    async fn where_services_get_no_ports_none_is_missed() {
        let settings = HaproxySettings { service_ports: "none".parse().unwrap(), ..settings() };
        let mut binds = Binds::default();
        binds.choose(&wanting(&[80, 80]), &settings, &Listening::Nothing, &NONE, Instant::now());
        assert_eq!(*binds.chosen(), Ports::default());
    }

    #[tokio::test]
    async fn what_was_chosen_for_a_haproxy_that_runs_stays_whatever_became_of_its_file() {
        let haproxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let (services, settings) = (wanting(&[haproxy.local_addr().unwrap().port()]), settings());
        let (mut binds, now) = (Binds::default(), Instant::now());
        binds.choose(&services, &settings, &Listening::Elsewhere, &NONE, now);
        binds.choose(&services, &settings, &Listening::Files(&[]), &NONE, now);
        assert_eq!(binds.chosen().listed.len(), 1);
    }

    #[tokio::test]
    async fn a_port_that_a_stopped_container_publishes_is_kept_off_and_one_that_haproxy_had_first_stays() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (services, settings) = (wanting(&[free]), settings());
        let published = |ip: &str| {
            let address = SocketAddr::new(ip.parse().unwrap(), free);
            let (_, heard) = tokio::sync::watch::channel(Arc::new([(address, "old-web".into())].into()));
            Published::told_by(heard)
        };
        let listed = |ip: &str, had: bool| {
            let mut binds = Binds::default();
            if had {
                binds.recall(&format!("\n# service s{free}\nlisten x\n\tbind 127.0.0.1:{free}\n"));
            }
            binds.keep_off(published(ip));
            binds.choose(&services, &settings, &Listening::Nothing, &NONE, Instant::now());
            let told = binds.chosen().unlisted.values().map(ToString::to_string).next();
            assert!(told.as_ref().is_none_or(|why| why.contains("published by container old-web")), "{told:?}");
            binds.chosen().listed.len()
        };
        for (ip, had, expected) in
            [("0.0.0.0", false, 0), ("::", false, 0), ("127.0.0.1", false, 0), ("127.0.0.2", false, 1), ("::", true, 1)]
        {
            assert_eq!(listed(ip, had), expected, "{ip}, HAProxy was there first: {had}");
        }
    }
}
