//! The desk where haproxy.cfg is composed: the composers, and what they must know beside the services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use model::ServiceName;
use tokio::time::Instant;
use tracing::info;

use super::binds::{Binds, Listening};
use super::checking::Checking;
use super::compose::{Composer, TemplateError};
use super::composing::Composing;
use super::edge::frontend::Frame;
use super::edge::{EdgeComposer, Idle};
use super::known::{Given, Known};
use super::layout::{Layout, Retired, Section};
use super::lingering::Lingering;
use super::loops::Loops;
use super::places::Places;
use super::ports::{Ports, ServicePort};
use super::published::Published;
use super::settings::HaproxySettings;
use super::synapse::{Quarantined, SynapseComposer};
use crate::addresses::AddressPolicy;
use crate::edge::EdgeSettings;
use crate::edge::sections::section_number;
use crate::haproxy::api::version::Capabilities;
use crate::names::Resolved;
use crate::reconcile::Desired;

/// Everything that a file is composed with.
pub struct Desk {
    /// For docker-discover's way only.
    settings: Option<Arc<HaproxySettings>>,
    composing: Composing,
    /// The HTTP edge, if there is one.
    edge: Option<Box<EdgeComposer>>,
    names: Resolved,
    binds: Binds,
    /// How often servers are checked.
    checking: Checking,
    /// Servers that would be HAProxy itself.
    loops: Loops,
    /// Services that are gone but whose sections stay, empty, for a while.
    lingering: Lingering,
}

/// What runs, and on which HAProxy.
#[derive(Debug, Clone, Copy)]
pub struct Runs<'a> {
    /// What it can do.
    pub can: Capabilities,
    /// What it has loaded.
    pub layout: &'a Layout,
    /// Servers that wait for their deletion.
    pub retired: &'a Retired,
}

impl Desk {
    /// Composes in docker-discover's way; `rules` is the file of the edge's rules.
    ///
    /// # Errors
    /// [`TemplateError`] when a template of the operator's is wrong.
    pub fn native(settings: HaproxySettings, rules: &str) -> Result<Self, TemplateError> {
        let settings = Arc::new(settings);
        let composing = Composing::Native(Box::new(Composer::new(settings.clone())?));
        let edge =
            settings.edge.clone().map(|edge| EdgeComposer::new(edge, settings.frame.clone(), rules)).transpose()?;
        let checking = Checking::new(&settings.check, settings.check_rate);
        Ok(Self::with(Some(settings), composing, edge, checking))
    }

    /// Composes in Synapse's way.
    pub fn of_synapse(composer: SynapseComposer, edge: Option<Arc<EdgeSettings>>, rules: &str) -> Self {
        // Its templates are ours and were tried out.
        let edge = edge.and_then(|edge| EdgeComposer::new(edge, Frame::default(), rules).ok());
        // What its own servers are asked is the operator's; how often, too.
        let checking = Checking::beside_synapse();
        Self::with(None, Composing::Synapse(Box::new(composer)), edge, checking)
    }

    fn with(
        settings: Option<Arc<HaproxySettings>>,
        composing: Composing,
        edge: Option<EdgeComposer>,
        checking: Checking,
    ) -> Self {
        Self {
            settings,
            composing,
            edge: edge.map(Box::new),
            names: Resolved::default(),
            binds: Binds::default(),
            checking,
            loops: Loops::default(),
            lingering: Lingering::default(),
        }
    }

    /// Sets the policy for what host names resolve to, and where discover's own admin server listens.
    pub fn set_addresses(&mut self, policy: AddressPolicy, admin: Option<SocketAddr>) {
        (self.names, self.loops) = (Resolved::new(policy), Loops::new(admin));
    }

    /// Whether ports are chosen here; else they are the operator's, in the config.
    pub fn chooses_ports(&self) -> bool {
        self.settings.is_some()
    }

    /// The edge, if there is one.
    pub fn edge(&self) -> Option<&EdgeComposer> {
        self.edge.as_deref()
    }

    /// What stands before the services' sections.
    pub fn header(&self) -> &str {
        self.composing.header()
    }

    /// Under which names HAProxy has the services.
    pub fn places(&self) -> Places {
        self.composing.places()
    }

    /// The ports chosen last.
    pub fn ports(&self) -> &Ports {
        self.binds.chosen()
    }

    /// Keeps off the ports that containers of this host publish.
    pub fn keep_off(&mut self, published: Published) {
        self.binds.keep_off(published);
    }

    /// Takes over what only the file knows: ids of servers, ports, modes, sections of the edge.
    pub fn remember(&mut self, text: Option<&str>, layout: Option<&Layout>) {
        if let Some(text) = text {
            self.binds.recall(text);
        }
        let Some(layout) = layout else { return };
        self.composing.remember(layout);
        if let (Some(edge), Some(rules)) = (&mut self.edge, &layout.rules) {
            edge.remember(rules);
        }
    }

    /// Looks up names of hosts that are not known yet or were known for too long.
    pub async fn resolve(&mut self, desired: &Desired) {
        self.names.refresh(&desired.services).await;
    }

    /// Asks for this host's own addresses, now and then. Where HAProxy runs elsewhere, they say nothing about it.
    pub fn look_at_host(&mut self, is_local: bool, now: Instant) {
        self.loops.look(is_local, now);
    }

    /// Host names without an address.
    pub fn unresolved(&self) -> impl Iterator<Item = &str> {
        self.names.unresolved()
    }

    /// Service ports that are in another's way although no backend behind them is registered, and their sections.
    pub fn in_the_way(&mut self, desired: &Desired, now: Instant) -> Vec<(Arc<str>, ServicePort)> {
        let in_the_way = self.binds.in_the_way(desired);
        self.binds.ask_again(!in_the_way.is_empty(), now);
        in_the_way
    }

    /// Gives each service its ports. `absent` are those without a backend that is registered or works.
    pub fn choose_ports(
        &mut self,
        desired: &Desired,
        listening: &Listening<'_>,
        absent: &BTreeSet<ServicePort>,
        now: Instant,
    ) {
        if let Some(settings) = &self.settings {
            self.binds.choose(&desired.services, settings, listening, absent, now);
        }
    }

    /// The sections of the services and of the edge, and the services whose section could not be rendered.
    pub fn compose(
        &mut self,
        desired: &Desired,
        runs: &Runs<'_>,
        idle: Idle,
        now: Instant,
    ) -> (Layout, BTreeMap<ServiceName, TemplateError>) {
        let composed = self.compose_once(desired, runs, idle, now);
        let servers = composed.0.sections.iter().map(|section| section.servers.len()).sum();
        if !self.checking.suit(servers) {
            return composed;
        }
        let inter = self.checking.inter().unwrap_or_default();
        info!(
            servers,
            ?inter,
            "Servers are checked in another interval from now on (--check-rate); those that run from the next reload on."
        );
        self.compose_once(desired, runs, idle, now)
    }

    fn compose_once(
        &mut self,
        desired: &Desired,
        runs: &Runs<'_>,
        idle: Idle,
        now: Instant,
    ) -> (Layout, BTreeMap<ServiceName, TemplateError>) {
        let given = Given {
            ports: self.binds.chosen(),
            names: &self.names,
            checking: &self.checking,
            can: runs.can,
            known: Known::new(runs.layout, runs.retired),
            now,
            unix_now: unix_seconds(),
        };
        let (mut layout, failed) = self.composing.compose(desired, &given);
        if let Some(edge) = &mut self.edge {
            edge.compose(&mut layout, desired, &given, idle);
        }
        (layout, failed)
    }

    /// Adds the sections that outlive their service, unless another service wants their place.
    pub fn keep_lingering(&mut self, layout: &mut Layout, running: &Layout, now: Instant) {
        let Some(settings) = &self.settings else { return };
        let taken =
            |section: &Section| self.binds.wants_port_of(section, settings) || section_number(&section.name).is_some();
        self.lingering.keep(layout, running, settings.frame.linger, now, taken);
    }

    /// Puts the sections in order and leaves out servers that would be loops. Tells whether others are left out than the last time.
    pub fn finish(&mut self, layout: &mut Layout, running: &Layout) -> bool {
        self.sort(layout);
        self.loops.leave_out(layout, running)
    }

    /// The edge's sections stand behind the services' unless they are sorted.
    fn sort(&self, layout: &mut Layout) {
        if self.settings.is_some() && self.edge.is_some() {
            layout.sections.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }

    /// How often servers are checked.
    pub fn checking(&self) -> &Checking {
        &self.checking
    }

    /// `layout` as a reload is to load it: with the full number of spare sections, and the interval of checks of now.
    pub fn refilled(&self, mut layout: Layout) -> Layout {
        self.checking.refresh(&mut layout);
        let Some(edge) = &self.edge else { return layout };
        let mut layout = edge.refilled(&layout);
        self.sort(&mut layout);
        layout
    }

    /// HAProxy has loaded this.
    pub fn loaded(&mut self, layout: &Layout) {
        self.checking.loaded();
        self.lingering.loaded(layout);
        self.binds.loaded(layout);
    }

    /// Sections rendered anew since the start.
    pub fn renders(&self) -> u64 {
        self.composing.renders()
    }

    /// The registrations that are left out.
    pub fn quarantined(&self) -> BTreeSet<Quarantined> {
        let mut quarantined = self.composing.quarantined();
        quarantined.extend(self.edge.iter().flat_map(|edge| edge.quarantined().cloned()));
        quarantined
    }

    /// The servers that are left out as loops: `section/server`, and why.
    pub fn loops(&self) -> impl Iterator<Item = (String, String)> {
        self.loops.reasons()
    }

    /// A section of nobody's: what HAProxy has against it, it has against the operator's text.
    pub fn sample(&self, layout: &Layout, can: &Capabilities) -> Option<Arc<Section>> {
        self.composing.sample(layout, can)
    }

    /// The state file's path and text, if what is remembered has changed.
    pub fn changed_state(&mut self) -> Option<(PathBuf, String)> {
        self.composing.changed_state(unix_seconds())
    }

    /// When something of this is to be looked at again.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let rule = self.edge.as_ref().and_then(|edge| edge.next_end(now));
        let due = [self.lingering.next_end(now), self.names.next_due(), self.binds.next_due(), rule];
        due.into_iter().flatten().min()
    }
}

/// Seconds since 1970, as state files have them.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
