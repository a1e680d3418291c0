//! HAProxy directives that Synapse's configs carry and no supported HAProxy takes any more, with their modern form.
//!
//! Source: HAProxy's configuration manual and changelog, 1.6 to 3.2.

/// What is to be said about a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// HAProxy refuses it.
    Removed(&'static str),
    /// HAProxy takes it, with a warning or as a word without effect.
    OldFashioned(&'static str),
}

use Verdict::{OldFashioned, Removed};

const REQREP: &str = "http-request replace-path, replace-uri or replace-header";
const REQADD: &str = "http-request add-header NAME VALUE";
const REQDEL: &str = "http-request del-header NAME";
const REQDENY: &str = "http-request deny if { … }";
const REQALLOW: &str = "http-request allow if { … }";
const REQTARPIT: &str = "http-request tarpit if { … }";
const REQSETBE: &str = "use_backend NAME if { … }";
const RSPADD: &str = "http-response add-header NAME VALUE";
const RSPDEL: &str = "http-response del-header NAME";
const RSPDENY: &str = "http-response deny if { … }";
const RSPREP: &str = "http-response replace-header NAME REGEX VALUE";
const NO_PROCESSES: &str = "nothing: HAProxy has threads (nbthread) and one process";

/// First words, and what they became. Longer ones first where one begins with another.
const TABLE: &[(&str, Verdict)] = &[
    ("reqadd", Removed(REQADD)),
    ("reqrep", Removed(REQREP)),
    ("reqirep", Removed(REQREP)),
    ("reqdel", Removed(REQDEL)),
    ("reqidel", Removed(REQDEL)),
    ("reqdeny", Removed(REQDENY)),
    ("reqideny", Removed(REQDENY)),
    ("reqallow", Removed(REQALLOW)),
    ("reqiallow", Removed(REQALLOW)),
    ("reqpass", Removed(REQALLOW)),
    ("reqipass", Removed(REQALLOW)),
    ("reqtarpit", Removed(REQTARPIT)),
    ("reqitarpit", Removed(REQTARPIT)),
    ("reqsetbe", Removed(REQSETBE)),
    ("reqisetbe", Removed(REQSETBE)),
    ("rspadd", Removed(RSPADD)),
    ("rspdel", Removed(RSPDEL)),
    ("rspidel", Removed(RSPDEL)),
    ("rspdeny", Removed(RSPDENY)),
    ("rspideny", Removed(RSPDENY)),
    ("rsprep", Removed(RSPREP)),
    ("rspirep", Removed(RSPREP)),
    ("appsession", Removed("stick-table with stick on, or cookie NAME")),
    ("contimeout", Removed("timeout connect TIME")),
    ("clitimeout", Removed("timeout client TIME")),
    ("srvtimeout", Removed("timeout server TIME")),
    ("timeout contimeout", Removed("timeout connect TIME")),
    ("timeout clitimeout", Removed("timeout client TIME")),
    ("timeout srvtimeout", Removed("timeout server TIME")),
    ("block", Removed("http-request deny if …")),
    ("redisp", Removed("option redispatch")),
    ("redispatch", Removed("option redispatch")),
    ("nbproc", Removed(NO_PROCESSES)),
    ("bind-process", Removed(NO_PROCESSES)),
    ("option forceclose", OldFashioned("option httpclose")),
    ("option http-tunnel", OldFashioned("nothing: it is no more")),
    ("option http_proxy", OldFashioned("http-request set-dst, or a real forward proxy")),
    ("option httpclose", OldFashioned("option http-server-close, or nothing: keep-alive is the default")),
    ("transparent", OldFashioned("option transparent")),
    ("monitor-net", OldFashioned("monitor-uri, or http-request return status 200 if { src … }")),
    ("grace", OldFashioned("nothing: HAProxy's own reload waits")),
];

/// What there is to say about one line of a HAProxy section.
pub fn verdict(line: &str) -> Option<Verdict> {
    let words = line.split_whitespace().map(str::to_ascii_lowercase);
    let words: Vec<String> = words.skip_while(|w| w == "no").take(2).collect();
    let (first, both) = (words.first()?.clone(), words.join(" "));
    TABLE.iter().find(|(name, _)| *name == first || *name == both).map(|(_, verdict)| *verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_named_with_its_modern_form() {
        assert_eq!(verdict("reqadd X-A:\\ b"), Some(Removed(REQADD)));
        assert_eq!(verdict("  ReqIRep  ^x y"), Some(Removed(REQREP)));
        assert_eq!(verdict("timeout  clitimeout 1m"), Some(Removed("timeout client TIME")));
        assert_eq!(verdict("nbproc 4"), Some(Removed(NO_PROCESSES)));
        assert_eq!(verdict("option forceclose"), Some(OldFashioned("option httpclose")));
        for good in ["option redispatch", "timeout client 1m", "http-request deny", "", "blocked"] {
            assert_eq!(verdict(good), None, "{good}");
        }
    }
}
