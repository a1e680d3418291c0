//! Names in haproxy.cfg that are made from names of the registry: HAProxy's alphabet is smaller, and some names are ours.
//! Both maps are injective, so that no two services have one section, and no two registrations one server.

use std::sync::Arc;

use model::ServiceName;

use crate::edge::sections::is_reserved;

/// What a service's section has behind its name where the name alone would be one of ours.
const APART: &str = ":service";

/// The name of a service's section: the service's, but `NAME:service` where discover's own sections may be called NAME (`stats`,
/// `edge`, `edge:…`). A name that looks like such a one gets a second `:service`, so no two services have one section.
pub fn section_name(service: &ServiceName) -> Arc<str> {
    let name = service.as_str();
    let mut plain = name;
    while let Some(shorter) = plain.strip_suffix(APART) {
        plain = shorter;
    }
    if plain == "stats" || is_reserved(plain) { format!("{name}{APART}").into() } else { name.into() }
}

/// The service whose section is called so, if one's can be.
pub fn service_of(section: &str) -> Option<ServiceName> {
    let plain = section.strip_suffix(APART).and_then(|plain| plain.parse().ok());
    let whole = || section.parse().ok();
    plain.filter(|service| *section_name(service) == *section).or_else(whole).filter(|s| *section_name(s) == *section)
}

/// A backend's id as a server's name. HAProxy refuses `@` there, so `@` becomes `.-at-`, and `.-` itself `.--`; all other
/// ids stay as they are.
pub fn server_name(id: &str) -> Arc<str> {
    if !id.contains('@') && !id.contains(".-") {
        return id.into();
    }
    // In this order: the `.-` that the second makes is not to be replaced.
    id.replace(".-", ".--").replace('@', ".-at-").into()
}

/// The server's name of a service's backend in a section where another service has a backend of the same id: no id's own.
pub fn server_name_in(service: &ServiceName, id: &str) -> Arc<str> {
    format!("{}.-in-{}", server_name(service.as_str()), server_name(id)).into()
}

/// The names of the sections with servers or clients that a text of haproxy.cfg has.
pub fn of_proxies(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        matches!(words.next()?, "listen" | "frontend" | "backend").then(|| words.next())?
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::edge::Way;
    use crate::edge::sections::{PLAIN, empty, section_name as edge_section};
    use proptest::prelude::*;

    fn section(name: &str) -> String {
        section_name(&name.parse().unwrap()).to_string()
    }

    /// The id that a server's name was made from.
    fn id_of(name: &str) -> String {
        let mut pieces = name.split(".-");
        let mut id = pieces.next().unwrap().to_owned();
        for piece in pieces {
            match (piece.strip_prefix("at-"), piece.strip_prefix('-')) {
                (Some(rest), _) => id.extend(["@", rest]),
                (_, Some(rest)) => id.extend([".-", rest]),
                _ => panic!("{name} is no server's name"),
            }
        }
        id
    }

    #[test]
    fn our_own_sections_are_called_as_no_services_is() {
        let ours = ["stats", "edge", "edge:sni", "edge:https", PLAIN].map(str::to_owned).into_iter();
        let edge = [Way::Http, Way::Sni]
            .into_iter()
            .flat_map(|way| [empty(way).to_owned(), edge_section(way, 1), edge_section(way, 77)]);
        for name in ours.chain(edge) {
            let (once, twice) = (section(&name), section(&format!("{name}:service")));
            assert_eq!((once, twice), (format!("{name}:service"), format!("{name}:service:service")));
        }
        for other in ["web", "web:service", "Stats", "stats-1", "statsd", "edges", "edge-1", "a:edge", ":service"] {
            assert_eq!(section(other), other);
        }
    }

    #[test]
    fn ids_without_an_at_sign_are_names_as_they_are() {
        for id in ["abc:80", "host.example.at:80", "::1:80", "i-0f.a_b", "a--b", "a-.b"] {
            assert_eq!(&*server_name(id), id);
        }
        assert_eq!(&*server_name("n@1"), "n.-at-1");
        assert_ne!(server_name("n@1"), server_name("n.1-82b6"));
    }

    #[test]
    fn the_names_of_a_files_sections() {
        let text = "global\n\tmaxconn 9\nlisten a\n\tbind :1\n frontend  b\nbackend c from d\nlisten\n";
        assert_eq!(of_proxies(text).collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    proptest! {
        #[test]
        fn a_sections_name_tells_its_service(name in "(stats|edge|web|a)(:service){0,3}") {
            prop_assert_eq!(service_of(&section(&name)), name.parse().ok());
        }

        #[test]
        fn a_servers_name_tells_its_id(id in "[a.@-]{1,12}|[A-Za-z0-9_.:@-]{1,255}") {
            let name = server_name(&id);
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b)));
            prop_assert_eq!(id_of(&name), id);
        }

        #[test]
        fn a_servers_name_with_its_service_is_no_ids_name_and_no_other_services(
            of in prop::collection::hash_set(("[ab.:-]{1,4}|[ab]\\.-in-[ab]", "[ab.@-]{1,4}|[ab]\\.-in-[ab]"), 2..20)
        ) {
            let of: Vec<(ServiceName, String)> = of.into_iter().filter_map(|(s, id)| Some((s.parse().ok()?, id))).collect();
            let both = of.iter().map(|(service, id)| server_name_in(service, id));
            let ids: HashSet<&str> = of.iter().map(|(_, id)| id.as_str()).collect();
            let all: HashSet<Arc<str>> = both.chain(ids.iter().map(|id| server_name(id))).collect();
            prop_assert_eq!(all.len(), of.len() + ids.len());
            prop_assert!(all.iter().all(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))));
        }

        #[test]
        fn no_two_services_have_one_section(names in prop::collection::hash_set("(web|stats|edge|edge:1|edge-plain)?(:service){0,3}x?", 1..30)) {
            let names: HashSet<String> = names.into_iter().filter(|n| !n.is_empty()).collect();
            prop_assert_eq!(names.iter().map(|n| section(n)).collect::<HashSet<_>>().len(), names.len());
        }
    }
}
