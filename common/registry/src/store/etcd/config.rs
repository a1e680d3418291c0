//! Where etcd is and how to talk to it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use agent::telemetry::Masked;

/// etcd's client port.
pub const DEFAULT_PORT: u16 = 2379;

/// All that a connection needs.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// The servers; a call goes to one of them, and to the next when that one fails.
    pub endpoints: Vec<Endpoint>,
    /// Who to be; none where the store asks for none.
    pub credentials: Option<Credentials>,
    /// For endpoints with `https`.
    pub tls: Tls,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// The most that a listing may take in memory, in bytes; one above it fails, and what was known stays.
    pub listing_limit: usize,
    /// Whether members of the cluster that `endpoints` does not name are endpoints, too.
    pub discover_members: bool,
}

/// For the default of [`EtcdConfig::listing_limit`]: half a million backends with plenty of labels.
const LISTING_LIMIT: usize = 256 * 1024 * 1024;

impl EtcdConfig {
    /// The defaults for these endpoints.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            credentials: None,
            tls: Tls::default(),
            timeouts: Timeouts::default(),
            listing_limit: LISTING_LIMIT,
            discover_members: false,
        }
    }
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Whether to speak TLS.
    pub https: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// 1–65535.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    /// As a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl Endpoint {
    /// Whether it is of this host itself, and only from there.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    /// `host:port`, an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A user and its password; `Debug` keeps the password to itself.
#[derive(Clone)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// TLS settings. The files are read at each new connection, so that renewed certificates are taken up.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Authorities to trust, PEM; the system's where none is given.
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM; together with `key`.
    pub cert: Option<PathBuf>,
    /// Our key, PEM; together with `cert`.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must carry, where it is not the endpoint's host.
    pub server_name: Option<String>,
}

impl Tls {
    /// Whether anything is set: then an endpoint without a scheme means `https`.
    pub fn is_set(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || self.key.is_some() || self.server_name.is_some()
    }
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the answer to one call at one endpoint, the connection included. Keep it below a third of the lease's TTL.
    pub call: Duration,
    /// Between two HTTP/2 pings. Not below 5 s: etcd closes connections that ping more often.
    ///
    /// Source: etcd's default `--grpc-keepalive-min-time`.
    pub ping_interval: Duration,
    /// For the answer to a ping.
    pub ping: Duration,
    /// How long a stream of watches may be quiet before it is asked for a sign of life, and the store for its position: two
    /// requests. HTTP/2 pings find out sooner, and for nothing, that a server or the way to it is dead.
    pub probe: Duration,
    /// How long such a stream may be silent, asked or not, before it is opened anew.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self { call: secs(2), ping_interval: secs(5), ping: secs(2), probe: secs(30), idle: secs(35) }
    }
}

/// An endpoint that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no etcd endpoint: {why}")]
pub struct EndpointError {
    text: String,
    why: &'static str,
}

/// Reads a list of endpoints (ETCD_HOST): `host`, `host:port`, IPv6 addresses with or without brackets, and URLs,
/// separated by commas. `port` (ETCD_PORT) is for those without one, else 2379; `https` for those without a scheme.
///
/// # Errors
/// [`EndpointError`] names the first that cannot be understood; an empty list is one too.
pub fn parse_endpoints(text: &str, port: Option<u16>, https: bool) -> Result<Vec<Endpoint>, EndpointError> {
    let mut endpoints = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let wrong = |why| EndpointError { text: Masked(part).to_string(), why };
        let endpoint = parse_endpoint(part, port.unwrap_or(DEFAULT_PORT), https).map_err(wrong)?;
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    if endpoints.is_empty() {
        return Err(EndpointError { text: text.to_owned(), why: "nothing is named" });
    }
    Ok(endpoints)
}

fn parse_endpoint(text: &str, port: u16, https: bool) -> Result<Endpoint, &'static str> {
    let (https, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        Some(_) => return Err("only http and https are possible"),
        None => (https, text),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err("user and password are settings of their own");
    }
    if rest.contains(['/', '?', '#']) {
        return Err("a path is not possible");
    }
    let (host, port_text) = if let Some(inner) = rest.strip_prefix('[') {
        let (host, tail) = inner.split_once(']').ok_or("a bracket is not closed")?;
        Ipv6Addr::from_str(host).map_err(|_| "no IPv6 address in the brackets")?;
        match tail {
            "" => (host, None),
            _ => (host, Some(tail.strip_prefix(':').ok_or("only a port may follow the brackets")?)),
        }
    } else if Ipv6Addr::from_str(rest).is_ok() {
        (rest, None)
    } else {
        match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        }
    };
    let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    if host.is_empty() || !host.bytes().all(named) {
        return Err("the host is neither a name nor an address");
    }
    let port = match port_text {
        Some(text) => text.parse().map_err(|_| "the port is no number from 1 to 65535")?,
        None => port,
    };
    if port == 0 {
        return Err("the port is no number from 1 to 65535");
    }
    Ok(Endpoint { https, host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn urls(text: &str, port: Option<u16>) -> Vec<String> {
        parse_endpoints(text, port, false).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn hosts_ports_urls_and_lists_are_understood() {
        assert_eq!(urls("etcd", None), ["http://etcd:2379"]);
        assert_eq!(urls("etcd", Some(4001)), ["http://etcd:4001"]);
        assert_eq!(urls("etcd:1", Some(4001)), ["http://etcd:1"]);
        assert_eq!(urls("http://10.0.0.1", None), ["http://10.0.0.1:2379"]);
        assert_eq!(urls("HTTPS://etcd.example:443/", None), ["https://etcd.example:443"]);
        assert_eq!(urls(" a, b:2 ,,a:2379", None), ["http://a:2379", "http://b:2"]);
        assert_eq!(urls("::1", None), ["http://[::1]:2379"]);
        assert_eq!(
            urls("[::1],[::1]:5,http://[fe80::1]:7", None),
            ["http://[::1]:2379", "http://[::1]:5", "http://[fe80::1]:7"]
        );
        assert_eq!(parse_endpoints("a", None, true).unwrap()[0].to_string(), "https://a:2379");
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        for (text, why) in [
            ("", "nothing is named"),
            (" , ", "nothing is named"),
            ("unix:///x", "only http and https are possible"),
            ("a:0", "the port is no number from 1 to 65535"),
            ("a:65536", "the port is no number from 1 to 65535"),
            ("a:", "the port is no number from 1 to 65535"),
            ("http://u:p@a", "user and password are settings of their own"),
            ("http://a/v2", "a path is not possible"),
            ("[::1", "a bracket is not closed"),
            ("[a]:1", "no IPv6 address in the brackets"),
            ("[::1]1", "only a port may follow the brackets"),
            ("a b", "the host is neither a name nor an address"),
            (":1", "the host is neither a name nor an address"),
        ] {
            assert_eq!(parse_endpoints(text, None, false).unwrap_err().why, why, "{text:?}");
        }
        let error = parse_endpoints("http://u:s3cret@a", None, false).unwrap_err();
        assert!(error.to_string().contains("u:***@a"), "{error}");
        let error = parse_endpoints("good,bad host", None, false).unwrap_err();
        assert_eq!(error.to_string(), r#""bad host" is no etcd endpoint: the host is neither a name nor an address"#);
    }

    #[test]
    fn debug_output_hides_the_password() {
        let credentials = Credentials { user: "u".into(), password: "secret".into() };
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_reading_is_stable(text in "[ -~]{0,40}") {
            if let Ok(endpoints) = parse_endpoints(&text, None, false) {
                let again: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
                prop_assert_eq!(parse_endpoints(&again.join(","), None, false), Ok(endpoints));
            }
        }
    }
}
