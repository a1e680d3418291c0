//! One client for each endpoint, one of them current, and the way in which a call moves on when that one fails.
//!
//! The crate's own balanced channel is not used for this: it goes on choosing an endpoint that is dead (measured:
//! with one of three refused a quarter of all calls fails).

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::config::{Credentials, Endpoint, EtcdConfig};
use super::fault::{Failure, classify};
use super::identify::{Finding, identify};
use super::pings::Pings;
use crate::store::{Fault, Operation, StoreError};
use agent::sync::lock;

/// Least number of attempts of one call; with more endpoints than this, each gets one.
const ATTEMPTS: usize = 3;
/// Most endpoints, those that a cluster names included.
const MOST_ENDPOINTS: usize = 64;
/// Longest pause before the second attempt; before later ones that many times more.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a call may be sent again when its first outcome is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Doing it twice is as good as once.
    Always,
    /// Only what surely did not reach the store.
    Unsent,
}

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) config: EtcdConfig,
    /// Those of the settings, then those that the cluster named. None is ever taken out, so that an index stays what it is.
    slots: RwLock<Vec<Arc<Slot>>>,
    current: AtomicUsize,
}

struct Slot {
    endpoint: Endpoint,
    name: String,
    client: Mutex<Option<Client>>,
    /// How often its connection was given up.
    left: AtomicUsize,
    pings: std::sync::Mutex<Pings>,
}

impl Slot {
    fn new(endpoint: &Endpoint) -> Arc<Self> {
        let name = endpoint.to_string();
        let endpoint = endpoint.clone();
        Arc::new(Self {
            endpoint,
            name,
            client: Mutex::default(),
            left: AtomicUsize::default(),
            pings: Default::default(),
        })
    }

    /// Where to connect. By name at first: then the system takes the first of the name's addresses that accepts, and stays there
    /// though it be silent. So after each connection that was given up the next address is taken, and the name again after the last.
    async fn url(&self) -> String {
        let Endpoint { https, host, port } = &self.endpoint;
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return self.name.clone();
        }
        let all: Vec<_> = lookup_host((host.as_str(), *port)).await.map(Iterator::collect).unwrap_or_default();
        match left.checked_rem(all.len()).filter(|which| *which > 0).and_then(|which| all.get(which)) {
            Some(address) => Endpoint { https: *https, host: address.ip().to_string(), port: *port }.to_string(),
            None => self.name.clone(),
        }
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Pool {
    pub(super) fn new(config: EtcdConfig) -> Self {
        let slots: Vec<_> = config.endpoints.iter().map(Slot::new).collect();
        // Many agents with the same list should not all begin at its head.
        let current = AtomicUsize::new(rand::random_range(0..slots.len().max(1)));
        Self { config, slots: RwLock::new(slots), current }
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn slot(&self, index: usize) -> Option<Arc<Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).get(index).cloned()
    }

    fn count(&self) -> usize {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The endpoint by its number, for errors.
    pub(super) fn name(&self, index: usize) -> String {
        self.slot(index).map_or_else(|| "no endpoint".to_owned(), |slot| slot.name.clone())
    }

    /// All endpoints, for errors that are not about one of them.
    pub(super) fn names(&self) -> String {
        self.slots().iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Goes to these endpoints too from now on, up to [`MOST_ENDPOINTS`].
    pub(super) fn add(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        for endpoint in endpoints {
            if slots.len() < MOST_ENDPOINTS && !slots.iter().any(|slot| slot.endpoint == endpoint) {
                info!(%endpoint, "The cluster has a member that was not named; it is an endpoint, too.");
                slots.push(Slot::new(&endpoint));
            }
        }
    }

    /// Whether calls go to this endpoint now.
    pub(super) fn is_current(&self, index: usize) -> bool {
        self.current.load(Ordering::Relaxed) == index
    }

    /// Calls at the current endpoint, each attempt bounded in time; moves on and tries again where that may help.
    /// Tells also which endpoint answered.
    pub(super) async fn call<T, F, Fut>(
        &self,
        operation: Operation,
        subject: &str,
        retry: Retry,
        work: F,
    ) -> Result<(T, usize), StoreError>
    where
        F: Fn(Client) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
    {
        let attempts = self.count().max(ATTEMPTS);
        let mut attempt = 1;
        loop {
            let index = self.current.load(Ordering::Relaxed);
            let failure = match self.attempt(index, &work).await {
                Ok(done) => return Ok((done, index)),
                Err(failure) => failure,
            };
            if failure.moves_on {
                self.leave(index, &failure.fault);
            }
            if !failure.moves_on || attempt == attempts || (retry == Retry::Unsent && !failure.unsent) {
                return Err(StoreError::new(operation, subject, self.explain(index, failure).await));
            }
            debug!(endpoint = %self.name(index), why = %failure.fault, attempt, "Store call failed; trying again.");
            sleep(PAUSE.mul_f64(rand::random::<f64>()) * u32::try_from(attempt).unwrap_or(1)).await;
            attempt += 1;
        }
    }

    async fn attempt<T, F, Fut>(&self, index: usize, work: &F) -> Result<T, Failure>
    where
        F: Fn(Client) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Error>> + Send,
    {
        let Some(slot) = self.slot(index) else {
            return Err(Failure::bad_config("no endpoint is set".into()));
        };
        let after = self.config.timeouts.call;
        let whole = async {
            let client = self.client(&slot).await?;
            work(client).await.map_err(|error| self.judge(&slot.name, &error))
        };
        let late = |_| Failure::of(Fault::Timeout { endpoint: slot.name.clone(), after });
        timeout(after, whole).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    fn judge(&self, endpoint: &str, error: &Error) -> Failure {
        let failure = classify(endpoint, error);
        match failure.fault {
            // Connected before the store began to ask for passwords, or ceased to: connect anew, as it asks now.
            Fault::Unauthenticated { endpoint, why } | Fault::Unavailable { endpoint, why }
                if self.config.credentials.is_some()
                    && (why.contains("user name is empty") || why.contains("authentication is not enabled")) =>
            {
                Failure { unsent: true, ..Failure::of(Fault::Unavailable { endpoint, why }) }
            }
            fault => Failure { fault, ..failure },
        }
    }

    /// Gives up the connection to an endpoint, for that fault, and, if it is the current one, goes on to the next.
    pub(super) fn leave(&self, index: usize, fault: &Fault) {
        let next = (index + 1) % self.count().max(1);
        // Of several callers that fail at once, one moves on.
        let moved = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        // Where the client is locked, somebody connects anew already.
        if moved && let Some(slot) = self.slot(index) {
            slot.left.fetch_add(1, Ordering::Relaxed);
            let ended = matches!(fault, Fault::Unavailable { .. });
            if ended && lock(&slot.pings).left(self.config.timeouts.ping_interval, Instant::now()) {
                info!(
                    endpoint = slot.name,
                    "The server ends connections that are pinged; it is pinged rarely from now on."
                );
            }
            if let Ok(mut client) = slot.client.try_lock() {
                *client = None;
            }
        }
    }

    async fn client(&self, slot: &Slot) -> Result<Client, Failure> {
        let mut known = slot.client.lock().await;
        if let Some(client) = &*known {
            return Ok(client.clone());
        }
        let client = self.connect(slot).await?;
        *known = Some(client.clone());
        Ok(client)
    }

    async fn connect(&self, slot: &Slot) -> Result<Client, Failure> {
        let times = &self.config.timeouts;
        let interval = lock(&slot.pings).connects(times.ping_interval, Instant::now());
        let mut options = ConnectOptions::new()
            .with_connect_timeout(times.call)
            .with_keep_alive(interval, times.ping)
            .with_keep_alive_while_idle(true)
            .with_auto_token_refresh(true)
            .with_require_leader(true);
        if slot.endpoint.https {
            options = options.with_tls(self.tls(&slot.endpoint).await.map_err(Failure::bad_config)?);
        }
        let url = slot.url().await;
        let connect = |options| Client::connect([url.as_str()], Some(options));
        let told = |error: Error| classify(&slot.name, &error);
        let Some(Credentials { user, password }) = &self.config.credentials else {
            return connect(options).await.map_err(told);
        };
        match connect(options.clone().with_user(user, password)).await {
            Err(Error::GRpcStatus(status)) if status.message().contains("authentication is not enabled") => {
                warn!(endpoint = slot.name, "The store asks for no password; going on without ours.");
                connect(options).await.map_err(told)
            }
            other => other.map_err(told),
        }
    }

    async fn tls(&self, endpoint: &Endpoint) -> Result<TlsOptions, String> {
        let tls = &self.config.tls;
        let read = async |path: &Path| {
            tokio::fs::read(path).await.map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let mut options = match &tls.ca {
            Some(path) => TlsOptions::new().ca_certificate(Certificate::from_pem(read(path).await?)),
            None => TlsOptions::new().with_native_roots(),
        };
        match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => {
                options = options.identity(Identity::from_pem(read(cert).await?, read(key).await?));
            }
            (None, None) => {}
            _ => return Err("a client certificate needs its key, and a key its certificate".into()),
        }
        // Also where one of the name's addresses is connected to.
        Ok(options.domain_name(tls.server_name.as_ref().unwrap_or(&endpoint.host).clone()))
    }

    /// An endpoint that took the connection and then spoke no HTTP/2 may be something else.
    async fn explain(&self, index: usize, failure: Failure) -> Fault {
        let (slot, why) = match (self.slot(index), failure.fault) {
            (Some(slot), Fault::Unavailable { why, .. }) if !failure.unsent => (slot, why),
            (_, fault) => return fault,
        };
        let endpoint = slot.name.clone();
        match identify(&slot.endpoint, self.config.timeouts.call).await {
            Some(Finding::Impostor(why)) => Fault::NotV3 { endpoint, why },
            Some(Finding::Hint(hint)) => Fault::Unavailable { endpoint, why: format!("{why} ({hint})") },
            None => Fault::Unavailable { endpoint, why },
        }
    }
}
