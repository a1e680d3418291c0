//! Would HAProxy be able to bind this?
//!
//! A config that asks for a port which somebody else has passes `haproxy -c`, and its reload closes *every* listener for about two seconds
//! before HAProxy gives up (measured on 2.6.12, 3.0.11 and 3.2.0: some 1,000 refused connections at 500/s). So a new address is tried first.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpSocket;

use super::shortage::is_shortage;

/// Why an address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be bound: {reason}")]
pub struct BindRefusal {
    pub address: SocketAddr,
    pub reason: BindReason,
    pub source: io::Error,
}

/// What a refusal means to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindReason {
    /// Another process listens there.
    InUse,
    /// The address is not one of this host's.
    NotLocal,
    /// A low port without `CAP_NET_BIND_SERVICE`.
    Denied,
    /// Anything else.
    Other,
}

impl fmt::Display for BindReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InUse => "another program on this host listens there",
            Self::NotLocal => "it is not an address of this host",
            Self::Denied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
            Self::Other => "the system refuses it",
        })
    }
}

/// Tries to bind `address` for TCP, and lets go of it at once; nothing ever listens, so no client can connect by accident.
///
/// With `SO_REUSEADDR`, as HAProxy does it: connections in TIME_WAIT are no hindrance. Without `SO_REUSEPORT`, although HAProxy sets it:
/// sharing a port with a stranger's listener would split the clients between the two. The addresses that HAProxy itself has are taken, of
/// course: the caller leaves those out. Where no file descriptor is left to try with, nothing is known against the address.
pub fn bindable(address: SocketAddr) -> Result<(), BindRefusal> {
    let attempt = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    };
    let tried = attempt();
    if tried.as_ref().is_err_and(|error| is_shortage(error)) {
        return Ok(());
    }
    tried.map_err(|source| {
        let reason = match source.kind() {
            io::ErrorKind::AddrInUse => BindReason::InUse,
            io::ErrorKind::AddrNotAvailable => BindReason::NotLocal,
            io::ErrorKind::PermissionDenied => BindReason::Denied,
            _ => BindReason::Other,
        };
        BindRefusal { address, reason, source }
    })
}

/// The TCP addresses of the `bind` lines of a config, as far as they are written out: Unix sockets, port ranges, environment variables and
/// names are left out, since only HAProxy can tell what they come to.
pub fn tcp_binds(config: &str) -> BTreeSet<SocketAddr> {
    let lines = config.lines().map(|line| line.split('#').next().unwrap_or_default());
    let addresses = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("bind")).then(|| words.next()).flatten()
    });
    addresses.flat_map(|list| list.split(',')).filter_map(tcp_address).collect()
}

fn tcp_address(text: &str) -> Option<SocketAddr> {
    let (v6, text) = match text.split_once('@') {
        None => (false, text),
        Some(("ipv4", rest)) => (false, rest),
        Some(("ipv6", rest)) => (true, rest),
        Some(_) => return None, // unix@, fd@, quic4@, …
    };
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|p| *p > 0)?;
    let ip = match host {
        "" | "*" if v6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        "" | "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST), // Synapse's own default
        _ => host.trim_start_matches('[').trim_end_matches(']').parse().ok()?,
    };
    Some(SocketAddr::new(ip, port))
}

/// Test-binds what `new` binds and `old` does not: ports that `old` has on any address are HAProxy's own and left out.
///
/// # Errors
/// The first [`BindRefusal`].
pub fn new_binds_are_free(old: &str, new: &str) -> Result<(), BindRefusal> {
    let ours: BTreeSet<u16> = tcp_binds(old).iter().map(SocketAddr::port).collect();
    tcp_binds(new).into_iter().filter(|a| !ours.contains(&a.port())).try_for_each(bindable)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_that_somebody_listens_on_is_refused_and_free_again_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap();
        assert_eq!(bindable(taken).unwrap_err().reason, BindReason::InUse);
        let any: SocketAddr = format!("0.0.0.0:{}", taken.port()).parse().unwrap();
        assert_eq!(bindable(any).unwrap_err().reason, BindReason::InUse, "the wildcard covers it");
        drop(listener);
        bindable(taken).unwrap();
        bindable(taken).unwrap();
    }

    #[test]
    fn the_binds_of_a_config_are_read_as_haproxy_writes_them() {
        let config = "frontend f\n  bind :80\n bind *:81,127.0.0.1:82 name x # bind :99\n bind :::83\n bind [::1]:84 v6only\n bind ipv6@:85\n bind unix@/s\n bind /s\n bind :90-95\n bind \"$A:1\"\n bind host:1\n server bind :7\n";
        let found: Vec<String> = tcp_binds(config).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["0.0.0.0:80", "0.0.0.0:81", "127.0.0.1:82", "[::]:83", "[::]:85", "[::1]:84"]);
    }

    #[test]
    fn only_ports_that_are_new_are_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = format!("bind {}\n", listener.local_addr().unwrap());
        new_binds_are_free(&format!("bind *:{}", listener.local_addr().unwrap().port()), &line).unwrap();
        assert_eq!(new_binds_are_free("", &line).unwrap_err().reason, BindReason::InUse);
    }

    #[test]
    fn an_address_of_another_host_is_told_apart() {
        assert_eq!(bindable("192.0.2.1:18099".parse().unwrap()).unwrap_err().reason, BindReason::NotLocal);
    }
}
