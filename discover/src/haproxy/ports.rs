//! Would HAProxy be able to bind this?
//!
//! A config that asks for a port which somebody else has passes `haproxy -c`, and its reload closes *every* listener for about two seconds
//! before HAProxy gives up (measured on 2.6.12, 3.0.11 and 3.2.0: some 1,000 refused connections at 500/s). So a new address is tried first.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// Why an address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be bound: {reason}")]
pub struct BindRefusal {
    /// The address.
    pub address: SocketAddr,
    /// What it means.
    pub reason: BindReason,
    /// The system's answer.
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
            Self::InUse => "another process listens there",
            Self::NotLocal => "it is not an address of this host",
            Self::Denied => "permission denied",
            Self::Other => "the system refuses it",
        })
    }
}

/// Tries to bind `address` for TCP, and lets go of it at once; nothing ever listens, so no client can connect by accident.
///
/// With `SO_REUSEADDR`, as HAProxy does it: connections in TIME_WAIT are no hindrance. Without `SO_REUSEPORT`, although HAProxy sets it:
/// sharing a port with a stranger's listener would split the clients between the two. The addresses that HAProxy itself has are taken, of
/// course: the caller leaves those out.
///
/// # Errors
/// [`BindRefusal`].
pub fn bindable(address: SocketAddr) -> Result<(), BindRefusal> {
    let attempt = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    };
    attempt().map_err(|source| {
        let reason = match source.kind() {
            io::ErrorKind::AddrInUse => BindReason::InUse,
            io::ErrorKind::AddrNotAvailable => BindReason::NotLocal,
            io::ErrorKind::PermissionDenied => BindReason::Denied,
            _ => BindReason::Other,
        };
        BindRefusal { address, reason, source }
    })
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
    fn an_address_of_another_host_is_told_apart() {
        assert_eq!(bindable("192.0.2.1:18099".parse().unwrap()).unwrap_err().reason, BindReason::NotLocal);
    }
}
