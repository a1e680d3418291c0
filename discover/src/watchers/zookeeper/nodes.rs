//! The children of one node as a source that can be looked at. What is known is kept: a look lists the children, and reads
//! those that are new or have changed. On a new connection all of them are read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use model::{Backend, BackendId, ServiceName};
use registry::store::Revision;
use registry::{Departure, DepartureCause};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use zookeeper::{Mailbox, Stat, State, ZkError, ZkPath, ZooKeeper, child};

use super::{SessionOwners, ZkSettings};
use crate::watchers::findings::{Answer, Findings};
use crate::watchers::poll::{Look, Poll};

/// How many departures are remembered; then they are forgotten.
const MOST_DEPARTURES: usize = 1_000;

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// There is no connection.
    #[error("connecting to ZooKeeper at {target}: {why}")]
    NotConnected {
        target: String,
        /// How the last attempt failed.
        why: Arc<str>,
    },
    /// ZooKeeper refuses, or the connection was lost.
    #[error(transparent)]
    MethodInput(#[from] ZkError),
}

/// One child.
#[derive(Debug, Clone)]
struct Node {
    /// The session that it ends with; 0 where there is none.
    owner: i64,
    said: Result<Arc<Backend>, String>,
}

/// What the generators' node says.
#[derive(Debug, Clone, Default)]
struct Config {
    /// The last one that could be read.
    good: Option<Arc<Map<String, Value>>>,
    /// Why the present one cannot.
    bad: Option<String>,
}

/// The registrations of one service.
#[derive(Debug)]
pub struct Nodes {
    settings: ZkSettings,
    zk: ZooKeeper,
    mailbox: Mailbox,
    owners: SessionOwners,
    state: Option<watch::Receiver<State>>,
    /// The connection on which everything below was read and is watched.
    epoch: Option<u64>,
    /// Nodes that have changed since they were read.
    dirty: BTreeSet<String>,
    known: BTreeMap<String, Node>,
    config: Config,
    departed: Arc<HashMap<(ServiceName, BackendId), Departure>>,
    read_at: Option<Instant>,
}

/// What one look read.
struct Listing {
    names: Vec<String>,
    /// The transaction that last added or removed a child.
    revision: i64,
    read: BTreeMap<String, Node>,
}

impl Nodes {
    /// The children as `settings` has them. Nothing is read before the first look.
    pub fn new(settings: ZkSettings, zk: ZooKeeper, owners: SessionOwners) -> Self {
        let paths: Vec<&ZkPath> = [&settings.path].into_iter().chain(&settings.config).collect();
        let mailbox = zk.mailbox(&paths);
        Self {
            settings,
            zk,
            mailbox,
            owners,
            state: None,
            epoch: None,
            dirty: BTreeSet::new(),
            known: BTreeMap::new(),
            config: Config::default(),
            departed: Arc::default(),
            read_at: None,
        }
    }

    /// The epoch of the connection, once it is known whether there is one.
    async fn connection(&mut self) -> Result<u64, NodesError> {
        let state = self.state.get_or_insert_with(|| self.zk.state());
        let not_connected = |why| NodesError::NotConnected { target: self.settings.target.to_string(), why };
        let decided = |state: &State| !matches!(state, State::Connecting { error: None });
        state.wait_for(decided).await.map_err(|_| not_connected("the session is closed".into()))?;
        match &*state.borrow_and_update() {
            State::Connected { epoch, .. } => Ok(*epoch),
            State::Connecting { error } => Err(not_connected(error.clone().unwrap_or_default())),
            State::Closed => Err(not_connected("the session is closed".into())),
        }
    }

    /// The children's names. A node that is not there has none, and is watched until it comes.
    async fn list(&self) -> Result<(Vec<String>, Stat), ZkError> {
        let (path, watch) = (&self.settings.path, self.settings.watch);
        loop {
            if let Some(listed) = self.zk.children(path, watch).await? {
                return Ok(listed);
            }
            if self.zk.exists(path, watch).await?.is_none() {
                return Ok((Vec::new(), Stat::default()));
            }
        }
    }

    /// Lists the children and reads those that are not known, or not well.
    async fn children(&self, anew: bool) -> Result<Listing, ZkError> {
        let (names, stat) = self.list().await?;
        let mut read = BTreeMap::new();
        let mut reads = FuturesUnordered::new();
        for name in &names {
            let Some(path) = self.settings.path.child(name) else { continue };
            if self.known.contains_key(name) && !anew && !self.dirty.contains(path.as_str()) {
                continue;
            }
            if let Some(node) = child::payload(name).and_then(|payload| self.node(name, &payload, Stat::default()).ok())
            {
                read.insert(name.clone(), node);
                continue;
            }
            reads.push(async move { (name, self.zk.data(&path, self.settings.watch).await) });
        }
        while let Some((name, data)) = reads.next().await {
            // One that went meanwhile will be missing in the next list, too.
            let Some((data, stat)) = data? else { continue };
            let (Ok(node) | Err(node)) = self.node(name, &data, stat);
            read.insert(name.clone(), node);
        }
        drop(reads);
        Ok(Listing { names, revision: stat.children_modified, read })
    }

    /// What a child says; an `Err` where that is no backend.
    fn node(&self, name: &str, data: &[u8], stat: Stat) -> Result<Node, Node> {
        let said = self.settings.decode.backend(name, data, self.settings.about.port).map(Arc::new);
        let good = said.is_ok();
        let node = Node { owner: stat.owner, said };
        if good { Ok(node) } else { Err(node) }
    }

    /// What the generators' node says; one that cannot be read keeps the last good one.
    async fn read_config(&self, path: &ZkPath) -> Result<Config, ZkError> {
        let watch = self.settings.watch;
        let data = loop {
            if let Some((data, _)) = self.zk.data(path, watch).await? {
                break data;
            }
            if self.zk.exists(path, watch).await?.is_none() {
                return Ok(Config::default());
            }
        };
        if data.trim_ascii().is_empty() {
            return Ok(Config::default());
        }
        Ok(match serde_json::from_slice::<Value>(&data) {
            Ok(Value::Object(map)) if map.is_empty() => Config::default(),
            Ok(Value::Object(map)) => match &self.config.good {
                Some(same) if **same == map => Config { good: Some(same.clone()), bad: None },
                _ => Config { good: Some(Arc::new(map)), bad: None },
            },
            Ok(_) => self.bad_config("is JSON, but no object".to_owned()),
            Err(e) => self.bad_config(format!("is not JSON: {e}")),
        })
    }

    fn bad_config(&self, why: String) -> Config {
        Config { good: self.config.good.clone(), bad: Some(format!("the generators' config {why}")) }
    }

    /// How those that are not in `present` any more went.
    async fn causes(&self, present: &BTreeMap<String, Node>) -> Result<Vec<(BackendId, DepartureCause)>, ZkError> {
        let gone: Vec<(&Arc<Backend>, i64, ZkPath)> = self
            .known
            .iter()
            .filter(|(name, _)| !present.contains_key(*name))
            .filter_map(|(name, node)| Some((node.said.as_ref().ok()?, node.owner, self.settings.path.child(name)?)))
            .collect();
        let paths: Vec<ZkPath> = gone.iter().map(|(.., path)| path.clone()).collect();
        let mut of_session: HashMap<i64, DepartureCause> = HashMap::new();
        let mut causes = Vec::with_capacity(gone.len());
        for (backend, owner, _) in gone {
            let cause = match of_session.get(&owner) {
                Some(cause) => *cause,
                None => self.owners.cause(&self.zk, owner, &paths).await?,
            };
            of_session.insert(owner, cause);
            causes.push((backend.id.clone(), cause));
        }
        Ok(causes)
    }

    /// Takes in what was read.
    fn take_in(
        &mut self,
        known: BTreeMap<String, Node>,
        causes: Vec<(BackendId, DepartureCause)>,
        revision: i64,
    ) -> Answer {
        let ZkSettings { about, path, .. } = &self.settings;
        for (name, node) in self.known.iter().filter(|(name, _)| !known.contains_key(*name)) {
            path.child(name).inspect(|path| self.owners.forget(node.owner, path));
        }
        let mut findings = Findings::new(about);
        let mut backends = Vec::with_capacity(known.len());
        for (name, node) in &known {
            path.child(name).inspect(|path| self.owners.note(node.owner, path));
            match &node.said {
                Ok(backend) => backends.push((child::number(name), name, backend)),
                Err(why) => findings.left_out(&format!("{path}/{name}"), why),
            }
        }
        if let (Some(path), Some(why)) = (&self.settings.config, &self.config.bad) {
            findings.left_out(path.as_str(), why);
        }
        // In the order in which they were made; of two that are the same backend the newer one speaks for it.
        backends.sort_by_key(|(number, name, _)| (*number, *name));
        let mut seen = BTreeMap::new();
        for (at, (.., backend)) in backends.iter().enumerate() {
            seen.insert(&backend.id, at);
        }
        for (at, (.., backend)) in backends.iter().enumerate() {
            if seen.get(&backend.id) == Some(&at) {
                findings.backend((*backend).clone());
            }
        }
        let mut answer = findings.answer();
        let there = |id: &BackendId| seen.contains_key(id);
        if !causes.is_empty() || self.departed.keys().any(|(_, id)| there(id)) {
            let departed = Arc::make_mut(&mut self.departed);
            if departed.len() + causes.len() > MOST_DEPARTURES {
                departed.clear();
            }
            let departure = |cause| Departure { cause, revision: Revision(revision) };
            departed.extend(causes.into_iter().map(|(id, cause)| ((about.service.clone(), id), departure(cause))));
            departed.retain(|(_, id), _| !there(id));
        }
        drop(seen);
        answer.departed = self.departed.clone();
        answer.revision = revision;
        if let Some(config) = &self.config.good {
            answer.generator_configs.insert(about.service.clone(), config.clone());
        }
        self.known = known;
        answer
    }
}

impl Poll for Nodes {
    type Error = NodesError;

    /// What is known changes only after the last await.
    async fn look(&mut self) -> Result<Look, NodesError> {
        let epoch = self.connection().await?;
        let anew = !self.settings.watch || self.epoch != Some(epoch);
        self.dirty.extend(self.mailbox.take());
        let listing = self.children(anew).await?;
        let known: BTreeMap<String, Node> = listing
            .names
            .into_iter()
            .filter_map(|name| {
                let unread = || self.known.get(&name).filter(|_| !anew).cloned();
                let node = listing.read.get(&name).cloned().or_else(unread)?;
                Some((name, node))
            })
            .collect();
        let config = match &self.settings.config {
            Some(path) if anew || self.dirty.contains(path.as_str()) => Some(self.read_config(path).await?),
            _ => None,
        };
        let causes = self.causes(&known).await?;
        self.epoch = Some(epoch);
        self.dirty.clear();
        self.read_at = Some(Instant::now());
        self.config = config.unwrap_or_else(|| std::mem::take(&mut self.config));
        Ok(self.take_in(known, causes, listing.revision).into())
    }

    /// Something has changed, or the connection has.
    async fn nudged(&mut self) {
        let Some(state) = &mut self.state else { return std::future::pending().await };
        let quiet_until = self.read_at.map(|at| at + self.settings.at_most_every);
        let news = async {
            self.mailbox.changed().await;
            if let Some(until) = quiet_until {
                sleep_until(until).await;
            }
        };
        tokio::select! {
            changed = state.changed() => if changed.is_err() { std::future::pending().await },
            () = news => {}
        }
    }
}
