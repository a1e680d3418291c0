//! Traefik's labels sorted by what they are about. Nothing is judged here.

use std::collections::BTreeMap;

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

/// All that a container says to Traefik.
#[derive(Debug, Default)]
pub struct Labels<'a> {
    /// `traefik.enable=false`.
    pub disabled: bool,
    /// `traefik.http.routers.NAME.…`.
    pub routers: Elements<'a>,
    /// `traefik.http.services.NAME.…`.
    pub services: Elements<'a>,
    /// `traefik.http.middlewares.NAME.…`.
    pub middlewares: Elements<'a>,
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
            let value = value.trim();
            let elements = match rest.splitn(3, '.').collect::<Vec<_>>()[..] {
                ["enable"] => {
                    found.disabled = value.eq_ignore_ascii_case("false");
                    continue;
                }
                // Which network, which balancer: no routes.
                ["docker" | "swarm", ..] => continue,
                ["http", "routers", rest] => Some((&mut found.routers, rest)),
                ["http", "services", rest] => Some((&mut found.services, rest)),
                ["http", "middlewares", rest] => Some((&mut found.middlewares, rest)),
                _ => None,
            };
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
