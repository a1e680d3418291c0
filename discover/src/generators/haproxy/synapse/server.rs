//! One server's line, byte for byte as Synapse writes it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use super::options::{fill, without_weight};
use super::prepare::{Cookie, Prepared};
use super::sha1;
use crate::generators::haproxy::server::Server;

/// What a line is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The name, `name_host:port`.
    pub name: &'a Arc<str>,
    /// As it was registered.
    pub host: &'a str,
    /// As it was registered.
    pub port: &'a str,
    /// Where that is.
    pub address: SocketAddr,
    /// Given by us; none where the registration's own options have one.
    pub id: Option<u32>,
    /// The config's options, where they are a text.
    pub server_options: Option<&'a str>,
    /// The registration's, filled in.
    pub own_options: Option<&'a str>,
    /// The registration's, where weights are used and it is a whole number.
    pub weight: Option<u16>,
    /// Listed for when the others are gone.
    pub backup: bool,
    /// Gone, but remembered.
    pub disabled: bool,
    /// Finishes its clients: a weight of 0 comes last.
    pub draining: bool,
}

/// The name of a server: `name_host:port`, or `host:port`.
pub fn name(name: Option<&str>, host: &str, port: &str) -> String {
    match name.filter(|n| !n.is_empty()) {
        Some(name) => format!("{name}_{host}:{port}"),
        None => format!("{host}:{port}"),
    }
}

/// Composes the line.
pub fn server(parts: &Parts<'_>, prepared: &Prepared) -> Server {
    let Parts { name, host, port, .. } = parts;
    let mut line = String::with_capacity(96 + 3 * name.len());
    // Writing to a String cannot fail.
    let _ = write!(line, "server {name} {host}:{port}");
    if parts.backup {
        line.push_str(" backup");
    }
    if let Some(id) = parts.id {
        let _ = write!(line, " id {id}");
    }
    match prepared.cookie {
        Cookie::None => {}
        Cookie::Name => _ = write!(line, " cookie {name}"),
        Cookie::Hash => _ = write!(line, " cookie {}", sha1::hex(name.as_bytes())),
    }
    // The config's template was tried when it was read.
    let ours = parts.server_options.map(|o| match o.contains('%') {
        true => Cow::Owned(fill(o, host, port, name).unwrap_or_default()),
        false => Cow::Borrowed(o),
    });
    let own = parts.own_options.map(Cow::Borrowed);
    let weight = if parts.draining { Some(0) } else { parts.weight };
    for options in [ours, own].into_iter().flatten() {
        line.push(' ');
        match parts.weight {
            Some(_) => line.push_str(&without_weight(&options)),
            None => line.push_str(&options),
        }
    }
    if let Some(weight) = weight {
        let _ = write!(line, " weight {weight}");
        line = squeezed(&line);
    }
    if parts.disabled {
        line.push_str(" disabled");
    }
    Server::of_line(parts.name.clone(), parts.address, line.into())
}

/// Runs of blanks as one.
fn squeezed(line: &str) -> String {
    let mut squeezed = String::with_capacity(line.len());
    for c in line.chars() {
        if c != ' ' || !squeezed.ends_with(' ') {
            squeezed.push(c);
        }
    }
    squeezed
}
