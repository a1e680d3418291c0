//! Where the daemon listens: `DOCKER_HOST`, `DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH`, Docker contexts, or the usual sockets.

use std::fmt;
use std::path::{Path, PathBuf};

use agent::telemetry::Masked;

/// The daemon's usual socket.
const SOCKET: &str = "/var/run/docker.sock";
/// Where Registrator's users mount it.
const REGISTRATORS_SOCKET: &str = "/tmp/docker.sock";

/// Where the daemon listens, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// TCP, or a socket proxy; a base such as `http://10.0.0.1:2375` without a slash at its end.
    Http {
        /// Scheme, host, port and path.
        base: String,
        /// The directory with `ca.pem`, `cert.pem` and `key.pem`; `None`: plain HTTP, or HTTPS with the system's authorities.
        certificates: Option<PathBuf>,
    },
}

/// An endpoint that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={text:?} is not {accepted}")]
pub struct EndpointError {
    variable: &'static str,
    text: String,
    accepted: &'static str,
}

impl Endpoint {
    /// Where the environment says the daemon is; `get` reads one variable. Without `DOCKER_HOST`: the context that
    /// `DOCKER_CONTEXT` names (its file is read), else `/var/run/docker.sock`, else `/tmp/docker.sock` where only that is there.
    ///
    /// # Errors
    /// [`EndpointError`] naming the variable and what it takes.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, EndpointError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let home = get("HOME").map(PathBuf::from).unwrap_or_default();
        let certificates = get("DOCKER_TLS_VERIFY")
            .map(|_| get("DOCKER_CERT_PATH").map_or_else(|| home.join(".docker"), PathBuf::from));
        if let Some(host) = get("DOCKER_HOST") {
            return Self::parse(&host, certificates);
        }
        if let Some(name) = get("DOCKER_CONTEXT").filter(|name| name != "default") {
            let root = get("DOCKER_CONFIG").map_or_else(|| home.join(".docker"), PathBuf::from);
            let found = super::context::host(&root, &name);
            return found.and_then(|(host, certificates)| Self::parse(&host, certificates).ok()).ok_or(EndpointError {
                variable: "DOCKER_CONTEXT",
                text: name,
                accepted: "the name of a context with a Docker endpoint (docker context ls)",
            });
        }
        let first = [SOCKET, REGISTRATORS_SOCKET].into_iter().find(|path| Path::new(path).exists());
        Ok(Self::Unix(first.unwrap_or(SOCKET).into()))
    }

    /// Reads `unix:///path`, `tcp://host:port`, `http://…`, `https://…`. With `certificates`, `tcp` is TLS.
    ///
    /// # Errors
    /// [`EndpointError`] for anything else.
    pub fn parse(host: &str, certificates: Option<PathBuf>) -> Result<Self, EndpointError> {
        let error = || EndpointError {
            variable: "DOCKER_HOST",
            text: Masked(host).to_string().chars().take(200).collect(),
            accepted: "unix:///path, tcp://host:port, http://host:port or https://host:port",
        };
        let (scheme, rest) = host.split_once("://").ok_or_else(error)?;
        let rest = rest.trim_end_matches('/');
        let scheme = match scheme {
            "unix" if rest.starts_with('/') => return Ok(Self::Unix(rest.into())),
            "tcp" if certificates.is_some() => "https",
            "tcp" | "http" => "http",
            "https" => "https",
            _ => return Err(error()),
        };
        let default = if scheme == "https" { 2376 } else { 2375 };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = if has_port { String::new() } else { format!(":{default}") };
        let base = format!("{scheme}://{authority}{port}{path}");
        let url: hyper::Uri = base.parse().map_err(|_| error())?;
        if url.host().is_none_or(str::is_empty) {
            return Err(error());
        }
        Ok(Self::Http { base, certificates: certificates.filter(|_| scheme == "https") })
    }

    /// The daemon runs on this host, so its clock is ours.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Http { base, .. } => write!(f, "{}", Masked(base)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Endpoint, EndpointError> {
        Endpoint::from_env(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn docker_host_is_read_as_dockers_own_client_reads_it() {
        for (host, shown) in [
            ("unix:///run/podman/podman.sock", "unix:///run/podman/podman.sock"),
            ("tcp://10.0.0.1:2375", "http://10.0.0.1:2375"),
            ("tcp://[::1]:2375", "http://[::1]:2375"),
            ("tcp://[::1]", "http://[::1]:2375"),
            ("tcp://host", "http://host:2375"),
            ("http://proxy:80/docker/", "http://proxy:80/docker"),
            ("https://host", "https://host:2376"),
            ("https://me:s3cret@host", "https://me:***@host:2376"),
        ] {
            assert_eq!(from(&[("DOCKER_HOST", host)]).unwrap().to_string(), shown);
        }
        let tls = from(&[("DOCKER_HOST", "tcp://h:2376"), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/c")]);
        assert_eq!(
            tls,
            Ok(Endpoint::Http { base: "https://h:2376".into(), certificates: Some("/c".into()) }),
            "DOCKER_TLS_VERIFY makes tcp TLS"
        );
        for bad in ["10.0.0.1:2375", "unix://run/x", "ssh://host", "tcp://", "tcp://a b", "npipe:////./pipe/x"] {
            let error = from(&[("DOCKER_HOST", bad)]).unwrap_err().to_string();
            assert!(error.starts_with("DOCKER_HOST=") && error.contains("unix:///path"), "{error}");
        }
        assert!(from(&[("DOCKER_CONTEXT", "no-such"), ("HOME", "/nowhere")]).is_err());
    }
}
