//! The headers that tell a backend who its client is: which the edge removes from a request, whoever sent it.
//!
//! Programs behind CGI, FastCGI, WSGI and the like read `X_Forwarded.For` as `HTTP_X_FORWARDED_FOR`, just as `X-Forwarded-For` (RFC 3875,
//! section 4.1.18; lighttpd folds every character that is neither letter nor digit). So all characters but those are one here. The edge
//! removes everything that is called so, but for the five headers that it sets itself, in their one right spelling: see
//! templates/edge.tera. What is left of those is the edge's own word, or a trusted proxy's.
//!
//! The expressions are POSIX extended ones, so that a HAProxy without PCRE takes them, too.

/// Names that a header of this kind begins with; `-` stands for any characters that are neither letters nor digits.
///
/// Sources: RFC 7239 (`Forwarded`), RFC 9440 (`Client-Cert`), the manuals of nginx, Apache's `mod_ssl`, IIS (ARR), Envoy, Traefik, `WebLogic`,
/// Cloudflare, Fastly, Akamai, Azure and App Engine, and the headers that frameworks believe: Symfony and IIS (`X-Original-URL`,
/// `X-Rewrite-URL`), Rails (`Client-IP`), Django's and Grafana's logins by a proxy (`Remote-User`, `X-WebAuth-User`).
const BEGINNINGS: &[&str] = &[
    "forwarded",
    "front-end-https",
    "x-original-",
    "x-rewrite-",
    "x-http-host",
    "x-url-scheme",
    "x-ssl",
    "x-tls-",
    "x-mtls-",
    "x-client-ip",
    "x-client-addr",
    "x-client-cert",
    "x-client-verify",
    "x-client-dn",
    "x-client-s-dn",
    "x-cluster-client-",
    "x-remote-",
    "x-originating-",
    "x-proxyuser-",
    "x-webauth-",
    "x-arr-",
    "x-amzn-mtls-",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-appengine-",
    "x-envoy-external-",
    "x-envoy-internal",
    "x-envoy-original-",
    "x-envoy-peer-",
    "x-sendfile-type",
    "x-accel-",
    "client-ip",
    "client-cert",
    "client-verify",
    "true-client-",
    "real-ip",
    "remote-",
    "ssl-",
    "tls-client-",
    "cf-connecting-",
    "cf-ipcountry",
    "cf-visitor",
    "fastly-client-",
    "fastly-ssl",
    "wl-proxy-",
    "proxy-client-",
    "proxy-ssl-",
    "proxy-connection",
];

/// Names that are a header of this kind as a whole. `Proxy` and `HTTPS` become the environment's `HTTP_PROXY` (CVE-2016-5385,
/// "httpoxy") and `HTTP_HTTPS`.
const WHOLE: &[&str] = &["proxy", "https", "x-host", "x-https", "x-proto", "x-scheme"];

/// Families of which the edge sets some itself: a word after `x-`, what must follow it, and after a hyphen the edge's own, sorted.
const FAMILIES: &[(&str, &str, &[&str])] =
    &[("forwarded", "", &["for", "host", "port", "proto"]), ("real", GAP, &["ip"])];

/// Any characters that are neither letters nor digits. HAProxy knows names of headers in lower case only.
const GAP: &str = "[^a-z0-9]";

/// Expressions of the names of headers to remove.
pub fn forged() -> Vec<String> {
    let spelt = |names: &[&str]| names.iter().map(|name| name.replace('-', &format!("{GAP}+"))).collect::<Vec<_>>();
    let mut all = vec![format!("^({}){GAP}*$", spelt(WHOLE).join("|"))];
    all.extend(spelt(BEGINNINGS).chunks(8).map(|some| format!("^({})", some.join("|"))));
    for (word, next, own) in FAMILIES {
        let odd = if next.is_empty() { "[^-]|$" } else { "[^a-z0-9-]" };
        all.push(format!("^x([^a-z0-9-]|-{GAP}){GAP}*{word}{next}"));
        all.push(format!("^x-{word}({odd}|-{})", all_but(own)));
    }
    all
}

/// What matches every text, from here to its end or as far as need be, but those, which are sorted.
fn all_but(texts: &[&str]) -> String {
    let mut firsts: Vec<char> = texts.iter().filter_map(|text| text.chars().next()).collect();
    firsts.dedup();
    let here = texts.iter().any(|text| text.is_empty());
    if firsts.is_empty() {
        return if here { "." } else { "" }.to_owned();
    }
    let mut ways = vec![format!("[^{}]", firsts.iter().collect::<String>())];
    if !here {
        ways.push("$".to_owned());
    }
    for first in firsts {
        let rest: Vec<&str> = texts.iter().filter_map(|text| text.strip_prefix(first)).collect();
        ways.push(format!("{first}{}", all_but(&rest)));
    }
    format!("({})", ways.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_of_all_but_some_texts_is_short_and_needs_no_perl() {
        assert_eq!(all_but(&["for"]), "([^f]|$|f([^o]|$|o([^r]|$|r.)))");
        assert_eq!(all_but(&["a", "ab"]), "([^a]|$|a([^b]|b.))");
        for expression in forged() {
            assert!(expression.len() < 600 && !expression.contains("(?") && !expression.contains('\\'), "{expression}");
            assert!(expression.bytes().all(|b| b.is_ascii_graphic() && !b"#\"'%{}".contains(&b)), "{expression}");
        }
    }
}
