//! The admin server and what asks it.
//!
//! | part | what it does |
//! |---|---|
//! | [`AdminServer`] | GET only: `/`, `/metrics`, `/live`, `/ready`, `/status`, `/events`, and routes of the agent's own |
//! | [`access`] | who may read: a token, TLS |
//! | `hosts` | under which names it answers |
//! | `deadline` | ends a connection whose client does not read |
//! | [`client`] | the command `status` |
//! | [`control`] | a Unix socket for what changes something |
//! | [`render`] | a status as text for people |
//! | `vitals` | the metrics that Prometheus expects of any program |
//!
//! # The form of a status
//! A JSON object that page and command show without knowing the agent: a scalar at the top goes to the overview, an object becomes a table
//! of keys and values, an array of objects (or an object of objects) a table whose columns are the union of their keys. The end of a key
//! tells the unit: `_unix_ms` a moment (shown as an age), `_ms` a duration, `_bytes` a size. Of strings, the words for states
//! (`up`, `synced`, `stale`, `held`, …) are coloured.

pub mod access;
#[cfg(test)]
mod access_tests;
pub mod client;
pub mod control;
mod deadline;
mod hosts;
pub mod render;
mod routes;
mod server;
#[cfg(test)]
mod server_tests;
mod vitals;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde_json::Value;

pub use server::{AdminError, AdminServer, Bound};

/// What an agent tells about itself. Called for each request: it must not block.
pub trait StatusSource: Send + Sync {
    /// Brings up to date what is asked of somebody else, such as a load balancer. Called before something is shown: it may wait for seconds, and asks at most
    /// once a second, however many look.
    fn refresh(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// How often a viewer is shown what [`refresh`](Self::refresh) brings; never, if it brings nothing.
    fn period(&self) -> Option<Duration> {
        None
    }
    /// A JSON object; see the module for its form. No secrets: everybody who reaches the port can read it.
    fn status(&self) -> Value;
    /// What the page shows: the status, unless the agent has more or less for it. Such as the status.
    fn page(&self) -> Value {
        self.status()
    }
    /// The page's own script, which draws what [`page`](Self::page) gives: see `page.js`. Without one the page shows a table for each part.
    fn script(&self) -> &'static str {
        ""
    }
    /// The host's name, for the page's title.
    fn host(&self) -> String {
        nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
    /// What runs, as `--version` prints it: `1.2.3 (commit day)`.
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
    /// Whether the process can still do its work; `false` asks to be restarted.
    fn live(&self) -> bool;
    /// Whether it does its work now; else why not.
    ///
    /// # Errors
    /// [`Unready`], with a reason of [`StatusSource::reasons`].
    fn ready(&self) -> Result<(), Unready>;
    /// The reasons for which it may be not ready: the labels of the metric `not_ready`.
    fn reasons(&self) -> &'static [&'static str];
}

/// Why an agent does not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unready {
    /// One word of a closed set, for programs.
    pub reason: &'static str,
    /// The thing and the cause, for a person, such as "etcd at e1 has not answered yet".
    pub detail: String,
}

impl Unready {
    /// For that reason.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// Where the admin server listens (`--admin`): an address with a port, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Not at all.
    Off,
    /// Here; port 0 takes a free one.
    At(SocketAddr),
}

impl Listen {
    /// The address, if there is one.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }

    /// Where somebody on this host asks: an address for all interfaces is reached over loopback, too.
    pub fn seen_from_here(self) -> Option<SocketAddr> {
        let Self::At(mut address) = self else { return None };
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Some(address)
    }
}

/// Neither an address with a port nor `off`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is neither ADDRESS:PORT (such as 127.0.0.1:9180 or [::1]:9180) nor off")]
pub struct ListenError(String);

impl FromStr for Listen {
    type Err = ListenError;
    fn from_str(text: &str) -> Result<Self, ListenError> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| ListenError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_is_an_address_or_off() {
        assert_eq!("off".parse(), Ok(Listen::Off));
        assert_eq!("127.0.0.1:9180".parse(), Ok(Listen::At(([127, 0, 0, 1], 9180).into())));
        assert!(matches!("[::1]:9180".parse(), Ok(Listen::At(a)) if a.is_ipv6()));
        for bad in ["", "9180", "localhost:9180", "127.0.0.1", "Off"] {
            assert_eq!(bad.parse::<Listen>(), Err(ListenError(bad.to_owned())));
        }
        let here = |text: &str| text.parse::<Listen>().unwrap().seen_from_here().map(|address| address.to_string());
        assert_eq!(here("0.0.0.0:9180").as_deref(), Some("127.0.0.1:9180"));
        assert_eq!(here("[::]:1").as_deref(), Some("[::1]:1"));
        assert_eq!(here("10.0.0.1:1").as_deref(), Some("10.0.0.1:1"));
        assert_eq!(here("off"), None);
    }
}
