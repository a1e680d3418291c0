//! One server: its line in haproxy.cfg and its parameters at run time, which are the same.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// One server of a section. Its line in the file and what `add server` is given hold the same parameters, so that a
/// reload changes nothing (`add server` inherits nothing from `default-server`: dataplane.md section 1.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// HAProxy's name for it, `[A-Za-z0-9_.:-]+`, unique in its section and the same at every start.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Every parameter but the weight and `disabled`, in the order of the line.
    pub params: Arc<str>,
    /// Its share, 0 (drained) to 256.
    pub weight: u16,
    /// In maintenance: listed, but given no traffic and not checked.
    pub maint: bool,
}

impl Server {
    /// The parameters for `add server`, the weight among them.
    pub fn runtime_params(&self) -> String {
        match self.weight {
            1 => self.params.to_string(),
            weight => format!("{} weight {weight}", self.params),
        }
    }

    /// Whether it takes new clients, as far as we decide that.
    pub fn serves(&self) -> bool {
        !self.maint && self.weight > 0
    }

    /// Reads a line that [`Display`](fmt::Display) wrote; `None` for any other.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let maint = words.last() == Some(&"disabled");
        if maint {
            words.pop();
        }
        let [keyword, name, address, params @ ..] = words.as_slice() else { return None };
        let (params, weight) = match params {
            [params @ .., "weight", weight] => (params, weight.parse().ok()?),
            params => (params, 1),
        };
        (*keyword == "server").then_some(())?;
        let address = address.parse().ok()?;
        Some(Self { name: (*name).into(), address, params: params.join(" ").into(), weight, maint })
    }
}

impl fmt::Display for Server {
    /// The line in haproxy.cfg, without indentation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server {} {}", self.name, self.address)?;
        if !self.params.is_empty() {
            write!(f, " {}", self.params)?;
        }
        if self.weight != 1 {
            write!(f, " weight {}", self.weight)?;
        }
        if self.maint {
            f.write_str(" disabled")?;
        }
        Ok(())
    }
}

/// A backend's id as a server name. HAProxy refuses `@` there, so it is replaced, and a checksum keeps such names apart.
pub fn server_name(id: &str) -> Arc<str> {
    if !id.contains('@') {
        return id.into();
    }
    format!("{}-{:04x}", id.replace('@', "."), checksum(id.as_bytes()) & 0xffff).into()
}

/// FNV-1a, 64 bits: stable across versions and machines, which the standard library's hashes do not promise.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_is_read_back_as_it_was_written(
            name in "[a-f0-9:.-]{1,12}", port in 1u16.., v6 in any::<bool>(), weight in 0u16..=256, maint in any::<bool>(),
            params in prop::sample::select(vec!["", "check", "check inter 2s rise 3 fall 2", "id 4 check"]),
        ) {
            let address = if v6 { format!("[::1]:{port}") } else { format!("127.0.0.1:{port}") }.parse().unwrap();
            let server = Server { name: name.into(), address, params: params.into(), weight, maint };
            prop_assert_eq!(Server::parse(&format!("\t{server}")), Some(server));
        }
    }

    #[test]
    fn names_that_haproxy_refuses_are_mapped_apart() {
        assert_eq!(&*server_name("abc:80"), "abc:80");
        assert_ne!(server_name("a@b"), server_name("a.b"));
        assert!(!server_name("a@b").contains('@'));
    }
}
