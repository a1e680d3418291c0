//! Keys of the HTTP edge's own section.

use super::{ANY_NUMBER, Key, Kind, NATURAL, PORT_NUMBER, ours};

const TEST: &str = "the_edge_is_read_from_its_section";

/// The HTTP edge; also the whole of a file for `--edge-config`.
pub const EDGE: &[Key] = &[
    ours("listen", Kind::Text, ":80", "Where it listens for plain HTTP: `ADDRESS:PORT`, `:PORT` or `PORT`.", TEST),
    ours(
        "https_port",
        PORT_NUMBER,
        "443",
        "The port of HTTPS, where there are certificates, and to which `redirect_https` leads.",
        TEST,
    ),
    ours(
        "sni_port",
        PORT_NUMBER,
        "",
        "Where TLS is passed through to services by the name that the client asks for; on `https_port` both share it. Without it, nowhere.",
        TEST,
    ),
    ours("suffixes", Kind::Lines, "[]", "Every service that speaks HTTP has the host `SERVICE.SUFFIX`.", TEST),
    ours(
        "hosts",
        Kind::Map(&Kind::Lines),
        "{}",
        "Whose a host is: names of services, `*` standing for anything. A host `*.NAME` is every one below NAME. Nobody else gets a rule for it.",
        TEST,
    ),
    ours(
        "ownership",
        Kind::Word(&["path", "host", "shared"]),
        "path",
        "What the first claim to a host not listed there holds: its path, the whole host, or nothing (`shared`: all services that claim a place serve it together, the default of `--docker`).",
        TEST,
    ),
    ours("rules", Kind::Objects(RULE), "[]", "Rules that come before those of all registrations.", TEST),
    ours(
        "spare_sections",
        NATURAL,
        "16",
        "Empty sections for services to come: as many need no reload. From HAProxy 3.4 on for sticky services only.",
        TEST,
    ),
    ours(
        "trusted_proxies",
        Kind::Lines,
        "[]",
        "Addresses and networks of proxies in front whose X-Forwarded-* headers are believed.",
        TEST,
    ),
    ours(
        "access_log",
        Kind::Text,
        "",
        "Where one JSON object for each request goes: stdout, stderr, a socket's path, `ADDRESS:PORT` of a syslog server.",
        TEST,
    ),
    ours(
        "certificates",
        Kind::Lines,
        "[]",
        "Files and directories of certificates with their keys, for HTTPS by SNI; rotated at run time.",
        TEST,
    ),
    ours(
        "cookie_key",
        Kind::Text,
        "discover",
        "Goes into sticky cookies: edges with the same one send a client to the same backend.",
        TEST,
    ),
];

const RULE: &[Key] = &[
    ours("host", Kind::Text, "", "The host, or `*.NAME`; required.", TEST).required(),
    ours("path", Kind::Text, "/", "The path; all below it is meant, too.", TEST),
    ours("service", Kind::Text, "", "Who answers; required. It need not be there yet.", TEST).required(),
    ours(
        "sni",
        Kind::Bool,
        "false",
        "TLS of the host is passed through to the service unread; needs `sni_port`.",
        TEST,
    ),
    ours("strip_prefix", Kind::Bool, "false", "The service sees what lies below the path.", TEST),
    ours("sticky", Kind::Bool, "false", "A client stays with one backend, by a cookie.", TEST),
    ours("redirect_https", Kind::Bool, "false", "Plain HTTP is answered with a redirect.", TEST),
    ours(
        "priority",
        ANY_NUMBER,
        "the length of host and path",
        "A path with a higher one takes the requests of longer paths, too.",
        TEST,
    ),
];
