//! Whether a backend works, as seen from here: one try at a time. When to try again is [`crate::readiness`]'s part.
//!
//! A new kind of check is a file of its own and a variant of [`AnyCheck`].
//!
//! | module | passes when |
//! |---|---|
//! | [`tcp`](TcpCheck) | a connection is accepted |
//! | [`own_port`](OwnPort) | the container itself listens on a port of the host |
//! | [`http`](HttpProbe) | an HTTP or HTTPS request is answered as expected |
//! | [`grpc`](GrpcProbe) | `grpc.health.v1.Health/Check` answers SERVING |
//! | [`exec`](ExecProbe) | a command in the container ends with status 0 |
//! | [`local`](LocalProbe) | a command on this host ends with status 0 |
//! | [`redis`](RedisProbe) | PING is answered with PONG |
//! | [`amqp`](AmqpProbe) | a RabbitMQ server greets, and opens a connection where a user is given |
//!
//! The rule: a check dials the one address that it was made for, follows no redirection, and reads a bounded
//! part of the answer. Each try is a connection of its own: that somebody accepts is part of what is to be known.

mod amqp;
mod error;
mod exec;
mod grpc;
mod http;
mod local;
mod own_port;
mod redis;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

pub use amqp::AmqpProbe;
pub use error::CheckError;
pub use exec::ExecProbe;
pub use grpc::GrpcProbe;
pub use http::{HttpProbe, Phases};
pub use local::LocalProbe;
pub use own_port::OwnPort;
pub use redis::RedisProbe;
pub use tcp::TcpCheck;
use tls::TlsClient;

use crate::docker::Docker;
use model::desired::{CheckKind, ContainerId};

/// What one try came to.
#[derive(Debug)]
pub enum Outcome {
    /// It works.
    Pass,
    /// It does not work (yet).
    Fail(CheckError),
    /// It cannot be told from here: there is no way to its address.
    Unreachable(CheckError),
}

/// One way to find out whether a backend works.
pub trait Check: Send {
    /// Tries once; takes at most `timeout`. Cancel-safe.
    fn attempt(&self, timeout: Duration) -> impl Future<Output = Outcome> + Send;
}

/// The checks there are.
#[derive(Debug, Clone)]
pub enum AnyCheck {
    /// A connection is accepted.
    Tcp(TcpCheck),
    /// The container itself listens.
    OwnPort(OwnPort),
    /// A request is answered as expected.
    Http(Box<HttpProbe>),
    /// The health service answers SERVING.
    Grpc(Box<GrpcProbe>),
    /// A command in the container succeeds.
    Exec(ExecProbe),
    /// A command on this host succeeds.
    Local(LocalProbe),
    /// PING, PONG.
    Redis(RedisProbe),
    /// RabbitMQ greets.
    Amqp(AmqpProbe),
    /// Always passes.
    Noop,
    /// It cannot be run here, for this reason, and so it fails: a backend that its owner wants checked is not published
    /// unchecked.
    Impossible(String),
}

impl AnyCheck {
    /// The check that `kind` asks for, of container `container` at `address`. `None`: Docker runs it, not we.
    pub fn new(
        kind: &CheckKind,
        address: Option<SocketAddr>,
        container: &ContainerId,
        docker: Option<&Docker>,
    ) -> Option<Self> {
        Some(match (kind, address) {
            (CheckKind::Docker, _) => return None,
            (CheckKind::Noop, _) => Self::Noop,
            (CheckKind::Exec { command }, _) => match docker {
                Some(docker) => Self::Exec(ExecProbe::new(docker.clone(), container.clone(), command)),
                None => Self::Impossible("there is no Docker here to run a command".to_owned()),
            },
            (kind, Some(address)) => Self::on_host(kind, address, None),
            (_, None) => Self::Impossible("the container has no address of its own to dial".to_owned()),
        })
    }

    /// The check that `kind` asks for, of what listens at `address`, with no container behind it: a command runs on this
    /// host. `phases` are for http.
    pub fn on_host(kind: &CheckKind, address: SocketAddr, phases: Option<Phases>) -> Self {
        match kind {
            CheckKind::Docker => Self::Impossible("there is no container with a HEALTHCHECK".to_owned()),
            CheckKind::Noop => Self::Noop,
            CheckKind::Tcp => Self::Tcp(TcpCheck::new(address)),
            CheckKind::Http(spec) => Self::Http(Box::new(HttpProbe::new(address, spec).with_phases(phases))),
            CheckKind::Grpc { service, tls } => Self::Grpc(Box::new(GrpcProbe::new(address, service, tls.as_ref()))),
            CheckKind::Redis { password } => Self::Redis(RedisProbe::new(address, password.as_ref())),
            CheckKind::Rabbitmq { user, password, vhost } => {
                Self::Amqp(AmqpProbe::new(address, user.as_deref(), password.as_ref(), vhost))
            }
            CheckKind::Exec { command } => Self::Local(LocalProbe::new(command)),
        }
    }

    /// The shortest time from one try to the next: what costs a process is not to be had every millisecond.
    pub fn shortest_pause(&self) -> Duration {
        match self {
            Self::Exec(_) | Self::Local(_) => Duration::from_millis(250),
            Self::OwnPort(_) => Duration::from_millis(20), // it may read every process's descriptors
            _ => Duration::from_millis(1),
        }
    }
}

type Trying<'a> = Pin<Box<dyn Future<Output = Result<(), CheckError>> + Send + 'a>>;

impl Check for AnyCheck {
    async fn attempt(&self, timeout: Duration) -> Outcome {
        // In a box, so that 500 checks that wait for their next turn cost no room for a TLS handshake each.
        let trying: Trying<'_> = match self {
            Self::Tcp(check) => return check.attempt(timeout).await,
            Self::OwnPort(check) => return check.attempt(timeout).await,
            Self::Noop => return Outcome::Pass,
            Self::Impossible(why) => return Outcome::Fail(CheckError::Impossible(why.clone())),
            Self::Exec(check) => return check.attempt(timeout).await,
            Self::Local(check) => Box::pin(check.attempt()),
            Self::Http(check) => Box::pin(check.attempt()),
            Self::Grpc(check) => Box::pin(check.attempt()),
            Self::Redis(check) => Box::pin(check.attempt()),
            Self::Amqp(check) => Box::pin(check.attempt()),
        };
        match tokio::time::timeout(timeout, trying).await {
            Ok(Ok(())) => Outcome::Pass,
            Ok(Err(error)) if error.is_unreachable() => Outcome::Unreachable(error),
            Ok(Err(error)) => Outcome::Fail(error),
            Err(_) => Outcome::Fail(CheckError::Deadline { after: timeout }),
        }
    }
}
