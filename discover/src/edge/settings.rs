//! What the operator decides about the edge, checked.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use model::{HostPattern, Pattern, Port, Route, ServiceName};

use super::Way;
use crate::addresses::{Network, Unreadable, unreadable};

use agent::files::beside;

/// What the operator decides about the edge.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeSettings {
    /// Where plain HTTP is spoken.
    pub listen: EdgeListen,
    /// The port of HTTPS, where there are certificates, and to which clients are redirected.
    pub https_port: Port,
    /// Where TLS is passed through by the name that the client asks for; none: nowhere. On the port of HTTPS both share it.
    pub sni_port: Option<Port>,
    /// `<service>.<suffix>` is a host of every service that speaks HTTP.
    pub suffixes: Vec<HostPattern>,
    /// Hosts that only some services may claim.
    pub owners: Owners,
    /// What a claim to a host that is not listed there holds; `None`: as [`Ownership::Path`].
    pub ownership: Option<Ownership>,
    /// The operator's own rules; they come before everybody else's.
    pub rules: Vec<ConfigRule>,
    /// Empty sections that wait for services to come.
    pub spare_sections: usize,
    /// Proxies in front of us whose X-Forwarded-* headers are believed.
    pub trusted: Vec<Network>,
    /// Where the access log goes, one JSON object for each request.
    pub access_log: Option<LogTarget>,
    /// Goes into sticky cookies: edges with the same one send a client to the same backend.
    pub cookie_key: CookieKey,
    pub certificates: EdgeCertificates,
}

/// The certificates of HTTPS; without any there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EdgeCertificates {
    /// The operator's, files and directories.
    pub given: Vec<PathBuf>,
    /// The directory of our copies of them.
    pub copies: PathBuf,
}

impl From<Vec<PathBuf>> for EdgeCertificates {
    fn from(given: Vec<PathBuf>) -> Self {
        Self { given, copies: PathBuf::new() }
    }
}

impl EdgeSettings {
    /// The same with our copies of the certificates beside a haproxy.cfg.
    #[must_use]
    pub fn with_copies_beside(mut self, config: &Path) -> Self {
        let copies = beside(config, ".certificates");
        self.certificates.copies = std::path::absolute(&copies).unwrap_or(copies);
        self
    }

    /// The ports on which the edge listens.
    pub fn ports(&self) -> impl Iterator<Item = Port> {
        let https = self.https().filter(|_| !self.shares_port());
        std::iter::once(self.listen.port).chain(https).chain(self.sni_port)
    }

    /// What of clients is looked at.
    pub fn ways(&self) -> &'static [Way] {
        if self.sni_port.is_some() { &[Way::Http, Way::Sni] } else { &[Way::Http] }
    }

    /// The port of HTTPS, where there is one.
    pub fn https(&self) -> Option<Port> {
        (!self.certificates.given.is_empty()).then_some(self.https_port)
    }

    /// Whether two services that claim one place of `host` serve it together: where the operator says so of all hosts, or has given
    /// this one to both.
    pub fn share(&self, host: &HostPattern, one: &ServiceName, other: &ServiceName) -> bool {
        let given = || self.owners.name(host, one) && self.owners.name(host, other);
        self.ownership == Some(Ownership::Shared) || given()
    }

    /// Whether TLS that is passed through and TLS that ends here come to one port.
    pub fn shares_port(&self) -> bool {
        self.sni_port.is_some() && self.sni_port == self.https()
    }
}

impl Default for EdgeSettings {
    fn default() -> Self {
        Self {
            listen: EdgeListen { ip: None, port: Port::MIN.saturating_add(79) },
            https_port: Port::MIN.saturating_add(442),
            sni_port: None,
            suffixes: Vec::new(),
            owners: Owners::default(),
            ownership: None,
            rules: Vec::new(),
            spare_sections: 16,
            trusted: Vec::new(),
            access_log: None,
            cookie_key: CookieKey("discover".into()),
            certificates: EdgeCertificates::default(),
        }
    }
}

/// `[ADDRESS]:PORT`, or a port alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeListen {
    /// The address; none: those on which services listen.
    pub ip: Option<IpAddr>,
    pub port: Port,
}

impl FromStr for EdgeListen {
    type Err = Unreadable;
    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if let Ok(at) = text.parse::<SocketAddr>()
            && let Some(port) = Port::new(at.port())
        {
            return Ok(Self { ip: Some(at.ip()), port });
        }
        let port = text.strip_prefix("*:").or_else(|| text.strip_prefix(':')).unwrap_or(text);
        let port = port.parse().map_err(|_| unreadable(text, "an ADDRESS:PORT, :PORT or PORT"))?;
        Ok(Self { ip: None, port })
    }
}

/// What a claim to a host holds, where the config does not say whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ownership {
    /// The host and path claimed: other services may add other paths under the host.
    Path,
    /// The whole host.
    Host,
    /// Nothing: all services that claim a host and path serve it together.
    Shared,
}

/// A service's name, in which `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePattern(Pattern);

impl ServicePattern {
    /// Whether `service` is meant.
    pub fn covers(&self, service: &ServiceName) -> bool {
        self.0.covers(service.as_str())
    }
}

impl FromStr for ServicePattern {
    type Err = Unreadable;
    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let named = text.replace('*', "x").parse::<ServiceName>().is_ok();
        named.then(|| Self(text.into())).ok_or_else(|| unreadable(text, "a service's name, * standing for anything"))
    }
}

/// Hosts, and the services that may claim them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owners(BTreeMap<HostPattern, Vec<ServicePattern>>);

impl Owners {
    /// The hosts and their owners.
    pub fn new(of: BTreeMap<HostPattern, Vec<ServicePattern>>) -> Self {
        Self(of)
    }

    /// The hosts that are listed.
    pub fn hosts(&self) -> impl Iterator<Item = &HostPattern> {
        self.0.keys()
    }

    /// Whether the operator has given `host` itself, or a wildcard above it, to `service`.
    pub fn name(&self, host: &HostPattern, service: &ServiceName) -> bool {
        self.of(host).is_some_and(|of| of.iter().any(|pattern| pattern.covers(service)))
    }

    /// Whether `service` may claim `host`: the entry of that very name decides, else the longest wildcard above it; a host
    /// without either is anybody's.
    pub fn allow(&self, host: &HostPattern, service: &ServiceName) -> bool {
        self.of(host).is_none() || self.name(host, service)
    }

    /// Whose `host` is; `None`: anybody's.
    fn of(&self, host: &HostPattern) -> Option<&Vec<ServicePattern>> {
        let above = || {
            let name = host.wildcard().unwrap_or(host.as_str());
            let mut names = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
            names.find_map(|name| self.0.iter().find(|(listed, _)| listed.wildcard() == Some(name)).map(|(_, of)| of))
        };
        self.0.get(host).or_else(above)
    }
}

/// A rule of the operator's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRule {
    /// The service; it need not be there yet.
    pub service: ServiceName,
    /// What of a client is looked at; of TLS only the route's host counts.
    pub way: Way,
    /// Where, and what is done there.
    pub route: Route,
}

/// Where HAProxy logs to: `stdout`, `stderr`, a socket's path, or `address:port` of a syslog server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTarget(String);

impl FromStr for LogTarget {
    type Err = Unreadable;
    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let is_path = || {
            text.len() < 108
                && text.starts_with('/')
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b))
        };
        let known = matches!(text, "stdout" | "stderr") || text.parse::<SocketAddr>().is_ok() || is_path();
        let accepted = "stdout, stderr, the path of a socket, or ADDRESS:PORT of a syslog server";
        known.then(|| Self(text.to_owned())).ok_or_else(|| unreadable(text, accepted))
    }
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One word of letters, digits, `_`, `.` and `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieKey(String);

impl FromStr for CookieKey {
    type Err = Unreadable;
    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let good = (1..=64).contains(&text.len()) && text.bytes().all(word);
        good.then(|| Self(text.to_owned())).ok_or_else(|| unreadable(text, "1 to 64 letters, digits, _ . or -"))
    }
}

impl fmt::Display for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_listen_is_an_address_and_a_port_or_a_port() {
        let listen =
            |text: &str| text.parse::<EdgeListen>().ok().map(|l| (l.ip.map(|ip| ip.to_string()), l.port.get()));
        for text in ["80", ":80", "*:80"] {
            assert_eq!(listen(text), Some((None, 80)), "{text}");
        }
        assert_eq!(listen("[::1]:8080"), Some((Some("::1".into()), 8080)));
        for bad in ["", "0", ":0", "127.0.0.1:0", "a:80", "127.0.0.1", "80 ssl"] {
            assert_eq!(listen(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pattern_covers_whole_names() {
        let covers =
            |pattern: &str, name: &str| pattern.parse::<ServicePattern>().unwrap().covers(&name.parse().unwrap());
        assert!(covers("shop", "shop") && covers("shop-*", "shop-v2") && covers("*", "x") && covers("a*b*c", "aXbYbc"));
        assert!(!covers("shop", "shop2") && !covers("shop-*", "shop") && !covers("a*b*c", "ac") && !covers("a*a", "a"));
        assert!("shop;".parse::<ServicePattern>().is_err() && "".parse::<ServicePattern>().is_err());
    }

    #[test]
    fn the_most_specific_entry_says_who_owns_a_host() {
        let entry = |host: &str, of: &str| (host.parse().unwrap(), vec![of.parse().unwrap()]);
        let owners = Owners::new([entry("shop.example", "shop"), entry("*.shop.example", "sub")].into());
        let allow = |host: &str, service: &str| owners.allow(&host.parse().unwrap(), &service.parse().unwrap());
        assert!(allow("shop.example", "shop") && !allow("shop.example", "sub"));
        for host in ["a.shop.example", "b.a.shop.example", "*.shop.example", "*.a.shop.example"] {
            assert!(allow(host, "sub") && !allow(host, "shop"), "{host}");
        }
        assert!(allow("other.example", "x") && allow("*.example", "x"));
    }

    #[test]
    fn what_goes_into_haproxys_file_is_one_safe_word() {
        for bad in ["", "a b", "stdout\n", "/a;b", "host:514", "$X", "/a\"b"] {
            assert!(bad.parse::<LogTarget>().is_err() && bad.parse::<CookieKey>().is_err(), "{bad}");
        }
    }
}
