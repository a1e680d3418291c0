//! What a check is to do, as labels and environment ask for it. Running it is `checks`' part.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::Port;

/// One check of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckSpec {
    /// What to try.
    pub kind: CheckKind,
    /// The port inside the container to dial, where it is not the backend's own (`check.port`).
    pub port: Option<Port>,
    /// From the start of one try to the start of the next.
    pub interval: Duration,
    /// How long one try may take; at most the interval.
    pub timeout: Duration,
    /// How many passes in a row make it healthy, at least 1.
    pub rise: u32,
    /// How many failures in a row make it unhealthy, at least 1.
    pub fall: u32,
    /// For how long after the container's start failures do not count.
    pub start_period: Duration,
    /// By how much at most a try comes early or late, so that checks do not march in step; at most half the interval.
    pub jitter: Duration,
}

impl CheckSpec {
    /// A check with the defaults: every 2 s (give or take a tenth), 1 s for one try, one pass to rise, two failures to
    /// fall.
    pub fn new(kind: CheckKind) -> Self {
        Self {
            kind,
            port: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 2,
            start_period: Duration::ZERO,
            jitter: Duration::from_millis(200),
        }
    }
}

/// What a check tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// The container's own HEALTHCHECK.
    Docker,
    /// A connection is accepted.
    Tcp,
    /// An HTTP or HTTPS request is answered as expected.
    Http(Box<HttpCheck>),
    /// `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// The service asked about; empty: the whole server.
        service: String,
        /// Over TLS, or in the clear.
        tls: Option<PeerTls>,
    },
    /// A command inside the container ends with status 0.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// Redis answers PING with PONG (or, without the password it wants, NOAUTH).
    Redis {
        /// For AUTH.
        password: Option<Secret>,
    },
    /// An AMQP 0-9-1 server greets, and opens a connection where a user is given.
    Rabbitmq {
        /// The user to log in as.
        user: Option<String>,
        /// That user's password.
        password: Option<Secret>,
        /// The virtual host to open.
        vhost: String,
    },
    /// Always passes.
    Noop,
}

impl CheckKind {
    /// The word by which a label asks for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Tcp => "tcp",
            Self::Http(http) if http.tls.is_some() => "https",
            Self::Http(_) => "http",
            Self::Grpc { .. } => "grpc",
            Self::Exec { .. } => "exec",
            Self::Redis { .. } => "redis",
            Self::Rabbitmq { .. } => "rabbitmq",
            Self::Noop => "noop",
        }
    }
}

/// A text that is never shown: no log, no JSON, no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// How a backend's certificate is judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PeerTls {
    /// PEM file of the authority to trust, on the agent's disk; the system's otherwise.
    pub ca: Option<PathBuf>,
    /// The name in the handshake and in the certificate; otherwise the request's host, or the dialled address.
    pub sni: Option<String>,
    /// The certificate is not verified.
    pub insecure: bool,
}

/// A request and the answer it must get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpCheck {
    /// HTTPS, or HTTP.
    pub tls: Option<PeerTls>,
    /// An HTTP token, upper case.
    pub method: String,
    /// Path and query, beginning with a slash.
    pub path: String,
    /// The Host header; the dialled address otherwise.
    pub host: Option<String>,
    /// More request headers, in the order given; names are tokens, values hold no control characters. A value may be a
    /// password or a token.
    pub headers: Vec<(String, Secret)>,
    /// The status codes that pass.
    pub status: StatusSet,
    /// What the answer's body (its first 64 kB) must contain.
    pub body: Option<String>,
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            tls: None,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            headers: Vec::new(),
            status: StatusSet::default(),
            body: None,
        }
    }
}

/// Status codes, as ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl Default for StatusSet {
    /// 200 to 399, as HAProxy's and Nerve's checks have it.
    fn default() -> Self {
        Self(vec![200..=399])
    }
}

impl StatusSet {
    /// Whether a code is among them.
    pub fn contains(&self, code: u16) -> bool {
        self.0.iter().any(|range| range.contains(&code))
    }

    /// Reads `200`, `200-299`, `2xx`, and comma lists of them.
    pub fn parse(text: &str) -> Option<Self> {
        let code = |text: &str| text.parse::<u16>().ok().filter(|code| (100..=599).contains(code));
        let part = |part: &str| {
            let part = part.trim();
            if let Some(class) = part.strip_suffix("xx") {
                let class = class.parse::<u16>().ok().filter(|class| (1..=5).contains(class))?;
                return Some(class * 100..=class * 100 + 99);
            }
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let range = code(from)?..=code(to)?;
            (!range.is_empty()).then_some(range)
        };
        text.split(',').map(part).collect::<Option<Vec<_>>>().map(Self)
    }
}
