//! One server's line, byte for byte as Synapse writes it.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::{Backend, Host};
use sha1::{Digest as _, Sha1};

use super::prepare::{Cookie, Prepared};
use crate::generators::haproxy::file::server::Server;
use crate::haproxy::words::template::without_weight;

/// A server's name, `name_host:port` or `host:port`, with host and port as they were registered.
#[derive(Debug, Clone)]
pub struct Name {
    /// The whole name.
    pub text: Arc<str>,
    host: usize,
    colon: usize,
}

impl Name {
    /// The name of a backend's server at `port`, composed in `scratch`.
    pub fn of(backend: &Backend, port: u16, scratch: &mut String) -> Self {
        scratch.clear();
        if let Some(name) = backend.name.as_deref().filter(|n| !n.is_empty()) {
            scratch.push_str(name);
            scratch.push('_');
        }
        let host = scratch.len();
        match &backend.host {
            Host::Ip(IpAddr::V4(ip)) => {
                for (n, octet) in ip.octets().into_iter().enumerate() {
                    if n > 0 {
                        scratch.push('.');
                    }
                    push_number(scratch, octet.into());
                }
            }
            Host::Ip(ip @ IpAddr::V6(_)) => _ = write!(scratch, "{ip}"), // writing to a String cannot fail
            Host::Name(name) => scratch.push_str(name),
        }
        let colon = scratch.len();
        scratch.push(':');
        push_number(scratch, port.into());
        Self { text: scratch.as_str().into(), host, colon }
    }

    pub fn host(&self) -> &str {
        &self.text[self.host..self.colon]
    }

    pub fn port(&self) -> &str {
        &self.text[self.colon + 1..]
    }
}

/// What a line is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The name, and in it where the server is as it was registered.
    pub name: &'a Name,
    pub address: SocketAddr,
    /// Given by us; none where the registration's own options have one.
    pub id: Option<u32>,
    /// The config's options, where they are a text, filled in.
    pub server_options: Option<&'a str>,
    /// The registration's, in their normal form.
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

/// Composes the line, in `scratch`.
pub fn server(parts: &Parts<'_>, prepared: &Prepared, scratch: &mut String) -> Server {
    let name = &*parts.name.text;
    let line = scratch;
    line.clear();
    for text in ["server ", name, " ", &name[parts.name.host..]] {
        line.push_str(text);
    }
    if parts.backup {
        line.push_str(" backup");
    }
    if let Some(id) = parts.id {
        line.push_str(" id ");
        push_number(line, id);
    }
    match prepared.cookie {
        Cookie::None => {}
        Cookie::Name => line.extend([" cookie ", name]),
        Cookie::Hash => line.extend([" cookie ", &sha1_hex(name)]),
    }
    let weight = if parts.draining { Some(0) } else { parts.weight };
    for options in [parts.server_options, parts.own_options].into_iter().flatten() {
        line.push(' ');
        match parts.weight {
            Some(_) => line.push_str(&without_weight(options)),
            None => line.push_str(options),
        }
    }
    if let Some(weight) = weight {
        line.push_str(" weight ");
        push_number(line, weight.into());
        *line = squeezed(line);
    }
    if parts.disabled {
        line.push_str(" disabled");
    }
    let server = Server::of_line(parts.name.text.clone(), parts.address, line.as_str().into());
    server.with_own(parts.own_options.unwrap_or_default())
}

/// Appends a number. What `write!` does besides is most of a large file's cost.
fn push_number(text: &mut String, number: u32) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from_digit(number % 10, 10).unwrap_or_default());
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

/// SHA-1 in hexadecimal digits: for a cookie a short stable name, and no secret.
fn sha1_hex(text: &str) -> String {
    Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::sha1_hex;

    /// Source: RFC 3174.
    #[test]
    fn the_digests_of_the_rfc() {
        assert_eq!(sha1_hex("abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let long = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(sha1_hex(long), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        assert_eq!(sha1_hex(""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    }
}
