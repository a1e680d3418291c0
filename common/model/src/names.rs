//! Names, hosts and ports: safe in an etcd key, a file name, haproxy.cfg, a socket command and an HTML page.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name that does not fit its grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not {accepted}")]
pub struct NameError {
    what: &'static str,
    accepted: &'static str,
    text: String,
}

/// Refused texts are quoted in messages; a megabyte of rubbish is not.
pub(super) fn excerpt(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}

/// What every type around a shared text has that is checked when it is parsed: a reader of its own is [`FromStr`].
macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// As text, in its normal form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(super) use text_type;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $accepted:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        text_type!($name);

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError { what: $what, accepted: $accepted, text: excerpt(text) })
                }
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

fn service_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':')
}

fn id_byte(b: u8) -> bool {
    service_byte(b) || b == b'@'
}

/// `.` and `..` would be directories where a service names a file or a key's part.
fn is_dots(text: &str) -> bool {
    text == "." || text == ".."
}

name_type! {
    /// What clients call: 1 to 128 of `A-Z a-z 0-9 _ . : -` (the characters of a HAProxy section name).
    ServiceName, "service name", "1 to 128 characters of A-Z a-z 0-9 _ . : -",
    |s| (1..=128).contains(&s.len()) && s.bytes().all(service_byte) && !is_dots(s)
}

name_type! {
    /// One backend's name within its service: 1 to 255 of `A-Z a-z 0-9 _ . : @ -`, not `port` (docker-register keeps a
    /// service's port under that name).
    BackendId, "backend id", "1 to 255 characters of A-Z a-z 0-9 _ . : @ - and not \"port\"",
    |s| (1..=255).contains(&s.len()) && s.bytes().all(id_byte) && s != "port" && !is_dots(s)
}

name_type! {
    /// The host that an agent registers for: 1 to 253 of `A-Z a-z 0-9 _ . -`.
    NodeName, "node name", "1 to 253 characters of A-Z a-z 0-9 _ . -",
    |s| (1..=253).contains(&s.len()) && s.bytes().all(|b| service_byte(b) && b != b':') && !is_dots(s)
}

/// A TCP or UDP port, 1 to 65535.
pub type Port = NonZeroU16;

/// Where a backend listens: an IP address or a host name (RFC 1123, case kept).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An address, in any of the forms that [`IpAddr`] reads.
    Ip(IpAddr),
    /// A name that somebody must still resolve.
    Name(Arc<str>),
}

/// A host that is neither an IP address nor an RFC 1123 name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host {0:?} is neither an IP address nor an RFC 1123 host name")]
pub struct HostError(String);

impl Host {
    /// The address, where the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Name(_) => None,
        }
    }

    /// `host:port`, an IPv6 address in brackets.
    pub fn with_port(&self, port: Port) -> String {
        match self {
            Self::Ip(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            _ => format!("{self}:{port}"),
        }
    }
}

/// RFC 1123 section 2.1: labels of letters, digits and inner hyphens, 63 characters each, 253 in all. Underscores are
/// taken as well, because Compose and Docker names carry them. All-numeric names (`1.2.3.4.5`) are mistyped addresses.
pub(super) fn is_host_name(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253
        && text.split('.').all(label)
        && text.rsplit('.').next().is_some_and(|l| l.bytes().any(|b| !b.is_ascii_digit()))
}

impl FromStr for Host {
    type Err = HostError;
    fn from_str(text: &str) -> Result<Self, HostError> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        match bare.unwrap_or(text).parse::<IpAddr>() {
            Ok(ip) if bare.is_none() || ip.is_ipv6() => Ok(Self::Ip(ip)),
            Err(_) if bare.is_none() && is_host_name(text) => Ok(Self::Name(text.into())),
            _ => Err(HostError(excerpt(text))),
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_service_name_has_the_characters_of_a_section_name() {
        for good in ["web", "a.b_c-d:80", "0", &"x".repeat(128)] {
            assert_eq!(good.parse::<ServiceName>().unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "a/b", "a\nb", "é", "a;b", ".", "..", &"x".repeat(129)] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_id_port_is_reserved_for_the_service_port() {
        assert!("port".parse::<BackendId>().is_err());
        assert!("host1@abc:80:udp".parse::<BackendId>().is_ok());
    }

    #[test]
    fn a_host_is_an_address_or_a_name_and_keeps_its_case() {
        assert_eq!("::1".parse::<Host>().unwrap().with_port(Port::try_from(80).unwrap()), "[::1]:80");
        assert_eq!("[fe80::1]".parse::<Host>().unwrap().to_string(), "fe80::1");
        assert_eq!("Zed".parse::<Host>().unwrap().to_string(), "Zed");
        for bad in ["", "1.2.3.4.5", "256.1.1.1", "-a", "a-", "a..b", "a b", "[1.2.3.4]", "[a]", "fe80::1%eth0"] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_quotes_no_megabytes() {
        let message = "é".repeat(1 << 20).parse::<ServiceName>().unwrap_err().to_string();
        assert!(message.len() < 400, "{}", message.len());
    }

    proptest! {
        #[test]
        fn whatever_parses_holds_no_byte_that_could_inject(text in "\\PC{0,40}|[ -~\\n]{0,40}") {
            let safe = |s: &str| s.bytes().all(|b| b.is_ascii_graphic() && !b"/;\"'\\<>%#$`|&(){}".contains(&b));
            if let Ok(name) = text.parse::<ServiceName>() { prop_assert!(safe(name.as_str())); }
            if let Ok(id) = text.parse::<BackendId>() { prop_assert!(safe(id.as_str())); }
            if let Ok(host) = text.parse::<Host>() { prop_assert!(safe(&host.to_string())); }
        }
    }
}
