//! Questions to name servers. No answer is kept here: each look asks, and says for how long the answer holds.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::sync::lock;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::time::timeout;

use crate::watchers::Fault;

/// How many targets of one SRV answer, or addresses of one name, are taken; more is no pool.
const MOST_RECORDS: usize = 10_000;

/// What can be asked of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Hosts and ports of a service.
    Srv,
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        })
    }
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    /// The name, as it was written.
    pub name: Arc<str>,
    /// What about it.
    pub kind: RecordKind,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Address(IpAddr),
    /// A host and port.
    Service {
        /// Lower ones come first; the others stand by.
        priority: u16,
        /// Its share among those of the same priority.
        weight: u16,
        port: u16,
        /// The host's name, without the root's dot.
        target: Arc<str>,
    },
}

/// Everything that was found, and for how long it holds. A name that is not there has an empty answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The records, in the answer's order.
    pub found: Vec<Found>,
    /// The shortest TTL.
    pub good_for: Option<Duration>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// /etc/resolv.conf.
    #[error("reading the system's name servers")]
    System(#[source] NetError),
    /// The name servers refuse, fail, or say nothing that can be read.
    #[error("asking for {question}")]
    Failed { question: Question, source: NetError },
    /// Nothing came in time.
    #[error("asking for {question}: no answer within {deadline:?}")]
    Late { question: Question, deadline: Duration },
    /// An answer that was cut off and could not be had whole.
    #[error("asking for {0}: the answer is cut off, and not to be had over TCP")]
    CutOff(Question),
    /// More records than any pool has backends.
    #[error("asking for {0}: more than {MOST_RECORDS} records")]
    TooMany(Question),
}

/// Name servers: those given, or the system's. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Resolver {
    servers: Arc<[SocketAddr]>,
    deadline: Duration,
    made: Arc<Mutex<Option<TokioResolver>>>,
}

/// Reads `nameserver`: addresses, each with a port or without.
///
/// # Errors
/// [`Fault`] naming what is none.
pub fn name_servers(texts: &[String]) -> Result<Vec<SocketAddr>, Fault> {
    let read = |text: &String| {
        let ip = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        ip.or_else(|_| text.parse())
            .map_err(|_| Fault::new("nameserver", format!("{text:?} is no IP address, nor one with a port")))
    };
    texts.iter().flat_map(|t| t.split(',')).map(|t| t.trim().to_owned()).map(|t| read(&t)).collect()
}

impl Resolver {
    /// These servers, or the system's where there are none; an answer may take until `deadline`. Nothing is read or asked yet.
    pub fn new(servers: &[SocketAddr], deadline: Duration) -> Self {
        Self { servers: servers.into(), deadline, made: Arc::default() }
    }

    /// Asks one question. Cancel-safe.
    ///
    /// # Errors
    /// [`AskError`]; that there is no such name is an answer.
    pub async fn ask(&self, question: &Question) -> Result<Answered, AskError> {
        let kind = match question.kind {
            RecordKind::A => RecordType::A,
            RecordKind::Aaaa => RecordType::AAAA,
            RecordKind::Srv => RecordType::SRV,
        };
        let resolver = self.resolver().map_err(AskError::System)?;
        let asked = timeout(self.deadline, resolver.lookup(&*question.name, kind)).await;
        let answer = match asked {
            Err(_) => Err(AskError::Late { question: question.clone(), deadline: self.deadline }),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none))))
                if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
            {
                let good_for = none.negative_ttl.map(|s| Duration::from_secs(s.into()));
                return Ok(Answered { found: Vec::new(), good_for });
            }
            Ok(Err(source)) => Err(AskError::Failed { question: question.clone(), source }),
            Ok(Ok(answer)) => Ok(answer),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // The system's servers may be others by now.
                if self.servers.is_empty() {
                    *self.lock() = None;
                }
                return Err(error);
            }
        };
        if answer.message().metadata.truncation {
            return Err(AskError::CutOff(question.clone()));
        }
        let records = answer.answers();
        if records.len() > MOST_RECORDS {
            return Err(AskError::TooMany(question.clone()));
        }
        let good_for = records.iter().map(|r| Duration::from_secs(r.ttl.into())).min();
        let found = records.iter().filter(|r| r.record_type() == kind).filter_map(|r| found(&r.data)).collect();
        Ok(Answered { found, good_for })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<TokioResolver>> {
        lock(&self.made)
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut made = self.lock();
        if let Some(resolver) = &*made {
            return Ok(resolver.clone());
        }
        let mut builder = match self.servers.is_empty() {
            true => TokioResolver::builder_tokio()?,
            false => {
                let servers = self.servers.iter().map(|server| {
                    let at = |mut connection: ConnectionConfig| {
                        connection.port = server.port();
                        connection
                    };
                    let both = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
                    NameServerConfig::new(server.ip(), true, both)
                });
                let config = ResolverConfig::from_name_servers(servers.collect());
                let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
                *builder.options_mut() = ResolverOpts::default();
                builder.options_mut().use_hosts_file = ResolveHosts::Never;
                builder
            }
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.timeout = self.deadline / 2;
        options.attempts = 1; // after the first
        let resolver = builder.build()?;
        *made = Some(resolver.clone());
        Ok(resolver)
    }
}

fn found(data: &RData) -> Option<Found> {
    match data {
        RData::A(a) => Some(Found::Address(a.0.into())),
        RData::AAAA(a) => Some(Found::Address(a.0.into())),
        RData::SRV(srv) => {
            let target = srv.target.to_utf8();
            let target: Arc<str> = target.trim_end_matches('.').into();
            // The root as target says that the service is not offered here (RFC 2782).
            let offered = !target.is_empty();
            let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
            offered.then_some(Found::Service { priority, weight, port, target })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_addresses() {
        let read = |texts: &[&str]| name_servers(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        let want: Vec<SocketAddr> =
            ["10.0.0.1:53", "[::1]:53", "[::1]:5", "10.0.0.2:5353"].map(|a| a.parse().unwrap()).into();
        assert_eq!(read(&["10.0.0.1, ::1", "[::1]:5", "10.0.0.2:5353"]), Ok(want));
        assert_eq!(read(&["ns.example"]).unwrap_err().key, "nameserver");
    }
}
