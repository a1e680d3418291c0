//! The addresses of `bind` lines.

use std::net::{IpAddr, SocketAddr};

use model::Port;

/// The addresses to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenOn {
    /// All, of both families where the host has IPv6.
    All {
        ipv6: bool,
    },
    These(Vec<IpAddr>),
}

impl ListenOn {
    /// All addresses, of the families that this host has.
    pub fn all() -> Self {
        Self::All { ipv6: std::net::TcpListener::bind("[::]:0").is_ok() }
    }

    /// `bind` lines for `port`, without the keyword.
    pub fn binds(&self, port: Port) -> Vec<String> {
        match self {
            Self::All { ipv6: true } => vec![format!(":::{port} v4v6")],
            Self::All { ipv6: false } => vec![format!("*:{port}")],
            Self::These(addresses) => addresses.iter().map(|a| SocketAddr::new(*a, port.get()).to_string()).collect(),
        }
    }

    /// The same as socket addresses, to try them.
    pub fn addresses(&self, port: Port) -> Vec<SocketAddr> {
        let any = |ip: &str| ip.parse::<IpAddr>().ok();
        let all = match self {
            Self::All { ipv6: true } => any("::").into_iter().collect(),
            Self::All { ipv6: false } => any("0.0.0.0").into_iter().collect(),
            Self::These(addresses) => addresses.clone(),
        };
        all.into_iter().map(|ip| SocketAddr::new(ip, port.get())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_cover_both_families_where_there_are_two() {
        let port = Port::new(80).unwrap();
        assert_eq!(ListenOn::All { ipv6: true }.binds(port), [":::80 v4v6"]);
        assert_eq!(
            ListenOn::These(vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()]).binds(port),
            ["[::1]:80", "127.0.0.1:80"]
        );
    }
}
