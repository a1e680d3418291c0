//! etcd: `<etcd_path>/<instance_id>/<20 digits>` under the agent's one lease, by the same publisher that writes
//! containers. Nerve wrote to etcd's v2 API; the keys look the same in v3.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::config::table::{Key, Kind, Origin};
use common::model::NodeName;
use common::store::etcd::{EtcdConfig, EtcdStore, parse_endpoints};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Ends, Frame, Reading, Reporter, ReporterError, Standing, Wanted};
use crate::publish::report::PublishMetrics;
use crate::publish::{Form, Identity, Publication, Publisher, PublisherSettings};

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str, test: &'static str) -> Key {
    Key { name, kind, default, origin: Origin::Nerve, doc, test }
}

/// etcd's rows of the table of a service's keys.
pub const KEYS: [Key; 3] = [
    key(
        "etcd_host",
        Kind::Lines,
        "",
        "etcd's server, or several; without it the agent's own (`--etcd-host`, ETCD_HOST), with a notice.",
        "etcd_targets_are_read_with_v3s_port",
    ),
    key(
        "etcd_port",
        Kind::Whole { min: 1, max: 65_535 },
        "2379",
        "The port of servers that are given without one. Nerve's default was 4003; v3's is meant, with a notice.",
        "etcd_targets_are_read_with_v3s_port",
    ),
    key(
        "etcd_path",
        Kind::Text,
        "/",
        "The directory; the key is `<etcd_path>/<instance_id>/<20 digits>`.",
        "nerves_services_are_published_under_one_lease_and_withdrawn_when_they_fail",
    ),
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
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
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
        let store = EtcdStore::new(self.config);
        let publisher =
            Publisher::new(store, settings, registrations, told, self.frame.metrics.clone()).with_wanted(wanted);
        let Ends { stop, withdraw } = ends;
        let done = CancellationToken::new();
        let publishing = async {
            let end = Box::pin(publisher.run(stop, withdraw)).await;
            done.cancel();
            end
        };
        let (end, _) = tokio::join!(publishing, done.run_until_cancelled(tell(publication, out)));
        end.map_err(Into::into)
    }
}

/// Passes on what a publisher says of itself, as reporters say it.
pub async fn tell(mut publication: watch::Receiver<Publication>, out: watch::Sender<Standing>) -> Infallible {
    loop {
        let standing = publication.borrow_and_update().standing();
        out.send_if_modified(|old| {
            let changed = *old != standing;
            if changed {
                *old = standing;
            }
            changed
        });
        if publication.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use common::config::Report;
    use serde_json::{Value, json};

    use super::*;

    fn read(fields: &Value) -> (Option<Target>, Report) {
        let mut report = Report::default();
        let fields = fields.as_object().unwrap();
        let mut reading = Reading { fields, path: "services.web", report: &mut report };
        (Target::read(&mut reading), report)
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
