//! ZooKeeper: one node for each registration, as Nerve writes it, all of one ensemble through one session.
//!
//! | module | what it holds |
//! |---|---|
//! | here | the keys, where a registration goes, and when there is something to do |
//! | `work` | what is written for each registration, and what is known of it |
//! | `removal` | what goes, and whether ZooKeeper has confirmed it |
//! | `names` | which node is whose; pure |
//!
//! Nodes that live with the session are written again when it is lost; every node of ours is watched, so one that
//! somebody takes away comes back, and nothing is asked or written while nothing changes. The connection is made anew
//! after every failure, so [`Frame::max_failures`] has nothing to add here.

mod names;
mod removal;
mod removals;
#[cfg(test)]
mod tests;
mod work;

use std::time::Duration;

use agent::backoff::Backoff;
use agent::config::table::{Key, Kind};
use agent::telemetry::Chain;
use agent::watch::replace;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};
use zookeeper::{self, Auth, NodeKind, State, ZkPath, ZooKeeper};

use super::{Ends, Frame, Reading, Reporter, ReporterError, Standing, Wanted, withdrawn};
use crate::nerve::statsd::Statsd;
use work::Work;

/// The first wait after something was refused, and the longest one.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// How long the end may take to remove everything.
const FAREWELL: Duration = Duration::from_secs(5);

agent::keys_of! { key: Nerve, ours: Ours }

/// ZooKeeper's rows of the table of a service's keys.
pub const KEYS: [Key; 6] = [
    key("zk_hosts", Kind::Lines),
    key("zk_path", Kind::Text),
    ours("zk_auth", Kind::Text),
    key("node_type", Kind::Word(&["ephemeral_sequential", "ephemeral", "persistent", "persistent_sequential"])),
    key("use_path_encoding", Kind::Bool),
    key("ttl_seconds", Kind::Number),
];

/// Where in ZooKeeper a registration goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    ensemble: zookeeper::Target,
    path: ZkPath,
    kind: NodeKind,
    encoded: bool,
    /// How often a persistent node is written again.
    ttl: Option<Duration>,
}

impl Target {
    /// Reads the keys of [`KEYS`].
    pub fn read(reading: &mut Reading<'_>) -> Option<Self> {
        let ensemble = match zookeeper::Target::parse(reading.texts("zk_hosts")) {
            Ok(ensemble) => Some(ensemble),
            Err(e) => {
                reading.error("zk_hosts", e.to_string());
                None
            }
        };
        let auth = match reading.text("zk_auth").map(str::parse::<Auth>).transpose() {
            Ok(auth) => auth,
            Err(e) => {
                reading.error("zk_auth", e.to_string());
                return None;
            }
        };
        let path = match reading.text("zk_path").map(str::parse::<ZkPath>) {
            Some(Ok(path)) => Some(path),
            Some(Err(e)) => {
                reading.error("zk_path", e.to_string());
                None
            }
            None => {
                reading.error("zk_path", "is required");
                None
            }
        };
        let kind = match reading.text("node_type") {
            Some("ephemeral") => NodeKind::Ephemeral,
            Some("persistent") => NodeKind::Persistent,
            Some("persistent_sequential") => NodeKind::PersistentSequential,
            _ => NodeKind::EphemeralSequential,
        };
        let ttl = reading.fields.get("ttl_seconds").and_then(Value::as_f64).filter(|_| !kind.is_ephemeral());
        let ttl = ttl.and_then(|s| Duration::try_from_secs_f64(s).ok()).map(|ttl| ttl.max(Duration::from_millis(100)));
        if kind.is_ephemeral() && reading.fields.contains_key("ttl_seconds") {
            reading.notice("ttl_seconds", "has no effect on a node that goes with its session");
        }
        let encoded = reading.fields.get("use_path_encoding").and_then(Value::as_bool).unwrap_or(false);
        Some(Self { ensemble: ensemble?.with_auth(auth), path: path?, kind, encoded, ttl })
    }

    /// The ensemble, and as whom.
    pub fn destination(&self) -> String {
        let user = self.ensemble.user().map(|user| format!(" as {user}")).unwrap_or_default();
        format!("zookeeper {}{user}", self.ensemble)
    }

    /// Whether a node stays when its session ends.
    pub fn is_persistent(&self) -> bool {
        !self.kind.is_ephemeral()
    }

    /// The node below which it is written.
    pub fn path(&self) -> &str {
        self.path.as_str()
    }
}

/// Keeps the registrations of one ensemble.
pub struct ZkReporter {
    zk: ZooKeeper,
    statsd: Statsd,
}

impl ZkReporter {
    /// For the ensemble of `target`.
    pub fn new(target: &Target, frame: &Frame) -> Self {
        Self { zk: ZooKeeper::new(target.ensemble.clone()), statsd: frame.statsd.clone() }
    }
}

impl Reporter for ZkReporter {
    async fn run(
        self,
        mut wanted: watch::Receiver<Arc<Wanted>>,
        out: watch::Sender<Standing>,
        ends: Ends,
    ) -> Result<(), ReporterError> {
        let mut state = self.zk.state();
        let mut work = Work::new(self.zk.clone(), self.statsd.clone());
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut away: Option<(String, Instant)> = None;
        loop {
            let target = wanted.borrow_and_update().clone();
            let now = state.borrow_and_update().clone();
            let (mut again, mut renewal, mut here) = (None, None, false);
            match now {
                State::Connected { epoch, session } => {
                    work.connected(epoch, session);
                    let brought = tokio::select! {
                        biased; // shutdown wins over work
                        () = ends.stop.cancelled() => break,
                        brought = work.bring_to(&target) => brought,
                    };
                    away = brought
                        .err()
                        .map(|e| (Chain(&e).to_string(), away.map_or_else(Instant::now, |(_, since)| since)));
                    again = (away.is_some() || work.has_refused()).then(|| Instant::now() + backoff.next_delay());
                    here = away.is_none();
                    renewal = work.next_renewal().filter(|_| here);
                }
                State::Connecting { error: Some(error) } => {
                    let since = away.map_or_else(Instant::now, |(_, since)| since);
                    away = Some((error.to_string(), since));
                }
                State::Connecting { error: None } | State::Closed => {}
            }
            replace(&out, work.standing(away.clone()));
            let due = again.into_iter().chain(renewal).min();
            tokio::select! {
                biased; // shutdown wins over work
                () = ends.stop.cancelled() => break,
                changed = wanted.changed() => if changed.is_err() { ends.stop.cancelled().await },
                changed = state.changed() => if changed.is_err() { ends.stop.cancelled().await },
                () = work.news(), if here => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
        let rest = withdrawn(&wanted.borrow());
        if ends.withdraw.is_cancelled() && !(rest.is_empty() && work.is_unused()) {
            let farewell = async {
                work.bring_to(&rest).await?;
                self.zk.close().await
            };
            let told = matches!(timeout(FAREWELL, farewell).await, Ok(Ok(())));
            say_farewell(&self.zk, told, &work.left_behind(&rest));
            replace(&out, work.standing(away));
        }
        Ok(())
    }
}

/// What became of everything at the end.
fn say_farewell(zk: &ZooKeeper, told: bool, left: &[String]) {
    let at = zk.target();
    match (told, left) {
        (true, []) => info!(%at, "Everything is removed from ZooKeeper."),
        (false, []) => warn!(%at, "ZooKeeper could not be told; what lives with the session goes with it."),
        (_, left) => warn!(
            %at, left = left.join(", "),
            "ZooKeeper has not confirmed that these persistent nodes are removed. Start register again with this config, or \
             delete them."
        ),
    }
}
