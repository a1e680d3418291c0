//! Which lines belong into a frontend and which into a backend.
//!
//! Synapse splits `listen` by the first words of a line, as a prefix, without regard to case and to runs of blanks. Its
//! table was that of HAProxy 1.5 and 1.6; keywords that it knows go where it puts them, and newer ones where HAProxy's
//! manual (sections 4.1 and 4.2, up to 3.2) allows them.

/// The two sections that a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `frontend`.
    Frontend,
    /// `backend`.
    Backend,
}

/// Synapse's keywords of both sections.
const BOTH: &[&str] = &[
    "acl",
    "bind-process",
    "block",
    "compression",
    "description",
    "disabled",
    "email-alert from",
    "email-alert level",
    "email-alert mailers",
    "email-alert myhostname",
    "email-alert to",
    "enabled",
    "errorfile",
    "errorloc",
    "force-persist",
    "grace",
    "http-request",
    "http-response",
    "id",
    "ignore-persist",
    "log",
    "mode",
    "option forceclose",
    "option forwardfor",
    "option http-buffer-request",
    "option http-keep-alive",
    "option http-no-delay",
    "option http-pretend-keepalive",
    "option http-server-close",
    "option http-tunnel",
    "option http_proxy",
    "option httpclose",
    "option httplog",
    "option independent-streams",
    "option nolinger",
    "option originalto",
    "option splice-auto",
    "option splice-request",
    "option splice-response",
    "option tcpka",
    "option tcplog",
    "redirect",
    "stats admin",
    "stats auth",
    "stats enable",
    "stats hide-version",
    "stats http-request",
    "stats realm",
    "stats refresh",
    "stats scope",
    "stats show-desc",
    "stats show-legends",
    "stats show-node",
    "stats uri",
    "tcp-request content",
    "tcp-request inspect-delay",
    "timeout http-keep-alive",
    "timeout http-request",
    "timeout tarpit",
];

/// Synapse's keywords of frontends alone.
const FRONTEND: &[&str] = &[
    "backlog",
    "bind",
    "capture cookie",
    "capture request header",
    "capture response header",
    "declare capture",
    "default_backend",
    "maxconn",
    "monitor fail",
    "monitor-net",
    "monitor-uri",
    "option accept-invalid-http-request",
    "option clitcpka",
    "option contstats",
    "option dontlog-normal",
    "option dontlognull",
    "option http-ignore-probes",
    "option http-use-proxy-header",
    "option log-separate-errors",
    "option logasap",
    "option socket-stats",
    "option tcp-smart-accept",
    "rate-limit sessions",
    "tcp-request connection",
    "timeout client",
    "unique-id-format",
    "unique-id-header",
    "use_backend",
];

/// Synapse's keywords of backends alone.
const BACKEND: &[&str] = &[
    "balance",
    "cookie",
    "default-server",
    "dispatch",
    "fullconn",
    "hash-type",
    "http-check disable-on-404",
    "http-check expect",
    "http-check send-state",
    "http-reuse",
    "http-send-name-header",
    "load-server-state-from-file",
    "max-keep-alive-queue",
    "option abortonclose",
    "option accept-invalid-http-response",
    "option allbackups",
    "option allredisp",
    "option checkcache",
    "option external-check",
    "option httpchk",
    "option lb-agent-chk",
    "option ldap-check",
    "option log-health-checks",
    "option mysql-check",
    "option persist",
    "option pgsql-check",
    "option prefer-last-server",
    "option redis-check",
    "option redispatch",
    "option smtpchk",
    "option srvtcpka",
    "option ssl-hello-chk",
    "option tcp-check",
    "option tcp-smart-connect",
    "option transparent",
    "external-check command",
    "external-check path",
    "persist rdp-cookie",
    "retries",
    "server",
    "source",
    "stick match",
    "stick on",
    "stick store-request",
    "stick store-response",
    "stick-table",
    "tcp-check connect",
    "tcp-check expect",
    "tcp-check send",
    "tcp-response content",
    "tcp-response inspect-delay",
    "timeout check",
    "timeout connect",
    "timeout queue",
    "timeout server",
    "timeout tunnel",
    "transparent",
    "use-server",
];

/// Newer keywords of both sections.
const NEW_BOTH: &[&str] = &[
    "errorfiles",
    "filter",
    "guid",
    "http-after-response",
    "http-error",
    "option http-restrict-req-hdr-names",
    "stick-table",
    "unique-id-format",
];

/// Newer keywords of frontends alone.
const NEW_FRONTEND: &[&str] = &[
    "clitcpka-cnt",
    "clitcpka-idle",
    "clitcpka-intvl",
    "error-log-format",
    "log-steps",
    "option accept-unsafe-violations-in-http-request",
    "option disable-h2-upgrade",
    "option h1-case-adjust-bogus-client",
    "option http-drop-request-trailers",
    "option httpslog",
    "option idle-close-on-response",
    "tcp-request session",
    "timeout client-hs",
];

/// Newer keywords of backends alone.
const NEW_BACKEND: &[&str] = &[
    "dynamic-cookie-key",
    "hash-balance-factor",
    "hash-preserve-affinity",
    "http-check comment",
    "http-check connect",
    "http-check send",
    "http-check set-var",
    "http-check unset-var",
    "option accept-unsafe-violations-in-http-response",
    "option h1-case-adjust-bogus-server",
    "option http-drop-response-trailers",
    "option http-use-htx",
    "option spop-check",
    "retry-on",
    "srvtcpka-cnt",
    "srvtcpka-idle",
    "srvtcpka-intvl",
    "tcp-check comment",
    "tcp-check set-var",
    "tcp-check unset-var",
    "use-fcgi-app",
];

/// The line as the tables have it, without a leading `no` before `option` and `log`.
fn normal(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let text = words.join(" ").to_lowercase();
    match text.strip_prefix("no ").or_else(|| text.strip_prefix("default ")) {
        Some(rest) if rest.starts_with("option ") || rest.starts_with("log") => rest.to_owned(),
        _ => text,
    }
}

fn among(line: &str, tables: &[&[&str]]) -> bool {
    tables.iter().any(|table| table.iter().any(|keyword| line.starts_with(keyword)))
}

/// Whether a line may stand in a service's own list for that section.
pub fn fits(line: &str, side: Side) -> bool {
    let line = normal(line);
    match side {
        Side::Frontend => among(&line, &[BOTH, FRONTEND, NEW_BOTH, NEW_FRONTEND]),
        Side::Backend => among(&line, &[BOTH, BACKEND, NEW_BOTH, NEW_BACKEND]),
    }
}

/// Where a `listen` line goes: (frontend, backend). A line that fits neither is for the backend, where HAProxy judges it;
/// the third tells so.
pub fn split(line: &str) -> (bool, bool, bool) {
    let line = normal(line);
    let old = (among(&line, &[BOTH, FRONTEND]), among(&line, &[BOTH, BACKEND]));
    let new = || (among(&line, &[NEW_BOTH, NEW_FRONTEND]), among(&line, &[NEW_BOTH, NEW_BACKEND]));
    match if old == (false, false) { new() } else { old } {
        (false, false) => (false, true, true),
        (frontend, backend) => (frontend, backend, false),
    }
}

/// An extra section's title and first lines: an address in the title, refused since HAProxy 1.8, becomes a `bind` line.
pub fn title(title: &str) -> (String, Option<String>) {
    let words: Vec<&str> = title.split_whitespace().collect();
    match words.as_slice() {
        [kind @ ("listen" | "frontend"), name, address @ ..] if !address.is_empty() => {
            (format!("{kind} {name}"), Some(format!("bind {}", address.join(" "))))
        }
        _ => (title.trim().to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_lines_go_where_synapse_puts_them() {
        for (line, want) in [
            ("mode http", (true, true)),
            ("  MODE   http", (true, true)),
            ("modest proposal", (true, true)),
            ("option httplog", (true, true)),
            ("no option  httpchk GET /", (false, true)),
            ("option httpchk GET /", (false, true)),
            ("timeout client 1m", (true, false)),
            ("timeout client-fin 1m", (true, false)),
            ("timeout server 1m", (false, true)),
            ("log-format %ci", (true, true)),
            ("server-template a 3 h:80", (false, true)),
            ("stick-table type ip size 1m", (false, true)),
            ("balance leastconn", (false, true)),
            ("default-server inter 1s", (false, true)),
            ("use_backend x if y", (true, false)),
            ("http-check expect status 200", (false, true)),
            ("stats uri /", (true, true)),
            ("no log", (true, true)),
        ] {
            let (frontend, backend, unknown) = split(line);
            assert_eq!(((frontend, backend), unknown), (want, false), "{line}");
        }
    }

    #[test]
    fn modern_lines_are_kept_and_unknown_ones_left_to_haproxy() {
        assert_eq!(split("http-check send meth GET"), (false, true, false));
        assert_eq!(split("retry-on conn-failure"), (false, true, false));
        assert_eq!(split("http-after-response set-header a b"), (true, true, false));
        assert_eq!(split("tcp-request session reject"), (true, false, false));
        assert_eq!(split("option idle-close-on-response"), (true, false, false));
        assert_eq!(split("quux 1"), (false, true, true));
        assert!(fits("stick-table type ip size 1m", Side::Frontend) && fits("unique-id-format %x", Side::Backend));
        assert!(!fits("balance source", Side::Frontend) && !fits("quux 1", Side::Backend));
    }

    #[test]
    fn an_address_in_a_title_becomes_a_bind_line() {
        assert_eq!(title("listen stats :3212"), ("listen stats".into(), Some("bind :3212".into())));
        assert_eq!(title("listen stats"), ("listen stats".into(), None));
        assert_eq!(title("userlist u"), ("userlist u".into(), None));
    }
}
