//! Flags of the HTTP edge, and its config file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::config::files::read_object;
use clap::Args;
use model::{HostPattern, Port};

use super::Failure;
use crate::addresses::Network;
use crate::edge::EdgeSettings;
use crate::edge::settings::{CookieKey, EdgeListen, LogTarget, Ownership};
use crate::synapse::{ConfigError, Report, check, edge, keys};

/// The HTTP edge.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP edge")]
pub struct EdgeArgs {
    /// Route HTTP by host and path to services, on this port and address [without a value: :80]
    #[arg(long = "edge", env = "DISCOVER_EDGE", value_name = "[ADDRESS]:PORT", num_args = 0..=1, default_missing_value = ":80")]
    edge_listen: Option<EdgeListen>,
    /// YAML or JSON with the keys of the config's section `edge`: owners of hosts, rules, and the rest; flags come before it
    #[arg(long, env = "DISCOVER_EDGE_CONFIG", value_name = "FILE")]
    edge_config: Option<PathBuf>,
    /// Every service that speaks HTTP has the host SERVICE.SUFFIX
    #[arg(long = "edge-suffix", env = "DISCOVER_EDGE_SUFFIX", value_name = "SUFFIX", value_delimiter = ',')]
    suffixes: Vec<HostPattern>,
    /// What the first claim to a host holds: its path, the whole host, or nothing, so that all who claim a place serve it together [default: path, with --docker shared]
    #[arg(long = "edge-ownership", env = "DISCOVER_EDGE_OWNERSHIP", value_name = "WHAT", value_enum)]
    ownership: Option<Ownership>,
    /// Empty sections of haproxy.cfg for services to come: as many need no reload; from HAProxy 3.4 on for sticky services only [default: 16]
    #[arg(long, env = "DISCOVER_SPARE_SECTIONS", value_name = "N", value_parser = clap::value_parser!(u16).range(0..=4096))]
    spare_sections: Option<u16>,
    /// Proxies in front of the edge whose X-Forwarded-* headers are believed: addresses and networks
    #[arg(long = "edge-trust", env = "DISCOVER_EDGE_TRUST", value_name = "NETWORKS", value_delimiter = ',')]
    trusted: Vec<Network>,
    /// Where one JSON object for each request goes: stdout, stderr, a socket's path, or ADDRESS:PORT of a syslog server
    #[arg(long = "edge-access-log", env = "DISCOVER_EDGE_ACCESS_LOG", value_name = "TARGET")]
    access_log: Option<LogTarget>,
    /// Goes into sticky cookies: edges with the same one send a client to the same backend [default: discover]
    #[arg(long = "edge-cookie-key", env = "DISCOVER_EDGE_COOKIE_KEY", value_name = "WORD")]
    cookie_key: Option<CookieKey>,
    /// Certificates with their keys, for HTTPS by SNI on port 443 (https_port in --edge-config): files and directories
    #[arg(long = "edge-certs", env = "DISCOVER_EDGE_CERTS", value_name = "PATHS", value_delimiter = ',')]
    certificates: Vec<PathBuf>,
    /// Pass TLS through, by SNI, to services that ask for it; on the port of HTTPS both share it [without a value: 443]
    #[arg(long = "edge-sni", env = "DISCOVER_EDGE_SNI", value_name = "PORT", num_args = 0..=1, default_missing_value = "443")]
    sni: Option<Port>,
}

impl EdgeArgs {
    /// The edge's settings, where there is to be one.
    ///
    /// # Errors
    /// [`Failure::Usage`] with everything that is wrong with the file, or a flag that means nothing without `--edge`.
    pub fn settings(&self) -> Result<Option<Arc<EdgeSettings>>, Failure> {
        let from_file = self.edge_config.as_deref().map(read).transpose()?;
        let mut edge = match (from_file, self.edge_listen) {
            (Some(edge), _) => edge,
            (None, Some(_)) => EdgeSettings::default(),
            (None, None) => return self.without_edge().map(|()| None),
        };
        if let Some(listen) = self.edge_listen {
            edge.listen = listen;
        }
        if !self.suffixes.is_empty() {
            edge.suffixes.clone_from(&self.suffixes);
        }
        if let Some(wild) = edge.suffixes.iter().find(|suffix| suffix.wildcard().is_some()) {
            return Err(Failure::Usage(format!("--edge-suffix (DISCOVER_EDGE_SUFFIX): {wild} is a wildcard")));
        }
        if !self.trusted.is_empty() {
            edge.trusted.clone_from(&self.trusted);
        }
        if !self.certificates.is_empty() {
            edge.certificates.given.clone_from(&self.certificates);
        }
        edge.sni_port = self.sni.or(edge.sni_port);
        if edge.sni_port == Some(edge.listen.port) {
            return Err(Failure::Usage(
                "--edge-sni (DISCOVER_EDGE_SNI): that is the port of plain HTTP (--edge)".into(),
            ));
        }
        edge.ownership = self.ownership.or(edge.ownership);
        edge.spare_sections = self.spare_sections.map_or(edge.spare_sections, usize::from);
        edge.access_log = self.access_log.clone().or(edge.access_log);
        edge.cookie_key = self.cookie_key.clone().unwrap_or(edge.cookie_key);
        Ok(Some(Arc::new(edge)))
    }

    fn without_edge(&self) -> Result<(), Failure> {
        let given = [
            (!self.suffixes.is_empty(), "--edge-suffix"),
            (self.ownership.is_some(), "--edge-ownership"),
            (self.spare_sections.is_some(), "--spare-sections"),
            (!self.trusted.is_empty(), "--edge-trust"),
            (self.access_log.is_some(), "--edge-access-log"),
            (self.cookie_key.is_some(), "--edge-cookie-key"),
            (!self.certificates.is_empty(), "--edge-certs"),
            (self.sni.is_some(), "--edge-sni"),
        ];
        match given.iter().find(|(given, _)| *given) {
            Some((_, flag)) => Err(Failure::Usage(format!("{flag} means nothing without --edge (DISCOVER_EDGE)"))),
            None => Ok(()),
        }
    }
}

/// Reads a file with the keys of the section `edge`.
fn read(path: &Path) -> Result<EdgeSettings, Failure> {
    let mut report = Report { file: path.to_owned(), ..Report::default() };
    let mut edge_settings = None;
    if let Some(mut root) = read_object(path, &|name| std::env::var(name).ok(), &mut report) {
        check::object(&mut root, keys::EDGE, "", &mut report);
        edge_settings = Some(edge(&root, "", &mut report));
    }
    match edge_settings.filter(|_| report.errors.is_empty()) {
        Some(settings) => Ok(settings),
        None => Err(Failure::Usage(format!("the config is wrong\n{}", ConfigError(report.errors)))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        edge: EdgeArgs,
    }

    fn settings(args: &[&str]) -> Result<Option<Arc<EdgeSettings>>, String> {
        let program = Program::try_parse_from(["x"].iter().chain(args)).map_err(|e| e.to_string())?;
        program.edge.settings().map_err(|e| e.to_string())
    }

    #[test]
    fn the_edge_is_off_on_or_from_a_file_that_flags_come_before() {
        assert_eq!(settings(&[]), Ok(None));
        assert_eq!(settings(&["--edge"]), Ok(Some(Arc::default())));
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        std::fs::write(file.path(), "listen: 8080\nspare_sections: 5\nhosts: {shop.example: [shop]}\n").unwrap();
        let file = file.path().to_str().unwrap();
        let edge = settings(&["--edge-config", file, "--edge-suffix", "local", "--edge", ":81"]).unwrap().unwrap();
        assert_eq!((edge.listen.port.get(), edge.spare_sections, edge.suffixes.len()), (81, 5, 1));
        assert!(!edge.owners.allow(&"shop.example".parse().unwrap(), &"x".parse().unwrap()));
        let own = settings(&["--edge-config", file]).unwrap().unwrap();
        assert_eq!(own.listen.port.get(), 8080);
    }

    #[test]
    fn a_flag_or_a_file_that_means_nothing_is_told() {
        assert!(settings(&["--edge-suffix", "local"]).unwrap_err().contains("means nothing without --edge"));
        assert!(settings(&["--edge", "--edge-suffix", "*.local"]).unwrap_err().contains("wildcard"));
        assert!(settings(&["--edge", "--edge-trust", "everybody"]).is_err());
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), r#"{"lissten": 80, "rules": [{"host": "a"}]}"#).unwrap();
        let error = settings(&["--edge-config", file.path().to_str().unwrap()]).unwrap_err();
        assert!(error.contains("lissten") && error.contains("rules[0].service: is required"), "{error}");
    }
}
