//! Docker contexts, as `docker context create` keeps them.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where the context `name` under `root` (`~/.docker`) has its daemon, in the form of `DOCKER_HOST`, and the directory of its
/// certificates. `None`: there is no such context.
///
/// Source: docker/cli, `cli/context/store`: `contexts/meta/<sha256 of the name>/meta.json` holds `Name` and
/// `Endpoints.docker.Host`; the certificates are in `contexts/tls/<the same>/docker`.
pub fn host(root: &Path, name: &str) -> Option<(String, Option<PathBuf>)> {
    // The directories are named by a digest; reading each one's name needs no hash function.
    for entry in std::fs::read_dir(root.join("contexts/meta")).ok()?.flatten() {
        let Ok(text) = std::fs::read(entry.path().join("meta.json")) else { continue };
        let Ok(meta) = serde_json::from_slice::<Value>(&text) else { continue };
        if meta["Name"].as_str() != Some(name) {
            continue;
        }
        let host = meta["Endpoints"]["docker"]["Host"].as_str()?;
        let certificates = root.join("contexts/tls").join(entry.file_name()).join("docker");
        return Some((host.to_owned(), certificates.is_dir().then_some(certificates)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::Endpoint;

    fn endpoint(root: &Path, name: &str) -> Option<Endpoint> {
        host(root, name).and_then(|(host, certificates)| Endpoint::parse(&host, certificates).ok())
    }

    #[test]
    fn a_context_is_found_by_its_name() {
        let root = tempfile::tempdir().unwrap();
        let meta = root.path().join("contexts/meta/abc");
        std::fs::create_dir_all(&meta).unwrap();
        let text = r#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://10.0.0.1:2376","SkipTLSVerify":false}}}"#;
        std::fs::write(meta.join("meta.json"), text).unwrap();
        assert_eq!(endpoint(root.path(), "far").unwrap().to_string(), "http://10.0.0.1:2376");
        std::fs::create_dir_all(root.path().join("contexts/tls/abc/docker")).unwrap();
        assert_eq!(endpoint(root.path(), "far").unwrap().to_string(), "https://10.0.0.1:2376");
        assert_eq!(endpoint(root.path(), "near"), None);
    }
}
