//! Names in haproxy.cfg that are made from names of the registry: HAProxy's alphabet is smaller, and some names are ours.
//! All maps are injective, so that no two service ports have one section, and no two registrations one server.

use std::sync::Arc;

use model::{BackendId, Port, ServiceName};

use crate::edge::sections::is_reserved;

/// What a service's section has behind its name where the name alone would be one of ours.
const APART: &str = ":service";
/// What stands between the name of a service's first section and the port of a further one.
const PORT: &str = ":port-";

/// The name of a service's first section: the service's, but `NAME:service` where other sections of ours may be called NAME (`stats`,
/// `edge`, `edge:…`, `…:port-81`). A name that looks like such a one gets a second `:service`, so no two services have one section.
pub fn section_name(service: &ServiceName) -> Arc<str> {
    let name = service.as_str();
    let mut plain = name;
    while let Some(shorter) = plain.strip_suffix(APART) {
        plain = shorter;
    }
    let ours = plain == "stats" || is_reserved(plain) || split_port(plain).is_some();
    if ours { format!("{name}{APART}").into() } else { name.into() }
}

/// The name of the section of a further port of a service: `NAME:port-81`, where its first section is called NAME.
pub fn port_section_name(service: &ServiceName, port: Port) -> Arc<str> {
    format!("{}{PORT}{port}", section_name(service)).into()
}

/// The service whose section is called so, if one's can be, and the port if it is the section of a further one.
pub fn owner_of(section: &str) -> Option<(ServiceName, Option<Port>)> {
    match split_port(section) {
        Some((first, port)) => Some((service_of(first)?, Some(port))),
        None => Some((service_of(section)?, None)),
    }
}

/// The name of the first section of the service that has this one; of all other sections their own name.
pub fn first_section(section: &str) -> &str {
    split_port(section).map_or(section, |(first, _)| first)
}

/// The service whose first section is called so, if one's can be.
fn service_of(section: &str) -> Option<ServiceName> {
    let plain = section.strip_suffix(APART).and_then(|plain| plain.parse().ok());
    let whole = || section.parse().ok();
    plain.filter(|service| *section_name(service) == *section).or_else(whole).filter(|s| *section_name(s) == *section)
}

/// What stands before a port at the end of a section's name, and the port.
fn split_port(section: &str) -> Option<(&str, Port)> {
    let (first, port) = section.rsplit_once(PORT)?;
    // One text for each port: no sign, no zero before it.
    port.starts_with(|c| matches!(c, '1'..='9')).then(|| Some((first, port.parse().ok()?)))?
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

/// The id that a server's name was made from, if it was.
pub fn id_of(server: &str) -> Option<BackendId> {
    let mut pieces = server.split(".-");
    let mut id = pieces.next()?.to_owned();
    for piece in pieces {
        match (piece.strip_prefix("at-"), piece.strip_prefix('-')) {
            (Some(rest), _) => id.extend(["@", rest]),
            (_, Some(rest)) => id.extend([".-", rest]),
            _ => return None,
        }
    }
    id.parse().ok()
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
        fn a_sections_name_tells_its_service(name in "(stats|edge|web|a)(:service|:port-[089]{1,2}){0,3}", port in 1..=u16::MAX) {
            let service: ServiceName = name.parse().unwrap();
            prop_assert_eq!(owner_of(&section(&name)), Some((service.clone(), None)));
            let first = section(&name);
            prop_assert_eq!(first_section(&first), &first);
            let further = port_section_name(&service, Port::new(port).unwrap());
            prop_assert_eq!(owner_of(&further), Some((service, Port::new(port))));
            prop_assert_eq!(first_section(&further), first);
        }

        #[test]
        fn a_servers_name_tells_its_id(id in "[a.@-]{1,12}|[A-Za-z0-9_.:@-]{1,255}") {
            let name = server_name(&id);
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b)));
            if let Ok(id) = id.parse() { prop_assert_eq!(id_of(&name), Some(id)); }
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
        fn no_two_service_ports_have_one_section(names in prop::collection::hash_set("(web|stats|edge|edge:1|edge-plain)?(:service|:port-8|:port-08){0,3}x?", 1..30)) {
            let names: HashSet<String> = names.into_iter().filter(|n| !n.is_empty()).collect();
            let further = |port: u16| move |name: &String| port_section_name(&name.parse().unwrap(), Port::new(port).unwrap()).to_string();
            let all = names.iter().map(|n| section(n)).chain(names.iter().map(further(8))).chain(names.iter().map(further(88)));
            prop_assert_eq!(all.collect::<HashSet<_>>().len(), 3 * names.len());
        }
    }
}
