//! HAProxy's server keywords: what follows each, and which a registration may not use.

use std::fmt;

/// What follows a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Flag,
    /// A whole number.
    Number {
        min: i64,
        max: i64,
    },
    /// A time, up to 2,147,483,647 ms.
    Time {
        min_ms: u64,
    },
    OneOf(&'static [&'static str]),
    /// Some of these, each once, with commas.
    ListOf(&'static [&'static str]),
    /// Letters, digits and these.
    Text(&'static [u8]),
    /// Names of protocols for ALPN, with commas.
    Protocols,
    /// A host's name or IPv4 address.
    Host,
    /// The same, where HAProxy wants an expression: `str(NAME)`.
    TlsName,
    /// A server of the same section.
    Server,
    /// What the operator permits: letters, digits and `_.:@/,=+*[]~-`.
    Harmless,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("nothing"),
            Self::Number { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Time { min_ms: 0 } => f.write_str("a time such as 2s, of at most 24 days"),
            Self::Time { min_ms } => write!(f, "a time such as 2s, from {min_ms}ms to 24 days"),
            Self::OneOf(list) => write!(f, "one of {}", list.join(", ")),
            Self::ListOf(list) => write!(f, "a list, with commas, of {}", list.join(", ")),
            Self::Text(extra) => write!(f, "letters, digits and {}", String::from_utf8_lossy(extra)),
            Self::Protocols => f.write_str("names of protocols with commas, such as h2,http/1.1"),
            Self::Host => f.write_str("a host's name"),
            Self::TlsName => f.write_str("a host's name, or str(NAME)"),
            Self::Server => f.write_str("the name of a server of this section"),
            Self::Harmless => f.write_str("letters, digits and _.:@/,=+*[]~-"),
        }
    }
}

const MOST: i64 = i32::MAX as i64;
const COUNT: Kind = Kind::Number { min: 0, max: MOST };
const NATURAL: Kind = Kind::Number { min: 1, max: MOST };
/// `rise` and `fall`: HAProxy adds the two, so half of its range and less.
const CHECKS: Kind = Kind::Number { min: 1, max: 100_000 };
/// No limit, or this one.
const LIMIT: Kind = Kind::Number { min: -1, max: MOST };
const TIME: Kind = Kind::Time { min_ms: 0 };
/// Between two checks. HAProxy takes a millisecond, with which one registration would keep it busy.
const PAUSE: Kind = Kind::Time { min_ms: 100 };
const TLS: Kind = Kind::OneOf(&["TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"]);
const TLS_NAMES: Kind = Kind::Text(b"_:+.-");
const FLAG: Kind = Kind::Flag;

/// What a registration may say.
const KEYWORDS: &[(&str, Kind)] = &[
    ("allow-0rtt", FLAG),
    ("alpn", Kind::Protocols),
    ("backup", FLAG),
    ("check", FLAG),
    ("check-alpn", Kind::Protocols),
    ("check-pool-conn-name", Kind::Host),
    ("check-proto", Kind::OneOf(&["h1", "h2", "none"])),
    ("check-reuse-pool", FLAG),
    ("check-send-proxy", FLAG),
    ("check-sni", Kind::Host),
    ("check-ssl", FLAG),
    ("ciphers", Kind::Text(b"_:+.!@=-")),
    ("ciphersuites", TLS_NAMES),
    ("client-sigalgs", TLS_NAMES),
    ("cookie", Kind::Text(b"_.:@/+=~-")),
    ("curves", TLS_NAMES),
    ("disabled", FLAG),
    ("downinter", PAUSE),
    ("enabled", FLAG),
    ("error-limit", NATURAL),
    ("fall", CHECKS),
    ("fastinter", PAUSE),
    ("force-tlsv10", FLAG),
    ("force-tlsv11", FLAG),
    ("force-tlsv12", FLAG),
    ("force-tlsv13", FLAG),
    ("id", NATURAL),
    ("idle-ping", TIME),
    ("init-state", Kind::OneOf(&["up", "down", "fully-up", "fully-down"])),
    ("inter", PAUSE),
    ("max-reuse", LIMIT),
    ("maxconn", COUNT),
    ("maxqueue", COUNT),
    ("minconn", COUNT),
    ("no-backup", FLAG),
    ("no-check", FLAG),
    ("no-check-send-proxy", FLAG),
    ("no-check-ssl", FLAG),
    ("no-send-proxy", FLAG),
    ("no-send-proxy-v2", FLAG),
    ("no-send-proxy-v2-ssl", FLAG),
    ("no-send-proxy-v2-ssl-cn", FLAG),
    ("no-ssl", FLAG),
    ("no-ssl-reuse", FLAG),
    ("no-sslv3", FLAG),
    ("no-tfo", FLAG),
    ("no-tls-tickets", FLAG),
    ("no-tlsv10", FLAG),
    ("no-tlsv11", FLAG),
    ("no-tlsv12", FLAG),
    ("no-tlsv13", FLAG),
    ("non-stick", FLAG),
    ("npn", Kind::Protocols),
    ("observe", Kind::OneOf(&["none", "layer4", "layer7"])),
    ("on-error", Kind::OneOf(&["fastinter", "fail-check", "sudden-death", "mark-down"])),
    ("on-marked-down", Kind::OneOf(&["shutdown-sessions"])),
    ("on-marked-up", Kind::OneOf(&["shutdown-backup-sessions"])),
    ("pool-conn-name", Kind::TlsName),
    ("pool-low-conn", COUNT),
    ("pool-max-conn", LIMIT),
    ("pool-purge-delay", TIME),
    ("port", Kind::Number { min: 1, max: 65_535 }),
    ("proto", Kind::OneOf(&["h1", "h2", "none"])),
    (
        "proxy-v2-options",
        Kind::ListOf(&["ssl", "cert-cn", "ssl-cipher", "cert-sig", "cert-key", "authority", "crc32c", "unique-id"]),
    ),
    ("resolve-opts", Kind::ListOf(&["allow-dup-ip", "ignore-weight", "prevent-dup-ip"])),
    ("resolve-prefer", Kind::OneOf(&["ipv4", "ipv6"])),
    ("rise", CHECKS),
    ("send-proxy", FLAG),
    ("send-proxy-v2", FLAG),
    ("send-proxy-v2-ssl", FLAG),
    ("send-proxy-v2-ssl-cn", FLAG),
    ("sigalgs", TLS_NAMES),
    ("slowstart", TIME),
    ("sni", Kind::TlsName),
    ("sni-auto", FLAG),
    ("ssl", FLAG),
    ("ssl-max-ver", TLS),
    ("ssl-min-ver", TLS),
    ("ssl-reuse", FLAG),
    ("stick", FLAG),
    ("strict-maxconn", FLAG),
    ("tcp-ut", TIME),
    ("tfo", FLAG),
    ("tls-tickets", FLAG),
    ("track", Kind::Server),
    ("verify", Kind::OneOf(&["none", "required"])),
    ("verifyhost", Kind::Host),
    ("weight", Kind::Number { min: 0, max: 256 }),
    ("ws", Kind::OneOf(&["auto", "h1", "h2"])),
];

/// Keywords that a registration may not use, and whether something follows: they name a file, another host, a secret, a redirect or
/// what other sections share. The operator may permit them (`haproxy.allow_registry_options`).
pub(super) const DENIED: &[(&str, bool)] = &[
    ("addr", true),
    ("agent-addr", true),
    ("agent-check", false),
    ("agent-inter", true),
    ("agent-port", true),
    ("agent-send", true),
    ("ca-file", true),
    ("check-via-socks4", false),
    ("crl-file", true),
    ("crt", true),
    ("force-sslv3", false),
    ("guid", true),
    ("hash-key", true),
    ("init-addr", true),
    ("interface", true),
    ("log-bufsize", true),
    ("log-proto", true),
    ("namespace", true),
    ("redir", true),
    ("resolve-net", true),
    ("resolvers", true),
    ("set-proxy-v2-tlv-fmt", true),
    ("shard", true),
    ("socks4", true),
    ("source", true),
    ("tcp-md5sig", true),
    ("usesrc", true),
];

/// Whether a word is one of the keywords. None of them is an argument, so that no reader of a line takes one for the other.
pub(super) fn is_keyword(word: &str) -> bool {
    keyword(word).is_some() || DENIED.iter().any(|(name, _)| *name == word)
}

/// A keyword that a registration may use, and what follows it.
pub(super) fn keyword(word: &str) -> Option<(&'static str, Kind)> {
    KEYWORDS.iter().find(|(name, _)| *name == word).copied()
}

/// All of them, for tests.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, Kind)> {
    KEYWORDS.iter().copied()
}
