//! A connection is accepted.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Check, CheckError, Outcome};

/// Connects, and hangs up at once.
#[derive(Debug, Clone, Copy)]
pub struct TcpCheck {
    address: SocketAddr,
}

impl TcpCheck {
    /// Dials `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }
}

impl Check for TcpCheck {
    async fn attempt(&self, timeout: Duration) -> Outcome {
        let address = self.address;
        match tokio::time::timeout(timeout, connect(address)).await {
            Err(_) => Outcome::Unreachable(CheckError::Silent { address, after: timeout }),
            Ok(Ok(_)) => Outcome::Pass,
            Ok(Err(error)) if error.is_unreachable() => Outcome::Unreachable(error),
            Ok(Err(error)) => Outcome::Fail(error),
        }
    }
}

/// A connection to `address`.
pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, CheckError> {
    match TcpStream::connect(address).await {
        // A port of this host in the ephemeral range, dialled again and again, is one day answered by the dialling
        // socket itself (TCP's simultaneous open).
        Ok(stream) if stream.local_addr().ok() == Some(address) => {
            Err(CheckError::Connect { address, source: ErrorKind::ConnectionRefused.into() })
        }
        Ok(stream) => Ok(stream),
        Err(source) => Err(CheckError::Connect { address, source }),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const WAIT: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn a_port_passes_while_somebody_listens_on_either_family() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).await.unwrap();
            let address = listener.local_addr().unwrap();
            let check = TcpCheck::new(address);
            assert!(matches!(check.attempt(WAIT).await, Outcome::Pass));
            drop(listener);
            let Outcome::Fail(error) = check.attempt(WAIT).await else { panic!("nobody listens any more") };
            assert_eq!(error.to_string(), format!("connecting to {address}"));
        }
    }

    #[tokio::test]
    async fn an_address_without_a_route_is_unreachable() {
        // A multicast group takes no TCP connection: the kernel refuses to route it, and no packet leaves.
        let check = TcpCheck::new("224.0.0.1:80".parse().unwrap());
        assert!(matches!(check.attempt(WAIT).await, Outcome::Unreachable(_)));
    }
}
