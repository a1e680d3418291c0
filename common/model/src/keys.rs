//! Where things lie in the registry: `/backends/<service>/<id>` and its sibling `/registrars/<node>`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{BackendId, NameError, NodeName, ServiceName};

/// The usual last part of a prefix.
const USUAL: &str = "backends";

/// The key prefix under which backends lie (ETCD_PREFIX), with a leading slash and no trailing one.
///
/// One [of a service](Self::of_service) has the registrations of that service alone below it, at any depth.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Prefix(Arc<str>, Option<ServiceName>);

/// A prefix that could not be told from a key's other parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key prefix {0:?} is not a path such as /backends (printable ASCII, no blank, no empty part)")]
pub struct PrefixError(String);

impl Prefix {
    /// The prefix under which the registrations of one service lie, as Nerve and Synapse have it: `path` is all theirs.
    pub fn of_service(path: &str, service: ServiceName) -> Result<Self, PrefixError> {
        path.parse().map(|Self(path, _)| Self(path, Some(service)))
    }

    /// The prefix as text, such as `/backends`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What all of its keys begin with: `/backends/`.
    pub fn backends(&self) -> String {
        format!("{}/", self.0)
    }

    /// What the keys of all agents begin with: `/registrars/`, the sibling of the backends' prefix. Agents whose prefixes
    /// are siblings have their keys below it, too.
    pub fn registrars(&self) -> String {
        format!("{}/registrars/", self.place().0)
    }

    /// The key that the agent of `node` holds: `/registrars/<node>` for `/backends`, and `/registrars/ext/<node>` for `/ext`, so
    /// that agents of one host under several prefixes do not meet.
    pub fn registrar(&self, node: &NodeName) -> String {
        let (parent, own) = self.place();
        format!("{parent}/registrars/{own}{node}")
    }

    /// The key that an agent of an older version holds, where [`Self::registrar`] is another one.
    pub fn older_registrar(&self, node: &NodeName) -> Option<String> {
        let (parent, own) = self.place();
        (!own.is_empty()).then(|| format!("{parent}/registrars/{node}"))
    }

    /// Where the agent of `node` keeps what its host carries, when asked to: `/metadata/<node>`, apart from the keys that
    /// anybody watches. It has the prefix's name in it as the registrar's key has.
    pub fn metadata(&self, node: &NodeName) -> String {
        let (parent, own) = self.place();
        format!("{parent}/metadata/{own}{node}")
    }

    /// The path above the prefix, and what tells its agents' keys from those of its siblings: nothing for the usual name.
    fn place(&self) -> (&str, String) {
        let (parent, name) = self.0.rsplit_once('/').unwrap_or(("", &self.0));
        (parent, if name == USUAL { String::new() } else { format!("{name}/") })
    }

    /// What the keys of discoverers that announce themselves begin with: `/discoverers/`.
    pub fn discoverers(&self) -> String {
        let parent = self.0.rfind('/').map_or("", |end| &self.0[..end]);
        format!("{parent}/discoverers/")
    }

    /// The key under which the discover of `node` announces itself.
    pub fn discoverer(&self, node: &NodeName) -> String {
        format!("{}{node}", self.discoverers())
    }

    /// The key of one backend. `node` is used by [`Layout::Host`] only.
    pub fn backend(&self, layout: Layout, node: &NodeName, service: &ServiceName, id: &BackendId) -> String {
        format!("{}{id}", self.service(layout, node, service))
    }

    /// The key under which docker-register keeps a service's port.
    pub fn service_port(&self, layout: Layout, node: &NodeName, service: &ServiceName) -> String {
        format!("{}port", self.service(layout, node, service))
    }

    fn service(&self, layout: Layout, node: &NodeName, service: &ServiceName) -> String {
        match layout {
            Layout::Service => format!("{}/{service}/", self.0),
            Layout::Host => format!("{}/@{node}/{service}/", self.0),
        }
    }

    /// The node whose registrations alone lie below a service's own prefix, such as `/backends/@node/web`.
    fn node(&self) -> Option<NodeName> {
        self.0.split('/').find_map(|part| part.strip_prefix('@')?.parse().ok())
    }

    /// Reads a key of either layout. `a/b/c` belongs to service `a` under the id `b:c` (Nerve's etcd reporter writes
    /// `<path>/<instance>/<number>`).
    ///
    /// # Errors
    /// [`KeyError`] for a key outside the prefix, without an id, or with a name that is none.
    pub fn parse(&self, key: &str) -> Result<ParsedKey, KeyError> {
        let outside = || KeyError::Outside { prefix: self.clone() };
        let path = key.strip_prefix(&*self.0).and_then(|k| k.strip_prefix('/')).ok_or_else(outside)?;
        if let Some(service) = &self.1 {
            let service = service.clone();
            return Ok(match path {
                "port" => ParsedKey::ServicePort { node: self.node(), service },
                id => ParsedKey::Backend { node: self.node(), service, id: id.replace('/', ":").parse()? },
            });
        }
        let (node, path) = match path.strip_prefix('@').and_then(|p| p.split_once('/')) {
            Some((node, rest)) => (Some(node.parse()?), rest),
            None => (None, path),
        };
        let (service, id) = path.split_once('/').ok_or(KeyError::NoId)?;
        let service = service.parse()?;
        Ok(match id {
            "port" => ParsedKey::ServicePort { node, service },
            _ => ParsedKey::Backend { node, service, id: id.replace('/', ":").parse()? },
        })
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self(format!("/{USUAL}").into(), None)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let trimmed = text.trim_matches('/');
        let part = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_graphic());
        if trimmed.split('/').all(part) && text.len() <= 255 {
            Ok(Self(format!("/{trimmed}").into(), None))
        } else {
            Err(PrefixError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// How keys are laid out by a writer; readers take both, mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// `/backends/<service>/<id>`.
    #[default]
    Service,
    /// `/backends/@<node>/<service>/<id>`: one etcd grant on a prefix confines an agent to its own host.
    Host,
}

/// What a key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParsedKey {
    /// One backend.
    Backend {
        /// The host it was registered for, where the layout tells.
        node: Option<NodeName>,
        /// Its service.
        service: ServiceName,
        /// Its id in the service.
        id: BackendId,
    },
    /// docker-register's sibling key: the port on which clients expect the service.
    ServicePort {
        /// The host it was registered for, where the layout tells.
        node: Option<NodeName>,
        /// The service.
        service: ServiceName,
    },
}

/// A key that names no backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It lies elsewhere.
    #[error("key lies outside {prefix}/")]
    Outside {
        /// The prefix that was asked for.
        prefix: Prefix,
    },
    /// There is a service but nothing behind it.
    #[error("key has no /<id> after the service")]
    NoId,
    /// The service, id or node is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn backend(key: &str) -> (Option<String>, String, String) {
        match Prefix::default().parse(key).unwrap() {
            ParsedKey::Backend { node, service, id } => {
                (node.map(|n| n.to_string()), service.to_string(), id.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_layouts_and_deeper_keys_are_read() {
        assert_eq!(backend("/backends/web/abc:80"), (None, "web".into(), "abc:80".into()));
        assert_eq!(backend("/backends/@h1/web/abc"), (Some("h1".into()), "web".into(), "abc".into()));
        assert_eq!(backend("/backends/web/i-1/0007"), (None, "web".into(), "i-1:0007".into()));
        let port = Prefix::default().parse("/backends/web/port").unwrap();
        assert_eq!(port, ParsedKey::ServicePort { node: None, service: "web".parse().unwrap() });
        let port = Prefix::default().parse("/backends/@h1/web/port").unwrap();
        assert_eq!(port, ParsedKey::ServicePort { node: "h1".parse().ok(), service: "web".parse().unwrap() });
    }

    #[test]
    fn below_a_services_own_prefix_every_key_is_its() {
        let prefix = Prefix::of_service("nerve/web/", "web".parse().unwrap()).unwrap();
        let ParsedKey::Backend { service, id, .. } = prefix.parse("/nerve/web/i-1/00000000000000000007").unwrap()
        else {
            panic!()
        };
        assert_eq!((service.as_str(), id.as_str()), ("web", "i-1:00000000000000000007"));
        assert!(prefix.parse("/nerve/webby/x").is_err());
    }

    #[test]
    fn other_keys_are_refused_with_the_reason() {
        for (key, why) in [
            ("/backend/web/a", "outside"),
            ("/backends/web", "no /<id>"),
            ("/backends/web/", "backend id"),
            ("/backends/a b/c", "service name"),
            ("/backends//c", "service name"),
            ("/backends/@/web/c", "node name"),
        ] {
            let error = Prefix::default().parse(key).unwrap_err().to_string();
            assert!(error.contains(why), "{key}: {error}");
        }
    }

    #[test]
    fn registrars_are_the_siblings_of_the_backends() {
        assert_eq!(Prefix::default().registrars(), "/registrars/");
        assert_eq!("a/b/".parse::<Prefix>().unwrap().registrars(), "/a/registrars/");
        let node: NodeName = "h1".parse().unwrap();
        for (prefix, registrar, older, metadata) in [
            ("/backends", "/registrars/h1", None, "/metadata/h1"),
            ("/x/backends", "/x/registrars/h1", None, "/x/metadata/h1"),
            ("/ext", "/registrars/ext/h1", Some("/registrars/h1"), "/metadata/ext/h1"),
            ("/x/int", "/x/registrars/int/h1", Some("/x/registrars/h1"), "/x/metadata/int/h1"),
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!((prefix.registrar(&node), prefix.metadata(&node)), (registrar.to_owned(), metadata.to_owned()));
            assert_eq!(prefix.older_registrar(&node).as_deref(), older);
        }
        for bad in ["", "/", "a//b", "a b"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(service in "[a-z.:-]{3,9}", id in "[a-f0-9:@]{5,12}", host in any::<bool>()) {
            let (prefix, node) = (Prefix::default(), "n1".parse::<NodeName>().unwrap());
            let (service, id): (ServiceName, BackendId) = (service.parse().unwrap(), id.parse().unwrap());
            let layout = if host { Layout::Host } else { Layout::Service };
            let read = prefix.parse(&prefix.backend(layout, &node, &service, &id)).unwrap();
            prop_assert_eq!(read, ParsedKey::Backend { node: host.then_some(node), service, id });
        }

        #[test]
        fn no_key_panics(key in "\\PC{0,60}") {
            let _ = Prefix::default().parse(&key);
        }
    }
}
