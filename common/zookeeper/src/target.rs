//! Which ZooKeeper, whose part of it, and as whom.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// ZooKeeper's client port.
pub const DEFAULT_PORT: u16 = 2181;
/// How long a session outlives its connection, unless said otherwise: as long as a lease in etcd.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// The path of a node: `/`, or parts that each begin with a slash. Nothing in it can end a string of ZooKeeper's early.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZkPath(Arc<str>);

/// A path that ZooKeeper would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no path of a node (/a/b, without empty parts, dots alone, or control characters)")]
pub struct ZkPathError(String);

impl FromStr for ZkPath {
    type Err = ZkPathError;

    /// A missing slash in front is added, one at the end is passed over.
    fn from_str(text: &str) -> Result<Self, ZkPathError> {
        let inner = text.strip_prefix('/').unwrap_or(text);
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        if inner.is_empty() {
            return Ok(Self::root());
        }
        match inner.split('/').all(is_part) {
            true => Ok(Self(format!("/{inner}").into())),
            false => Err(ZkPathError(text.chars().take(200).collect())),
        }
    }
}

/// Source: `PathUtils.validatePath`.
fn is_part(part: &str) -> bool {
    let refused = |c: char| c.is_control() || ('\u{e000}'..='\u{f8ff}').contains(&c) || c >= '\u{fff0}';
    !matches!(part, "" | "." | "..") && !part.chars().any(refused)
}

impl ZkPath {
    /// `/`.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The child of that name. `None` where no node can have that name.
    pub fn child(&self, name: &str) -> Option<Self> {
        let parent = if &*self.0 == "/" { "" } else { &*self.0 };
        (is_part(name) && !name.contains('/')).then(|| Self(format!("{parent}/{name}").into()))
    }

    /// The path above; none above `/`.
    pub fn parent(&self) -> Option<Self> {
        let at = self.0.rfind('/').filter(|_| &*self.0 != "/")?;
        Some(Self(if at == 0 { "/".into() } else { self.0[..at].into() }))
    }
}

impl fmt::Display for ZkPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ZkPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Who to be: ZooKeeper's scheme and its credential. `Debug` keeps the credential to itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Auth {
    pub(super) scheme: String,
    pub(super) credential: String,
}

/// A credential that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not USER:PASSWORD or digest:USER:PASSWORD")]
pub struct AuthError;

impl FromStr for Auth {
    type Err = AuthError;
    fn from_str(text: &str) -> Result<Self, AuthError> {
        let credential = text.strip_prefix("digest:").unwrap_or(text);
        let (user, _) = credential.split_once(':').ok_or(AuthError)?;
        if user.is_empty() {
            return Err(AuthError);
        }
        Ok(Self { scheme: "digest".into(), credential: credential.into() })
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// One ensemble, or a part of it below a chroot. Equal targets share one connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// `host:port`, in order and each once.
    servers: Vec<Arc<str>>,
    chroot: ZkPath,
    auth: Option<Auth>,
    session_timeout: Duration,
}

/// Hosts that are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No host at all.
    #[error("names no server")]
    Empty,
    /// One that cannot be dialled.
    #[error("{0:?} is neither host nor host:port (the last may carry a chroot: host:port/path)")]
    Host(String),
    /// Two different chroots.
    #[error("the servers carry different chroots, {0} and {1}")]
    Chroots(ZkPath, ZkPath),
    /// A chroot that is no path.
    #[error(transparent)]
    Chroot(#[from] ZkPathError),
}

impl Target {
    /// The ensemble of these `host`, `host:port` or comma lists of them; the port is 2181 where none is given. A chroot may
    /// stand behind the last host, as ZooKeeper's own clients have it, or behind all of them.
    ///
    /// # Errors
    /// [`TargetError`] naming the host.
    pub fn parse<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Result<Self, TargetError> {
        let (mut servers, mut chroot) = (Vec::new(), None::<ZkPath>);
        for host in hosts.into_iter().flat_map(|h| h.split(',')).map(str::trim).filter(|h| !h.is_empty()) {
            let (server, path) = host.find('/').map_or((host, None), |at| (&host[..at], Some(&host[at..])));
            servers.push(authority(server).ok_or_else(|| TargetError::Host(host.chars().take(200).collect()))?.into());
            let Some(path) = path.map(str::parse::<ZkPath>).transpose()?.filter(|p| *p != ZkPath::root()) else {
                continue;
            };
            match &chroot {
                Some(other) if *other != path => return Err(TargetError::Chroots(other.clone(), path)),
                _ => chroot = Some(path),
            }
        }
        if servers.is_empty() {
            return Err(TargetError::Empty);
        }
        servers.sort();
        servers.dedup();
        let chroot = chroot.unwrap_or_else(ZkPath::root);
        Ok(Self { servers, chroot, auth: None, session_timeout: SESSION_TIMEOUT })
    }

    /// As this user.
    #[must_use]
    pub fn with_auth(self, auth: Option<Auth>) -> Self {
        Self { auth, ..self }
    }

    /// Asks for sessions that outlive their connection for this long. The servers have bounds of their own (2 and 20 ticks).
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_session_timeout(self, session_timeout: Duration) -> Self {
        Self { session_timeout, ..self }
    }

    /// The servers, `host:port`.
    pub fn servers(&self) -> &[Arc<str>] {
        &self.servers
    }

    /// As whom, without the password.
    pub fn user(&self) -> Option<&str> {
        self.auth.as_ref().and_then(|auth| auth.credential.split_once(':')).map(|(user, _)| user)
    }

    pub(super) fn auth(&self) -> Option<&Auth> {
        self.auth.as_ref()
    }

    pub(super) fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    /// A path as the servers know it.
    pub(super) fn absolute(&self, path: &ZkPath) -> ZkPath {
        match (self.chroot.as_str(), path.as_str()) {
            ("/", _) => path.clone(),
            (_, "/") => self.chroot.clone(),
            (chroot, path) => ZkPath(format!("{chroot}{path}").into()),
        }
    }

    /// A server's path as we know it; `None` where it is not ours.
    pub(super) fn relative<'a>(&self, absolute: &'a str) -> Option<&'a str> {
        match self.chroot.as_str() {
            "/" => Some(absolute),
            chroot => match absolute.strip_prefix(chroot)? {
                "" => Some("/"),
                path => path.starts_with('/').then_some(path),
            },
        }
    }
}

impl fmt::Display for Target {
    /// As ZooKeeper's connection string, without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.servers.join(","))?;
        if self.chroot == ZkPath::root() { Ok(()) } else { f.write_str(self.chroot.as_str()) }
    }
}

/// `host:port` with the port filled in.
fn authority(text: &str) -> Option<String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':').or(rest.is_empty().then_some(""))?)
        }
        None if text.matches(':').count() > 1 => (text, ""),
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let host: model::Host = host.parse().ok()?;
    let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().ok()? };
    Some(host.with_port(model::Port::new(port)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_every_spelling_and_their_order_is_none() {
        let target = |hosts: &[&str]| Target::parse(hosts.iter().copied()).unwrap();
        assert_eq!(target(&["b", "a:2182"]).to_string(), "a:2182,b:2181");
        assert_eq!(target(&["b,a:2182", "a:2182"]), target(&["a:2182", "b:2181"]));
        assert_eq!(target(&["a", "b/x/y"]).to_string(), "a:2181,b:2181/x/y");
        assert_eq!(target(&["a/x", "b/x"]), target(&["a", "b/x/"]));
        assert_eq!(target(&["::1", "[::2]:80"]).to_string(), "[::1]:2181,[::2]:80");
        for (bad, why) in
            [(vec![], "names no server"), (vec!["a b"], "a b"), (vec!["a:0"], "a:0"), (vec!["a/x", "b/y"], "chroots")]
        {
            let error = Target::parse(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn paths_below_a_chroot() {
        let target = Target::parse(["a/x"]).unwrap();
        let path = |p: &str| p.parse::<ZkPath>().unwrap();
        assert_eq!([target.absolute(&path("/b/c")), target.absolute(&path("/"))], [path("/x/b/c"), path("/x")]);
        assert_eq!(
            [target.relative("/x/b"), target.relative("/x"), target.relative("/xy")],
            [Some("/b"), Some("/"), None]
        );
    }

    #[test]
    fn a_path_is_one_that_zookeeper_takes() {
        for (text, path) in [("/", "/"), ("", "/"), ("a/b", "/a/b"), ("/a/b/", "/a/b")] {
            assert_eq!(text.parse::<ZkPath>().unwrap().as_str(), path);
        }
        for bad in ["///", "/a//b", "/a/./b", "/..", "/a\nb", "/a\0"] {
            assert!(bad.parse::<ZkPath>().is_err(), "{bad:?}");
        }
        let path: ZkPath = "/a/b".parse().unwrap();
        assert_eq!(path.parent().unwrap().as_str(), "/a");
        assert_eq!(path.parent().unwrap().parent().unwrap().parent(), None);
        assert!(path.child("a/b").is_none() && path.child("..").is_none());
    }

    #[test]
    fn a_credential_is_not_told() {
        let auth: Auth = "digest:user:secret:word".parse().unwrap();
        assert_eq!(auth, "user:secret:word".parse().unwrap());
        assert!(!format!("{auth:?}").contains("secret"));
        assert!("user".parse::<Auth>().is_err());
    }
}
