//! `method: zookeeper`, `zookeeper_poll`, `zookeeper_dns` and `zookeeper_dns_poll`: one service's registrations, the children
//! of one node.
//!
//! | module | what it holds |
//! |---|---|
//! | `nodes` | the children as a source that can be looked at: watched or polled, only what changed is read |
//! | `decode` | a child's name and data → a backend |
//! | `owners` | whether a child that went was taken away, or went with its whole session |

mod decode;
mod nodes;
mod owners;

use std::time::Duration;

use serde::Deserialize;
use tracing::warn;
use zookeeper::{Auth, Sessions, Target, ZkPath};

use super::dns::{Resolver, Resolving, deadline, name_servers};
use super::poll::{Pace, Polled};
use super::{About, BoxWatcher, Context, Fault, Faults, Method, MethodInput};
pub use decode::Decode;
pub use nodes::{Nodes, NodesError};
pub use owners::SessionOwners;

/// Between two looks of the polling methods, unless the config says otherwise.
const POLL_SECONDS: u64 = 60;
/// Between two looks of a watched service that has no news: watches are backed up, not trusted.
const BACK_UP: Duration = Duration::from_secs(300);
/// Between two looks at host names.
const RESOLVE_SECONDS: f64 = 30.0;
/// The longest `discovery_jitter`, in seconds. Source: Synapse 0.18.9, `MAX_JITTER`.
const MOST_JITTER: f64 = 120.0;
/// One look may take so long: a first one reads every child.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first wait after a failure, and the longest one, in seconds. Source: Synapse's defaults.
const RETRY: (f64, f64) = (0.5, 60.0);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    hosts: Vec<String>,
    path: Option<String>,
    zk_auth: Option<String>,
    decode: Option<decode::Keys>,
    retry_policy: RetryPolicy,
    discovery_jitter: f64,
    generator_config_path: Option<String>,
    polling_interval_sec: Option<f64>,
    nameserver: Vec<String>,
    check_interval: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RetryPolicy {
    base_interval: Option<f64>,
    max_interval: Option<f64>,
}

/// Where the registrations of one service lie, and how they are read.
#[derive(Debug, Clone)]
pub struct ZkSettings {
    /// For which service.
    pub about: About,
    /// The ensemble.
    pub target: Target,
    /// The node whose children are the registrations.
    pub path: ZkPath,
    /// The node with the generators' config, if that counts.
    pub config: Option<ZkPath>,
    /// What the children say.
    pub decode: Decode,
    /// Whether changes are told; else it is looked at every now and then.
    pub watch: bool,
    /// Changes are read at most so often.
    pub at_most_every: Duration,
}

/// The four methods: polled or watched, with host names resolved or not.
#[derive(Debug, Clone)]
pub struct ZooKeeper<const POLL: bool, const DNS: bool> {
    settings: ZkSettings,
    pace: Pace,
    resolver: Option<(Resolver, Duration)>,
}

impl<const POLL: bool, const DNS: bool> Method for ZooKeeper<POLL, DNS> {
    fn read(asked: &MethodInput<'_>) -> Result<Self, Faults> {
        let (keys, mut faults): (Keys, _) = (asked.keys()?, Faults::default());
        let auth = keys.zk_auth.map(|text| text.parse::<Auth>()).transpose().map_err(|e| Fault::new("zk_auth", e));
        let auth = faults.take(auth).flatten();
        let target = Target::parse(keys.hosts.iter().map(String::as_str)).map_err(|e| Fault::new("hosts", e));
        let target = faults.take(target);
        let path = |key, text: &str| text.parse::<ZkPath>().map_err(|e| Fault::new(key, e));
        let required = keys.path.as_deref().ok_or_else(|| Fault::new("path", "is required"));
        let at = faults.take(required.and_then(|text| path("path", text)));
        let config = match keys.generator_config_path.as_deref() {
            Some("disabled") => None,
            Some(text) => faults.take(path("generator_config_path", text)),
            None => at.clone(),
        };
        // As in Synapse, which says so, too.
        let is_far = keys.discovery_jitter > MOST_JITTER;
        if is_far {
            warn!(
                discovery_jitter = keys.discovery_jitter,
                most = MOST_JITTER,
                "discovery_jitter is too long, and not used."
            );
        }
        let jitter = if is_far { 0.0 } else { keys.discovery_jitter };
        let mut seconds = |key: &str, value: f64| {
            let read = Duration::try_from_secs_f64(value).map_err(|e| Fault::new(key, e));
            faults.take(read).unwrap_or_default()
        };
        let at_most_every = seconds("discovery_jitter", jitter);
        let retry = (
            seconds("retry_policy.base_interval", keys.retry_policy.base_interval.unwrap_or(RETRY.0)),
            seconds("retry_policy.max_interval", keys.retry_policy.max_interval.unwrap_or(RETRY.1)),
        );
        let pace = match POLL {
            true => Pace::every(keys.polling_interval_sec, POLL_SECONDS),
            false => Pace::every(Some(BACK_UP.as_secs_f64()), 0),
        };
        let resolver = if DNS {
            let every = seconds("check_interval", keys.check_interval.unwrap_or(RESOLVE_SECONDS));
            let every = every.max(Duration::from_millis(10));
            let servers = faults.take(name_servers(&keys.nameserver));
            servers.map(|servers| (Resolver::new(&servers, deadline(every)), every))
        } else {
            None
        };
        let decode = faults.take(Decode::read(keys.decode));
        let (Some(target), Some(at), Some(decode), true) = (target, at, decode, faults.0.is_empty()) else {
            return Err(faults);
        };
        let settings = ZkSettings {
            about: asked.about.clone(),
            target: target.with_auth(auth),
            path: at,
            config,
            decode,
            watch: !POLL,
            at_most_every,
        };
        Ok(Self { settings, pace: pace.with_patience(PATIENCE).with_retry(retry), resolver })
    }

    /// Services of the same ensemble share one session.
    fn watcher(&self, context: &mut Context) -> BoxWatcher {
        let sessions = context.shared("", Sessions::default);
        let owners = context.shared(&format!("{:?}", self.settings.target), SessionOwners::default);
        let nodes = Nodes::new(self.settings.clone(), sessions.get(&self.settings.target), owners);
        let name = self.settings.about.source.clone();
        let polled = Polled::new(nodes, name.clone(), self.pace);
        match &self.resolver {
            None => Box::new(polled),
            Some((resolver, every)) => Box::new(Resolving::new(polled, resolver.clone(), *every, name)),
        }
    }

    fn servers(&self) -> Vec<String> {
        self.settings.target.servers().iter().map(ToString::to_string).collect()
    }
}
