//! One reachable host:port of a service.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use super::{BackendId, Host, Port, Routes, SniNames};

/// How clients speak to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A stream; what HAProxy balances.
    #[default]
    Tcp,
    /// Datagrams: published and listed, but left out of haproxy.cfg.
    Udp,
}

/// What a load balancer may assume about the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing: bytes.
    #[default]
    Tcp,
    /// HTTP: requests can be retried on another server.
    Http,
}

/// What register says about a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Takes new clients.
    #[default]
    Up,
    /// Finishes the clients it has, takes no new ones.
    Draining,
    /// Known, and known not to work.
    Down,
}

macro_rules! as_word {
    ($type:ident { $($variant:ident => $word:literal),+ }) => {
        impl $type {
            /// The word used in values, labels and logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl std::str::FromStr for $type {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text.to_ascii_lowercase().as_str() {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { text: text.chars().take(80).collect(), accepted: &[$($word),+] }),
                }
            }
        }
    };
}
as_word!(Transport { Tcp => "tcp", Udp => "udp" });
as_word!(Mode { Tcp => "tcp", Http => "http" });
as_word!(Status { Up => "up", Draining => "draining", Down => "down" });

/// A word that is none of those accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is none of {accepted:?}")]
pub struct UnknownWord {
    text: String,
    accepted: &'static [&'static str],
}

/// A share of the traffic relative to the pool's other backends, 0 (none) to 256, as HAProxy has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Weight(u16);

/// A weight outside 0 to 256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("weight {0} is not between 0 and 256")]
pub struct WeightError(u32);

impl Weight {
    /// The weight as a number, 0 to 256.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u32> for Weight {
    type Error = WeightError;
    fn try_from(weight: u32) -> Result<Self, WeightError> {
        u16::try_from(weight).ok().filter(|w| *w <= 256).map(Self).ok_or(WeightError(weight))
    }
}

impl From<Weight> for u32 {
    fn from(weight: Weight) -> Self {
        weight.0.into()
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One reachable host:port of a service. Serialized, it is the value of its key in etcd (`--value json`): Nerve's
/// object and ours, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Its name within the service.
    pub id: BackendId,
    /// Where it listens.
    pub host: Host,
    /// The port on `host`.
    pub port: Port,
    /// A name for people: Nerve's instance_id, the container's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Its share of the traffic; unset means 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
    /// Whatever the owner attached, in key order; shared between backends that say the same.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Arc<BTreeMap<String, String>>,
    /// TCP or UDP.
    pub transport: Transport,
    /// HTTP or plain TCP; unset leaves it to the reader's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The port on which clients expect the service (docker-register's `port` key).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_port: Option<Port>,
    /// Up, draining or down.
    pub status: Status,
    /// Words for HAProxy's server line, as Nerve passes them through; checked against an allow-list before use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub haproxy_server_options: Option<Arc<str>>,
    /// HAProxy's numeric id for the server, from 1, where the registration asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub haproxy_server_id: Option<u32>,
    /// Under which hosts and paths the HTTP edge reaches its service.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub routes: Routes,
    /// Under which names the edge passes TLS through to its service.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub sni: SniNames,
    /// What of its registration was left out alone, for people: routes that cannot be.
    #[serde(skip)]
    pub left_out: Option<Arc<str>>,
    /// The store's revision when it was registered, where the store has such: the lower one is the older.
    #[serde(skip)]
    pub created: Option<u64>,
    /// The number that its store gave it (ZooKeeper's sequence, an in-order key's index): the lowest leads.
    #[serde(skip)]
    pub sequence: Option<u64>,
    /// The registration as JSON, where its fields are to be handed on as they came.
    #[serde(skip)]
    pub raw: Option<Arc<str>>,
}

impl Backend {
    /// A backend that is up, speaks TCP, and says nothing else of itself.
    pub fn new(id: BackendId, host: Host, port: Port) -> Self {
        Self {
            id,
            host,
            port,
            name: None,
            weight: None,
            labels: no_labels(),
            transport: Transport::Tcp,
            mode: None,
            service_port: None,
            status: Status::Up,
            haproxy_server_options: None,
            haproxy_server_id: None,
            routes: Routes::default(),
            sni: SniNames::default(),
            left_out: None,
            created: None,
            sequence: None,
            raw: None,
        }
    }

    /// `host:port`, an IPv6 address in brackets.
    pub fn address(&self) -> String {
        self.host.with_port(self.port)
    }
}

/// The labels of whoever has none, once for all.
pub(super) fn no_labels() -> Arc<BTreeMap<String, String>> {
    static NONE: LazyLock<Arc<BTreeMap<String, String>>> = LazyLock::new(Arc::default);
    NONE.clone()
}
