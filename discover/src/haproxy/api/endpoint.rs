//! Where a CLI of HAProxy's listens.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

/// A connection to either kind.
pub(super) type Stream = Either<UnixStream, TcpStream>;

/// Where a CLI listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl Endpoint {
    pub(super) async fn connect(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Unix(path) => Either::Left(UnixStream::connect(path).await?),
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Either::Right(stream)
            }
        })
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;
    /// Reads HAProxy's spellings: `/path`, `unix@/path`, `host:port`, `ipv4@host:port`, `ipv6@[::1]:port`.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let bad = || EndpointError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix@").or_else(|| text.starts_with('/').then_some(text)) {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        let address = text.strip_prefix("ipv4@").or_else(|| text.strip_prefix("ipv6@")).unwrap_or(text);
        let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
        match port.parse::<u16>() {
            Ok(port) if port > 0 && !host.is_empty() && !address.contains('@') => Ok(Self::Tcp(address.to_owned())),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

/// The text names no socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither the path of a socket nor host:port")]
pub struct EndpointError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_in_haproxys_spellings() {
        let unix = Endpoint::Unix("/run/h.sock".into());
        assert_eq!("/run/h.sock".parse::<Endpoint>().unwrap(), unix);
        assert_eq!("unix@/run/h.sock".parse::<Endpoint>().unwrap(), unix);
        for text in ["localhost:99", "ipv4@127.0.0.1:99", "ipv6@[::1]:99"] {
            assert!(matches!(text.parse::<Endpoint>().unwrap(), Endpoint::Tcp(_)), "{text}");
        }
        for text in ["", "unix@", "localhost", "host:0", "host:x", ":99", "fd@3:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
