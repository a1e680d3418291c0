//! Where etcd is, as flags and environment: the same for both programs.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::config::{Credentials, EndpointError, EtcdConfig, Timeouts, Tls, parse_endpoints};
use model::Prefix;

/// Flags that say where etcd is and how to reach it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "etcd")]
pub struct EtcdArgs {
    /// etcd's servers: host, host:port or URL; several separated by commas
    #[arg(long, env = "ETCD_HOST", value_name = "LIST", default_value = "127.0.0.1")]
    pub etcd_host: String,
    /// Port of servers that are given without one [default: 2379]
    #[arg(long, env = "ETCD_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub etcd_port: Option<u16>,
    /// Key prefix under which backends lie; /registrars is its sibling
    #[arg(long, env = "ETCD_PREFIX", value_name = "PATH", default_value = "/backends")]
    pub etcd_prefix: Prefix,
    /// etcd user
    #[arg(long, env = "ETCD_USER", value_name = "NAME", requires = "password")]
    pub etcd_user: Option<String>,
    /// Its password (better by environment or file: a command line is visible to everybody on the host)
    #[arg(long, env = "ETCD_PASSWORD", value_name = "TEXT", hide_env_values = true, group = "password")]
    pub etcd_password: Option<String>,
    /// File that holds the password; read once, at the start
    #[arg(long, env = "ETCD_PASSWORD_FILE", value_name = "FILE", group = "password")]
    pub etcd_password_file: Option<PathBuf>,
    /// Certificate authorities for TLS, PEM [default: the system's]
    #[arg(long, env = "ETCD_CA_FILE", value_name = "FILE")]
    pub etcd_ca: Option<PathBuf>,
    /// Client certificate for TLS, PEM
    #[arg(long, env = "ETCD_CERT_FILE", value_name = "FILE", requires = "etcd_key")]
    pub etcd_cert: Option<PathBuf>,
    /// The client certificate's key, PEM
    #[arg(long, env = "ETCD_KEY_FILE", value_name = "FILE", requires = "etcd_cert")]
    pub etcd_key: Option<PathBuf>,
    /// Name that the server's certificate must carry, where it is not the host given
    #[arg(long, env = "ETCD_SERVER_NAME", value_name = "NAME")]
    pub etcd_server_name: Option<String>,
    /// Use also the members of the cluster that --etcd-host does not name, by their advertised client URLs
    #[arg(long, env = "ETCD_DISCOVER_MEMBERS")]
    pub etcd_discover_members: bool,
}

/// Why the flags make no connection.
#[derive(Debug, thiserror::Error)]
pub enum EtcdArgsError {
    /// An endpoint cannot be understood.
    #[error("reading --etcd-host (ETCD_HOST)")]
    Endpoint(#[from] EndpointError),
    /// A password without a user is nobody's.
    #[error(
        "--etcd-password (ETCD_PASSWORD) is given without --etcd-user (ETCD_USER): name the user, or leave the password out"
    )]
    NoUser,
    /// The password's file cannot be read.
    #[error("reading --etcd-password-file {}", path.display())]
    Password { path: PathBuf, source: io::Error },
}

impl EtcdArgs {
    /// The settings that the flags stand for. Reads the password's file; the certificates are read when connecting.
    ///
    /// # Errors
    /// [`EtcdArgsError`], a usage error.
    pub fn config(&self) -> Result<EtcdConfig, EtcdArgsError> {
        let tls = Tls {
            ca: self.etcd_ca.clone(),
            cert: self.etcd_cert.clone(),
            key: self.etcd_key.clone(),
            server_name: self.etcd_server_name.clone(),
        };
        let endpoints = parse_endpoints(&self.etcd_host, self.etcd_port, tls.is_set())?;
        let password = match (&self.etcd_password, &self.etcd_password_file) {
            (Some(password), _) => Some(password.clone()),
            (None, Some(path)) => {
                let text = fs::read_to_string(path)
                    .map_err(|source| EtcdArgsError::Password { path: path.clone(), source })?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            (None, None) => None,
        };
        if password.is_some() && self.etcd_user.is_none() {
            return Err(EtcdArgsError::NoUser);
        }
        let credentials = self.etcd_user.clone().zip(password).map(|(user, password)| Credentials { user, password });
        let discover_members = self.etcd_discover_members;
        Ok(EtcdConfig { credentials, tls, discover_members, ..EtcdConfig::new(endpoints) })
    }

    /// As [`Self::config`], for an agent whose lease lives `ttl`: no call may take longer than the time between beats.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub fn config_for_lease(&self, ttl: Duration) -> Result<EtcdConfig, EtcdArgsError> {
        let mut config = self.config()?;
        config.timeouts.call = Timeouts::default().call.min(ttl / 3);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        etcd: EtcdArgs,
    }

    fn parse(args: &[&str]) -> Result<EtcdArgs, clap::Error> {
        Cli::try_parse_from(["x"].iter().chain(args)).map(|cli| cli.etcd)
    }

    #[test]
    fn a_certificate_means_https_and_a_password_comes_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "a b\n").unwrap();
        let file = file.to_str().unwrap();
        let args = ["--etcd-host=e1,e2:9", "--etcd-ca=/ca", "--etcd-user=u", "--etcd-password-file", file];
        let config = parse(&args).unwrap().config_for_lease(Duration::from_secs(3)).unwrap();
        let urls: Vec<_> = config.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(urls, ["https://e1:2379", "https://e2:9"]);
        assert_eq!(config.credentials.unwrap().password, "a b");
        assert_eq!(config.timeouts.call, Duration::from_secs(1));
    }

    #[test]
    fn half_a_setting_is_refused() {
        for args in [["--etcd-user=u"], ["--etcd-cert=/c"], ["--etcd-key=/k"], ["--etcd-port=0"], ["--etcd-prefix=/"]] {
            assert!(parse(&args).is_err(), "{args:?}");
        }
        let nobodys = parse(&["--etcd-password=p"]).unwrap().config().unwrap_err();
        assert!(nobodys.to_string().contains("ETCD_USER"), "{nobodys}");
        let error = parse(&["--etcd-host=http://h/path"]).unwrap().config().unwrap_err();
        assert_eq!(error.to_string(), "reading --etcd-host (ETCD_HOST)");
    }
}
