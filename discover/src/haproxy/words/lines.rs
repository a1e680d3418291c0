//! What a section from the registry may say, line by line: a list of directives, each with arguments that stay within the section.
//!
//! Nothing here names a file, a program, a variable of the environment, another host or another section: expressions are made of
//! fetches and converters that look at the request alone.

use super::options::harmless;

/// What follows a directive.
#[derive(Clone, Copy)]
enum Rest {
    /// Harmless words.
    Words,
    /// The same, and expressions of [`FETCHES`].
    Rule,
}
use Rest::{Rule, Words};

/// Directives, by their first words. Source: configuration manual, section 4.1, up to 3.4.
const DIRECTIVES: &[(&str, Rest)] = &[
    ("acl", Rule),
    ("backlog", Words),
    ("balance", Rule),
    ("capture cookie", Words),
    ("capture request header", Words),
    ("capture response header", Words),
    ("compression algo", Words),
    ("compression offload", Words),
    ("compression type", Words),
    ("cookie", Words),
    ("declare capture", Words),
    ("description", Rule),
    ("disabled", Words),
    ("dynamic-cookie-key", Words),
    ("enabled", Words),
    ("force-persist", Rule),
    ("fullconn", Words),
    ("hash-balance-factor", Words),
    ("hash-type", Words),
    ("http-after-response add-header", Rule),
    ("http-after-response del-header", Rule),
    ("http-after-response set-header", Rule),
    ("http-check comment", Rule),
    ("http-check disable-on-404", Words),
    ("http-check expect", Rule),
    ("http-check send", Rule),
    ("http-request add-header", Rule),
    ("http-request allow", Rule),
    ("http-request del-header", Rule),
    ("http-request deny", Rule),
    ("http-request disable-l7-retry", Rule),
    ("http-request redirect", Rule),
    ("http-request reject", Rule),
    ("http-request replace-header", Rule),
    ("http-request replace-path", Rule),
    ("http-request replace-value", Rule),
    ("http-request set-header", Rule),
    ("http-request set-log-level", Rule),
    ("http-request set-method", Rule),
    ("http-request set-path", Rule),
    ("http-request set-query", Rule),
    ("http-request set-var", Rule),
    ("http-request tarpit", Rule),
    ("http-request unset-var", Rule),
    ("http-response add-header", Rule),
    ("http-response allow", Rule),
    ("http-response del-header", Rule),
    ("http-response deny", Rule),
    ("http-response replace-header", Rule),
    ("http-response replace-value", Rule),
    ("http-response set-header", Rule),
    ("http-response set-status", Rule),
    ("http-reuse", Words),
    ("http-send-name-header", Words),
    ("ignore-persist", Rule),
    ("log global", Words),
    ("max-keep-alive-queue", Words),
    ("maxconn", Words),
    ("mode http", Words),
    ("mode tcp", Words),
    ("monitor fail", Rule),
    ("monitor-uri", Words),
    ("option abortonclose", Words),
    ("option allbackups", Words),
    ("option checkcache", Words),
    ("option clitcpka", Words),
    ("option contstats", Words),
    ("option dontlog-normal", Words),
    ("option dontlognull", Words),
    ("option forwardfor", Words),
    ("option http-buffer-request", Words),
    ("option http-ignore-probes", Words),
    ("option http-keep-alive", Words),
    ("option http-no-delay", Words),
    ("option http-pretend-keepalive", Words),
    ("option http-server-close", Words),
    ("option httpchk", Rule),
    ("option httpclose", Words),
    ("option httplog", Words),
    ("option idle-close-on-response", Words),
    ("option independent-streams", Words),
    ("option ldap-check", Words),
    ("option log-health-checks", Words),
    ("option log-separate-errors", Words),
    ("option logasap", Words),
    ("option mysql-check", Words),
    ("option nolinger", Words),
    ("option originalto", Words),
    ("option persist", Words),
    ("option pgsql-check", Words),
    ("option prefer-last-server", Words),
    ("option redis-check", Words),
    ("option redispatch", Words),
    ("option smtpchk", Words),
    ("option socket-stats", Words),
    ("option splice-auto", Words),
    ("option srvtcpka", Words),
    ("option ssl-hello-chk", Words),
    ("option tcp-check", Words),
    ("option tcp-smart-accept", Words),
    ("option tcp-smart-connect", Words),
    ("option tcpka", Words),
    ("option tcplog", Words),
    ("persist rdp-cookie", Rule),
    ("rate-limit sessions", Words),
    ("redirect location", Rule),
    ("redirect prefix", Rule),
    ("redirect scheme", Rule),
    ("retries", Words),
    ("retry-on", Words),
    ("stick match", Rule),
    ("stick on", Rule),
    ("stick store-request", Rule),
    ("stick-table type", Words),
    ("tcp-check comment", Rule),
    ("tcp-check connect", Words),
    ("tcp-check expect", Rule),
    ("tcp-check send", Rule),
    ("tcp-check send-binary", Words),
    ("tcp-request connection accept", Rule),
    ("tcp-request connection reject", Rule),
    ("tcp-request content accept", Rule),
    ("tcp-request content reject", Rule),
    ("tcp-request inspect-delay", Words),
    ("tcp-response inspect-delay", Words),
    ("timeout", Words),
    ("unique-id-header", Words),
];

/// Fetches, converters and actions with arguments: of the request, the response and their variables.
const FETCHES: &[&str] = &[
    "base64",
    "bool",
    "bytes",
    "cook",
    "cook_beg",
    "cook_end",
    "cook_reg",
    "cook_sub",
    "field",
    "hdr",
    "hdr_beg",
    "hdr_cnt",
    "hdr_dir",
    "hdr_dom",
    "hdr_end",
    "hdr_ip",
    "hdr_len",
    "hdr_reg",
    "hdr_sub",
    "hdr_val",
    "int",
    "ipmask",
    "lower",
    "payload",
    "rdp-cookie",
    "rdp_cookie",
    "req.cook",
    "req.fhdr",
    "req.hdr",
    "req.payload",
    "res.cook",
    "res.fhdr",
    "res.hdr",
    "shdr",
    "str",
    "upper",
    "url_dec",
    "url_param",
    "urlp",
    "urlp_beg",
    "urlp_end",
    "urlp_reg",
    "urlp_sub",
    "word",
];

/// Those whose argument is the name of a variable.
const VARIABLES: &[&str] = &["set-var", "unset-var", "var"];

/// Words that name a file, another section or another host.
const REACHING: &[&str] =
    &["-f", "-M", "addr", "errorfile", "errorfiles", "file", "lf-file", "peers", "set-dst", "table", "via-socks4"];

/// What a line says that a registry may not say. `permitted` are first words that the operator lets through.
pub fn problem(line: &str, permitted: &[String]) -> Option<String> {
    let words = match split(line) {
        Ok(words) => words,
        Err(why) => return Some(format!("{line:?}: {why}")),
    };
    let first = words.first()?;
    // `no option …` and `no log` are of their directive.
    let negated = first == "no" && words.get(1).is_some_and(|w| w == "option" || w == "log");
    let own = if negated { &words[1..] } else { &words[..] };
    let found = DIRECTIVES.iter().find_map(|(directive, rest)| {
        let mut head = directive.split(' ').zip(own);
        let length = directive.split(' ').count();
        // `http-request set-var(txn.x)`: the name ends at the parenthesis.
        let same = head.all(|(d, w)| w.split('(').next().unwrap_or_default().eq_ignore_ascii_case(d));
        (same && own.len() >= length).then_some((*rest, length))
    });
    let (rest, length) = match found {
        Some(found) => found,
        None if negated && own == ["log"] => return None,
        None if permitted.contains(first) => (Words, 1),
        None => return Some(format!("{line:?} is no line that a registry may say")),
    };
    let (head, arguments) = own.split_at(length);
    let bad = |word: &&String| match rest {
        Words => !harmless(word),
        Rule => !expression(word),
    };
    // The operator has permitted the directive with what it names.
    let reaches =
        |word: &&String| REACHING.contains(&word.as_str()) && !permitted.contains(first) && !permitted.contains(word);
    if let Some(word) = arguments.iter().find(reaches) {
        return Some(format!(
            "{line:?} names a file, another host or another section ({word}), which a registry may not"
        ));
    }
    let word = head.iter().filter(|w| !expression(w)).chain(arguments.iter().filter(bad)).next()?;
    Some(format!("{line:?} has {word:?}, which a registry may not say there"))
}

/// A line's words as HAProxy has them, or with more left of them: backslashes are taken out. Quotes hold whole words and `\\x…` is refused, so
/// no word is put together from pieces, and no sign has another writing.
fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut rest) = (Vec::new(), line.trim_start());
    if line.contains('"') && line.contains('$') {
        return Err("would be filled in from HAProxy's environment");
    }
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err("a control character");
    }
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '"' | '\'' => 1 + rest[1..].find(c).ok_or("a quote without its end")? + 1,
            _ => {
                let escaped = |at: usize| rest[..at].bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1;
                let end = rest.match_indices(char::is_whitespace).find(|(at, _)| !escaped(*at));
                end.map_or(rest.len(), |(at, _)| at)
            }
        };
        let (word, after) = rest.split_at(end);
        let inner = if matches!(c, '"' | '\'') { &word[1..word.len() - 1] } else { word };
        if inner.contains(['"', '\'', '#', '`']) || !(after.is_empty() || after.starts_with(char::is_whitespace)) {
            return Err("a quote or # within a word");
        }
        if inner.contains("\\x") || inner.ends_with('\\') {
            return Err("a backslash that writes another sign");
        }
        words.push(inner.replace('\\', ""));
        rest = after.trim_start();
    }
    Ok(words)
}

/// A word of a rule: whatever stands before a parenthesis, or is named as a variable, is one that we know.
fn expression(word: &str) -> bool {
    let name_byte = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    word.match_indices('(').all(|(at, _)| {
        let start = word.as_bytes()[..at].iter().rposition(|b| !name_byte(*b)).map_or(0, |n| n + 1);
        let (name, inner) = (&word[start..at], &word[at + 1..]);
        let variable = ["txn.", "req.", "res.", "sess."].iter().any(|scope| inner.starts_with(scope));
        name.is_empty() || FETCHES.contains(&name) || VARIABLES.contains(&name) && variable
    })
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn what_synapses_users_write_in_a_section_is_taken() {
        for good in [
            "mode http",
            "  MODE   tcp",
            "option httpchk GET /health",
            "option httpchk GET /ping HTTP/1.1\\r\\nHost:\\ x",
            "no option httpchk",
            "no log",
            "timeout server 5s",
            "log global",
            "http-request set-header X-A \"a b\"",
            "http-request set-header X-Real-IP %[src]",
            "http-request set-var(txn.a) req.hdr(host),lower",
            "http-request deny if { path_beg /admin } !{ src 10.0.0.0/8 }",
            "acl a path_beg /a",
            "acl a path_reg -i ^/a/\\d+\\.html$",
            "acl local hdr_dom(host) -i lb",
            "balance leastconn",
            "balance hdr(X-A)",
            "cookie SRV insert indirect nocache",
            "stick-table type ip size 1m expire 5m",
            "stick on src",
            "http-check expect status 200",
            "http-check expect rstring ^(ok|fine)",
        ] {
            assert_eq!(problem(good, &[]), None);
        }
    }

    #[test]
    fn no_line_reaches_beyond_its_section() {
        for bad in [
            "listen evil",
            "  Backend evil",
            "bind :1",
            "server x 10.9.9.9:1",
            "errorfile 503 /etc/shadow",
            "http-request return status 200 file /etc/shadow",
            "http-request set-header X %[env(ETCD_PASSWORD)]",
            "http-request set-header X %[e\"n\"v(ETCD_PASSWORD)]",
            "http-request set-header X '%[env(ETCD_PASSWORD)]'",
            "http-request set-header X %[e\\x6ev(ETCD_PASSWORD)]",
            "http-request set-header X %[\\x65nv(ETCD_PASSWORD)]",
            "http-request set-header X %[str(a),map_str(/etc/shadow)]",
            "http-request set-header X %[var(proc.secret)]",
            "http-request set-var(proc.x) src",
            "http-request set-var-fmt(txn.x) %[env(A)]",
            "http-request set-header X \"$HOME\"",
            "http-request lua.x",
            "http-request use-service prometheus-exporter",
            "http-request cache-use other",
            "http-request track-sc0 src table other",
            "http-request set-header X %[src,lua.leak]b(",
            "http-check send hdr X %[env(ETCD_PASSWORD)]",
            "acl a src -f /etc/shadow",
            "acl a nbsrv(other) gt 0",
            "acl a http_auth(users)",
            "use_backend other",
            "default_backend other",
            "use-server x if TRUE",
            "stats enable",
            "stats admin if TRUE",
            "stick-table type ip size 1m peers p",
            "stick match src table other",
            "tcp-check connect addr 10.9.9.9",
            "log 10.9.9.9 local0",
            "log-format %[env(A)]",
            "unique-id-format %[env(A)]",
            "option external-check",
            "filter spoe engine e config /etc/x",
            "timeout server \"$X\"",
            "timeout server ${X}",
            "description a # b",
            "quux",
            ".notice x",
        ] {
            assert!(problem(bad, &[]).is_some(), "{bad}");
        }
        assert_eq!(problem("errorfile 503 /x", &["errorfile".to_owned()]), None);
        assert!(problem("errorfile 503 \"$X\"", &["errorfile".to_owned()]).is_some());
    }
}
