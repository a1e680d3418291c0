//! Traefik's labels sorted by what they are about. Nothing is judged here.

use std::collections::BTreeMap;

use super::label;
use crate::desired::values;

/// A label of one element: its whole name, and its value.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// As it was written.
    pub name: &'a str,
    /// Blanks around it removed.
    pub value: &'a str,
}

/// An element's labels by the rest of their names, in lower case.
pub type Keys<'a> = BTreeMap<String, Said<'a>>;
/// Elements by name, in lower case: Traefik's labels know no case.
pub type Elements<'a> = BTreeMap<String, Keys<'a>>;

/// What a container says to one half of Traefik.
#[derive(Debug, Default)]
pub struct Sorted<'a> {
    /// `routers.NAME.…`.
    pub routers: Elements<'a>,
    /// `services.NAME.…`.
    pub services: Elements<'a>,
    /// `middlewares.NAME.…`.
    pub middlewares: Elements<'a>,
}

impl<'a> Sorted<'a> {
    fn of(&mut self, kind: &str) -> Option<&mut Elements<'a>> {
        match kind {
            "routers" => Some(&mut self.routers),
            "services" => Some(&mut self.services),
            "middlewares" => Some(&mut self.middlewares),
            _ => None,
        }
    }
}

/// All that a container says to Traefik.
#[derive(Debug, Default)]
pub struct Labels<'a> {
    /// Why none of it counts, if `traefik.enable` says so: `Ok` as it asks, `Err` as it cannot be read.
    pub disabled: Option<Result<String, String>>,
    /// `traefik.http.…`.
    pub http: Sorted<'a>,
    /// `traefik.tcp.…`.
    pub tcp: Sorted<'a>,
    /// `traefik.docker.…`, `traefik.swarm.…`.
    pub about_docker: Vec<&'a str>,
    /// What is about nothing that is imported.
    pub strange: Vec<&'a str>,
}

impl<'a> Labels<'a> {
    /// Sorts a container's labels.
    pub fn read(labels: &'a BTreeMap<String, String>) -> Self {
        let mut found = Self::default();
        for (name, value) in labels {
            let lower = name.to_ascii_lowercase();
            let Some(rest) = lower.strip_prefix("traefik.") else { continue };
            let elements = match rest.splitn(3, '.').collect::<Vec<_>>()[..] {
                // As it stands: an empty text or a blank is no word of Go's.
                ["enable"] => {
                    found.disabled = match values::go_bool(value) {
                        Some(true) => None,
                        Some(false) => Some(Ok(format!("Traefik's labels are not used, as {} asks", label(name)))),
                        None => Some(Err(format!(
                            "Traefik's labels are not used: {} is not {}, and Traefik leaves such a container out",
                            label(name),
                            values::GO_BOOL
                        ))),
                    };
                    continue;
                }
                // Which network, which balancer: no routes.
                ["docker" | "swarm", ..] => {
                    found.about_docker.push(name);
                    continue;
                }
                ["http", kind, rest] => found.http.of(kind).map(|elements| (elements, rest)),
                ["tcp", kind, rest] => found.tcp.of(kind).map(|elements| (elements, rest)),
                _ => None,
            };
            let value = value.trim();
            match elements.and_then(|(elements, rest)| Some((elements, rest.split_once('.')?))) {
                Some((elements, (element, key))) => {
                    elements.entry(element.to_owned()).or_default().insert(key.to_owned(), Said { name, value });
                }
                None => found.strange.push(name),
            }
        }
        found
    }
}
