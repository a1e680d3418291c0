//! Which ports go into the file: those that HAProxy listens on already, and new ones that a test-bind finds free.
//!
//! A port that somebody else has would close every listener for seconds, and `haproxy -c` does not see it (dataplane.md
//! section 1.3).

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use common::model::{Port, ServiceMap};
use tokio::time::Instant;
use tracing::warn;

use super::layout::{Layout, Section};
use super::ports::{Ports, assign};
use super::settings::HaproxySettings;
use crate::edge::frontend::addresses;
use crate::haproxy::ports::{bindable, tcp_binds};

/// How long a port that was found taken is not tried again.
const TAKEN_FOR: Duration = Duration::from_secs(5);

/// The ports of the services, and those that others have.
#[derive(Debug, Default)]
pub struct Binds {
    chosen: Ports,
    taken: HashMap<Port, Instant>,
    /// HAProxy listened on every chosen port the last time.
    settled: bool,
    /// The edge's port was found taken, and is tried again then.
    edge_taken: Option<Instant>,
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

    /// Gives each service its port.
    pub fn choose(
        &mut self,
        services: &ServiceMap,
        settings: &HaproxySettings,
        listening: &Listening<'_>,
        now: Instant,
    ) {
        self.taken.retain(|_, until| *until > now);
        let edge_taken = self.edge_is_taken(settings, listening, now);
        let assign = |taken: &BTreeSet<Port>| Ports { edge_taken, ..assign(services, settings, taken) };
        let known = matches!(listening, Listening::Layout(_) | Listening::Elsewhere) && self.settled;
        if known && self.taken.is_empty() && assign(&BTreeSet::new()) == self.chosen {
            return;
        }
        let ours = self.ours(listening, settings);
        let free =
            |port: Port| settings.listen_of(port).addresses(port).into_iter().all(|address| bindable(address).is_ok());
        loop {
            let taken = self.taken.keys().copied().collect();
            let ports = assign(&taken);
            let stats = settings.stats_port.filter(|_| !ports.stats_taken);
            let wanted: Vec<Port> = ports.listed.values().copied().chain(stats).collect();
            let refused: Vec<Port> = match listening {
                Listening::Elsewhere => Vec::new(),
                _ => wanted.iter().copied().filter(|port| !ours.contains(port) && !free(*port)).collect(),
            };
            if refused.is_empty() {
                for (service, reason) in ports.unlisted.iter().filter(|(s, r)| self.chosen.unlisted.get(*s) != Some(*r))
                {
                    warn!(%service, %reason, "Service is not in haproxy.cfg.");
                }
                if let Some(port) = settings.stats_port.filter(|_| ports.stats_taken && !self.chosen.stats_taken) {
                    warn!(%port, "The stats page's port is taken by another program on this host; there is no stats page.");
                }
                self.settled = wanted.iter().all(|port| ours.contains(port));
                self.chosen = ports;
                return;
            }
            self.taken.extend(refused.into_iter().map(|port| (port, now + TAKEN_FOR)));
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
        let addresses = addresses(edge, &settings.listen);
        let refused = addresses.iter().find(|address| !ours.contains(*address) && bindable(**address).is_err());
        if let Some(address) = refused.filter(|_| self.edge_taken.is_none()) {
            warn!(%address, "The edge's address is taken by another program on this host; it listens nowhere.");
        }
        self.edge_taken = refused.map(|_| now + TAKEN_FOR);
        refused.is_some()
    }

    /// Whether a service of now wants a port that this section binds.
    pub fn wants_port_of(&self, section: &Section, settings: &HaproxySettings) -> bool {
        let mut binds = section.skeleton.lines().filter_map(|l| l.trim_start().strip_prefix("bind "));
        binds.any(|bind| self.chosen.listed.values().any(|port| settings.listen.binds(*port).iter().any(|b| b == bind)))
    }

    /// When a port that was taken is to be tried again.
    pub fn next_due(&self) -> Option<Instant> {
        self.taken.values().copied().chain(self.edge_taken).min()
    }

    /// The ports that HAProxy has on all addresses of the settings.
    fn ours(&self, listening: &Listening<'_>, settings: &HaproxySettings) -> BTreeSet<Port> {
        let stats = |address: &SocketAddr| settings.stats_port.is_some_and(|port| port.get() == address.port());
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
            ours.extend(
                self.chosen.listed.values().copied().chain(settings.stats_port.filter(|_| !self.chosen.stats_taken)),
            );
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use common::model::{Backend, Pool};

    use super::super::settings::tests_support::settings;
    use super::*;

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
        let listed = |binds: &Binds| binds.chosen().listed.values().map(|p| p.get()).collect::<Vec<_>>();
        let now = Instant::now();
        binds.choose(&services, &settings, &Listening::Nothing, now);
        assert_eq!(listed(&binds), [open]);
        drop(stranger);
        binds.choose(&services, &settings, &Listening::Nothing, now);
        assert_eq!(listed(&binds), [open], "not tried at every turn");
        let due = binds.next_due().unwrap();
        binds.choose(&services, &settings, &Listening::Nothing, due);
        assert_eq!(binds.chosen().listed.len(), 2);
    }

    #[tokio::test]
    async fn a_stats_port_of_another_program_costs_only_the_stats_page_until_it_is_free() {
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let stats = Port::new(stranger.local_addr().unwrap().port());
        let (services, settings, mut binds) =
            (wanting(&[]), HaproxySettings { stats_port: stats, ..settings() }, Binds::default());
        let now = Instant::now();
        binds.choose(&services, &settings, &Listening::Nothing, now);
        assert!(binds.chosen().stats_taken);
        drop(stranger);
        let due = binds.next_due().unwrap();
        binds.choose(&services, &settings, &Listening::Nothing, due);
        assert!(!binds.chosen().stats_taken);
        let haproxy = TcpListener::bind(("127.0.0.1", stats.unwrap().get())).unwrap();
        let header = format!("frontend stats\n\tbind {}\n", haproxy.local_addr().unwrap()).into();
        let layout = Layout { header, ..Layout::default() };
        Binds::default().choose(&services, &settings, &Listening::Layout(&layout), now);
        binds.choose(&services, &settings, &Listening::Layout(&layout), now);
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
            binds.choose(&services, &settings, listening, Instant::now());
            binds.chosen().listed.len()
        };
        assert_eq!(listed(&Listening::Layout(&layout)), 1);
        assert_eq!(listed(&Listening::Files(&[skeleton])), 1, "its file was edited, but it runs");
        assert_eq!(listed(&Listening::Elsewhere), 1);
        assert_eq!(listed(&Listening::Nothing), 0);
    }

    #[tokio::test]
    async fn where_services_get_no_ports_none_is_missed() {
        let settings = HaproxySettings { service_ports: "none".parse().unwrap(), ..settings() };
        let mut binds = Binds::default();
        binds.choose(&wanting(&[80, 80]), &settings, &Listening::Nothing, Instant::now());
        assert_eq!(*binds.chosen(), Ports::default());
    }

    #[tokio::test]
    async fn what_was_chosen_for_a_haproxy_that_runs_stays_whatever_became_of_its_file() {
        let haproxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let (services, settings) = (wanting(&[haproxy.local_addr().unwrap().port()]), settings());
        let (mut binds, now) = (Binds::default(), Instant::now());
        binds.choose(&services, &settings, &Listening::Elsewhere, now);
        binds.choose(&services, &settings, &Listening::Files(&[]), now);
        assert_eq!(binds.chosen().listed.len(), 1);
    }
}
