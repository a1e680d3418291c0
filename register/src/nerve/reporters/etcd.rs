//! etcd: `<etcd_path>/<instance_id>/<20 digits>` under the agent's one lease, by the same publisher that writes
//! containers. Nerve wrote to etcd's v2 API; the keys look the same in v3.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::config::table::{Key, Kind};
use agent::sync::lock;
use agent::watch::replace;
use model::NodeName;
use registry::store::etcd::{EtcdConfig, EtcdStore, parse_endpoints};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{AnyTarget, Ends, Frame, Payload, Placement, Reading, Reporter, ReporterError, Standing, Wanted};
use crate::publish::pulse::Pulse;
use crate::publish::report::PublishMetrics;
use crate::publish::slots::{Slot, Slots};
use crate::publish::{Form, Identity, Publication, Publisher, PublisherSettings, Registrations};

agent::keys_of! { key: Nerve }

/// etcd's rows of the table of a service's keys.
pub const KEYS: [Key; 3] = [
    key("etcd_host", Kind::Lines),
    key("etcd_port", Kind::Whole { min: 1, max: 65_535 }),
    key("etcd_path", Kind::Text),
];

/// Where in etcd a registration goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The servers as URLs; empty: the agent's own.
    servers: Vec<String>,
    path: String,
}

impl Target {
    /// Below `path` in the cluster of `servers` (URLs); without servers the agent's own.
    #[cfg(test)]
    pub fn new(servers: &[&str], path: &str) -> Self {
        Self { servers: servers.iter().map(|s| (*s).to_owned()).collect(), path: path.to_owned() }
    }

    /// Reads the keys of [`KEYS`].
    pub fn read(reading: &mut Reading<'_>) -> Option<Self> {
        let path = reading.text("etcd_path").unwrap_or("/").to_owned();
        let part = |part: &str| part.bytes().all(|b| b.is_ascii_graphic());
        if !path.split('/').all(part) || path.contains("//") || path.len() > 512 {
            reading.error("etcd_path", format!("{path:?} is not a path such as /nerve/services/web"));
            return None;
        }
        let hosts = reading.texts("etcd_host").join(",");
        if hosts.is_empty() {
            reading.notice("etcd_host", "is missing: the agent's own etcd is meant (--etcd-host, ETCD_HOST)");
            return Some(Self { servers: Vec::new(), path });
        }
        let port = reading.fields.get("etcd_port").and_then(serde_json::Value::as_u64);
        if port.is_none() && hosts.split(',').any(|host| !host.contains(':')) {
            reading.notice("etcd_port", "is missing: 2379 is meant, the port of etcd v3 (Nerve's default was 4003)");
        }
        match parse_endpoints(&hosts, port.and_then(|p| u16::try_from(p).ok()), false) {
            Ok(endpoints) => Some(Self { servers: endpoints.iter().map(ToString::to_string).collect(), path }),
            Err(e) => {
                reading.error("etcd_host", e.to_string());
                None
            }
        }
    }

    /// The cluster: `etcd` and its servers.
    pub fn destination(&self, frame: &EtcdFrame) -> String {
        let is_own = |server: &String| frame.config.endpoints.iter().any(|own| own.to_string() == *server);
        if self.servers.iter().all(is_own) {
            return frame.own_destination();
        }
        format!("etcd {}", self.servers.join(","))
    }

    /// The directory that the config names.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// What etcd's reporters need: the agent's own settings for it.
#[derive(Debug)]
pub struct EtcdFrame {
    /// The agent's own etcd; another one is spoken to with the same credentials and certificates.
    pub config: EtcdConfig,
    /// How containers' keys look, and the prefix beside which the agent's own key lies.
    pub form: Form,
    /// The agent's machine and the names of its node.
    pub machine: String,
    /// How long everything outlives the agent.
    pub ttl: Duration,
    /// How often what was written is read back.
    pub audit: Duration,
    /// What is counted.
    pub metrics: PublishMetrics,
    /// The destinations that have a claim so far; the first has the node's plain name.
    pub claims: Mutex<BTreeSet<String>>,
    /// Where all leases are renewed; `None`: beside all the rest.
    pub pulse: Option<Pulse>,
}

impl EtcdFrame {
    /// The agent's own etcd, as a destination.
    pub fn own_destination(&self) -> String {
        let own: Vec<String> = self.config.endpoints.iter().map(ToString::to_string).collect();
        format!("etcd {}", own.join(","))
    }

    /// Who claims `destination`: the first one has the node's own name. Another spelling of the same cluster must not
    /// fight it for its lease, so that has a name of its own.
    pub fn identity(&self, destination: &str) -> Identity {
        let mut claims = lock(&self.claims);
        let first = claims.iter().next().is_none() || claims.contains(&format!("first {destination}"));
        if first {
            claims.insert(format!("first {destination}"));
            return Identity::new(self.form.node.clone(), self.machine.clone());
        }
        let sum = destination.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, b| {
            (sum ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3) // FNV-1a: the same in every run
        });
        let name = format!("{}.{:08x}", self.form.node, sum >> 32);
        let node = name.parse::<NodeName>().unwrap_or_else(|_| self.form.node.clone());
        Identity::new(node, self.machine.clone())
    }

    /// A publisher at the cluster of `config`.
    pub fn publisher(
        &self,
        config: &EtcdConfig,
        settings: PublisherSettings,
        desired: watch::Receiver<Option<Arc<Registrations>>>,
        out: watch::Sender<Publication>,
    ) -> Publisher<EtcdStore> {
        let store = || EtcdStore::new(config.clone());
        let publisher = Publisher::new(store(), settings, desired, out, self.metrics.clone());
        match &self.pulse {
            Some(pulse) => publisher.with_pulse(pulse.clone(), store()),
            None => publisher,
        }
    }

    /// How the publisher of `destination` is to behave.
    pub fn settings(&self, destination: &str) -> PublisherSettings {
        PublisherSettings {
            form: self.form.clone(),
            identity: self.identity(destination),
            ttl: self.ttl,
            audit: self.audit,
            metadata: None,
        }
    }
}

/// A publisher of its own, for a cluster that is not the one where containers go.
pub struct EtcdReporter {
    frame: Arc<EtcdFrame>,
    config: EtcdConfig,
    destination: String,
}

impl EtcdReporter {
    /// For the cluster of `target`.
    pub fn new(target: &Target, frame: &Frame) -> Self {
        let frame = Arc::clone(&frame.etcd);
        let mut config = frame.config.clone();
        // They were read once already, when the config was.
        if let (false, Ok(endpoints)) =
            (target.servers.is_empty(), parse_endpoints(&target.servers.join(","), None, false))
        {
            config.endpoints = endpoints;
        }
        Self { destination: target.destination(&frame), config, frame }
    }
}

impl Reporter for EtcdReporter {
    async fn run(
        self,
        wanted: watch::Receiver<Arc<Wanted>>,
        out: watch::Sender<Standing>,
        ends: Ends,
    ) -> Result<(), ReporterError> {
        // No container goes here; the sender must live as long as the publisher.
        let (_no_containers, registrations) = watch::channel(Some(Arc::default()));
        let (told, publication) = watch::channel(Publication::default());
        let settings = self.frame.settings(&self.destination);
        let (relay, slots) = Relay::new(wanted, publication, out);
        let publisher = self.frame.publisher(&self.config, settings, registrations, told).with_slots(slots);
        let Ends { stop, withdraw } = ends;
        let done = CancellationToken::new();
        let publishing = async {
            let end = Box::pin(publisher.run(stop, withdraw)).await;
            done.cancel();
            end
        };
        let (end, _) = tokio::join!(publishing, done.run_until_cancelled(relay.run()));
        end.map_err(Into::into)
    }
}

/// Stands between what Nerve's services want and the publisher's slots, and passes on how those are published.
pub struct Relay {
    wanted: watch::Receiver<Arc<Wanted>>,
    slots: watch::Sender<Arc<Slots>>,
    publication: watch::Receiver<Publication>,
    out: watch::Sender<Standing>,
    /// What is wanted, or still published.
    known: BTreeSet<Placement>,
}

impl Relay {
    /// A relay, and the slots for its publisher, which hold what is wanted already.
    pub fn new(
        wanted: watch::Receiver<Arc<Wanted>>,
        publication: watch::Receiver<Publication>,
        out: watch::Sender<Standing>,
    ) -> (Self, watch::Receiver<Arc<Slots>>) {
        let (slots, receiver) = watch::channel(Arc::new(slots(&wanted.borrow())));
        (Self { wanted, slots, publication, out, known: BTreeSet::new() }, receiver)
    }

    /// Passes on each change, until it is dropped.
    pub async fn run(mut self) -> Infallible {
        loop {
            self.pass_on();
            tokio::select! {
                Ok(()) = self.wanted.changed() => {}
                Ok(()) = self.publication.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    fn pass_on(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        self.known.extend(wanted.keys().cloned());
        replace(&self.slots, Arc::new(slots(&wanted)));
        let publication = self.publication.borrow_and_update().clone();
        let published = published(&publication, &self.known);
        self.known.retain(|placement| wanted.contains_key(placement) || published.contains_key(placement));
        let standing = Standing {
            published,
            absent: BTreeSet::new(),
            refused: BTreeMap::new(),
            session: publication.lease.map(|lease| format!("lease {lease}")),
            away: publication.away.or(publication.full).or(publication.rival),
        };
        replace(&self.out, standing);
    }
}

/// What of `known` the registry holds under the publisher's lease.
fn published(publication: &Publication, known: &BTreeSet<Placement>) -> BTreeMap<Placement, Payload> {
    let payload = |placement| publication.slots.get(&slot(placement)?).cloned();
    let held = known.iter().filter(|_| publication.lease.is_some());
    held.filter_map(|placement| Some((placement.clone(), payload(placement)?))).collect()
}

fn slots(wanted: &Wanted) -> Slots {
    wanted.iter().filter_map(|(placement, want)| Some((slot(placement)?, want.clone()))).collect()
}

/// The slot in `<etcd_path>/<instance_id>/`; `None` for another reporter's placement.
fn slot(placement: &Placement) -> Option<Slot> {
    let AnyTarget::Etcd(target) = &placement.target else { return None };
    let (path, instance) = (target.path.trim_matches('/'), &placement.instance);
    let directory = if path.is_empty() { format!("/{instance}/") } else { format!("/{path}/{instance}/") };
    Some(Slot { service: placement.service.clone(), directory: directory.into() })
}

#[cfg(test)]
mod tests {
    use agent::config::Report;
    use registry::store::LeaseId;
    use serde_json::{Value, json};

    use super::*;
    use crate::publish::slots::Want;

    fn read(fields: &Value) -> (Option<Target>, Report) {
        let mut report = Report::default();
        let fields = fields.as_object().unwrap();
        let mut reading = Reading { fields, path: "services.web", report: &mut report };
        (Target::read(&mut reading), report)
    }

    #[test]
    fn a_placement_stays_published_until_the_publisher_has_withdrawn_it() {
        let placement = |path: &str| {
            let target = AnyTarget::Etcd(Target::new(&[], path));
            Placement { service: "web".into(), instance: "i-1".into(), target }
        };
        let wanted: Wanted = ["/", "nerve/web/"].map(|path| (placement(path), Want::Publish("{}".into()))).into();
        let (want, wanted) = watch::channel(Arc::new(wanted));
        let (publish, publication) = watch::channel(Publication::default());
        let (out, standing) = watch::channel(Standing::default());
        let (mut relay, slots) = Relay::new(wanted, publication, out);
        let directories: Vec<_> = slots.borrow().keys().map(|slot| slot.directory.to_string()).collect();
        assert_eq!(directories, ["/i-1/", "/nerve/web/i-1/"]);

        let there = Arc::new(slots.borrow().keys().map(|slot| (slot.clone(), Payload::from("{}"))).collect());
        publish.send_modify(|p| p.slots = Arc::clone(&there));
        relay.pass_on();
        assert!(standing.borrow().published.is_empty(), "nothing counts without a lease");
        publish.send_modify(|p| p.lease = Some(LeaseId(7)));
        want.send_replace(Arc::default());
        relay.pass_on();
        assert!(slots.borrow().is_empty());
        assert_eq!(standing.borrow().published.len(), 2, "withdrawn only once the registry says so");
        publish.send_modify(|p| p.slots = Arc::default());
        relay.pass_on();
        assert!(standing.borrow().published.is_empty());
    }

    #[test]
    fn etcd_targets_are_read_with_v3s_port() {
        for (fields, servers, notices) in [
            (json!({"etcd_host": ["e"]}), &["http://e:2379"][..], 1),
            (json!({"etcd_host": ["e"], "etcd_port": 4001}), &["http://e:4001"], 0),
            (json!({"etcd_host": ["e:1", "f:2"]}), &["http://e:1", "http://f:2"], 0),
            (json!({}), &[], 1),
        ] {
            let (target, report) = read(&fields);
            assert_eq!(target, Some(Target::new(servers, "/")), "{fields}");
            assert_eq!((report.notices.len(), report.errors.len()), (notices, 0), "{fields}");
        }
        for (bad, key) in [
            (json!({"etcd_host": ["a b"]}), "services.web.etcd_host"),
            (json!({"etcd_host": ["e"], "etcd_path": "/a b"}), "services.web.etcd_path"),
            (json!({"etcd_path": "/a//b"}), "services.web.etcd_path"),
        ] {
            let (target, report) = read(&bad);
            assert!(target.is_none() && report.errors[0].path == key, "{bad}: {report:?}");
        }
    }
}
