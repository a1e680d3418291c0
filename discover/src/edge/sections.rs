//! The names of the edge's sections in haproxy.cfg, which no service's section may have.

use super::Way;

/// What the names of the edge's sections begin with.
const RESERVED: &str = "edge:";

/// The `defaults` section that plain sections are made from.
pub const PLAIN: &str = "edge-plain";

/// The section without servers: for a service that has no section yet, or no backend.
pub const fn empty(way: Way) -> &'static str {
    match way {
        Way::Http => "edge:none",
        Way::Sni => "edge:sni:none",
    }
}

/// What the names of the sections for services begin with; a number follows.
const fn prefix(way: Way) -> &'static str {
    match way {
        Way::Http => RESERVED,
        Way::Sni => "edge:sni:",
    }
}

pub fn section_name(way: Way, number: u32) -> String {
    format!("{}{number}", prefix(way))
}

/// Of a section for a service its way and number, by its name.
pub fn section_number(name: &str) -> Option<(Way, u32)> {
    let number = |way| Some((way, name.strip_prefix(prefix(way))?.parse().ok()?));
    number(Way::Sni).or_else(|| number(Way::Http))
}

/// Whether a name is kept for the edge.
pub fn is_reserved(name: &str) -> bool {
    name == "edge" || name == PLAIN || name.starts_with(RESERVED)
}
