//! The section `edge` → the edge's settings.

use std::collections::BTreeMap;
use std::str::FromStr;

use model::{HostPattern, PathPrefix, Port, Route};
use serde_json::{Map, Value};

use crate::edge::settings::{ConfigRule, Owners, Ownership};
use crate::edge::{EdgeSettings, Way};
use crate::synapse::Report;

/// Reads the keys of `section`, which the table has made regular; what is wrong is told under `path`.
pub fn edge(section: &Map<String, Value>, path: &str, report: &mut Report) -> EdgeSettings {
    let mut reader = Reader { section, path, report };
    let default = EdgeSettings::default();
    let mut owners: BTreeMap<HostPattern, Vec<_>> = BTreeMap::new();
    for (host, services) in section.get("hosts").and_then(Value::as_object).into_iter().flatten() {
        let at = format!("hosts.{host}");
        let services = reader.words(&at, services);
        if let Some(host) = reader.parsed(&at, host) {
            owners.insert(host, services);
        }
    }
    let whole = |key: &str| section.get(key).and_then(Value::as_u64);
    let port = |key: &str| whole(key).and_then(|p| Port::new(u16::try_from(p).ok()?));
    let listen = reader.text("listen").unwrap_or(default.listen);
    if port("sni_port") == Some(listen.port) {
        reader.error("sni_port", "is the port of plain HTTP");
    }
    EdgeSettings {
        listen,
        https_port: port("https_port").unwrap_or(default.https_port),
        sni_port: port("sni_port"),
        suffixes: reader.list("suffixes"),
        owners: Owners::new(owners),
        ownership: match section.get("ownership").and_then(Value::as_str) {
            Some("host") => Some(Ownership::Host),
            Some("path") => Some(Ownership::Path),
            Some("shared") => Some(Ownership::Shared),
            _ => None,
        },
        rules: reader.rules(),
        spare_sections: whole("spare_sections").and_then(|n| usize::try_from(n).ok()).unwrap_or(default.spare_sections),
        trusted: reader.list("trusted_proxies"),
        access_log: reader.text("access_log"),
        cookie_key: reader.text("cookie_key").unwrap_or(default.cookie_key),
        certificates: reader.list("certificates").into(),
    }
}

struct Reader<'a> {
    section: &'a Map<String, Value>,
    path: &'a str,
    report: &'a mut Report,
}

impl Reader<'_> {
    fn error(&mut self, at: &str, why: &str) {
        let path = if self.path.is_empty() { at.to_owned() } else { format!("{}.{at}", self.path) };
        self.report.error(&path, why);
    }

    fn parsed<T: FromStr<Err: ToString>>(&mut self, at: &str, text: &str) -> Option<T> {
        text.parse().map_err(|e: T::Err| self.error(at, &e.to_string())).ok()
    }

    fn text<T: FromStr<Err: ToString>>(&mut self, key: &str) -> Option<T> {
        let text = self.section.get(key)?.as_str()?;
        self.parsed(key, text)
    }

    fn words<T: FromStr<Err: ToString>>(&mut self, at: &str, list: &Value) -> Vec<T> {
        let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str).enumerate();
        texts.filter_map(|(n, text)| self.parsed(&format!("{at}[{n}]"), text)).collect()
    }

    fn list<T: FromStr<Err: ToString>>(&mut self, key: &str) -> Vec<T> {
        self.section.get(key).map(|list| self.words(key, list)).unwrap_or_default()
    }

    fn rules(&mut self) -> Vec<ConfigRule> {
        let mut rules: Vec<ConfigRule> = Vec::new();
        for (n, rule) in self.section.get("rules").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let at = |key: &str| format!("rules[{n}].{key}");
            let mut required = |key: &str| {
                let text = rule[key].as_str();
                if text.is_none() {
                    self.error(&at(key), "is required");
                }
                text
            };
            let (Some(host), Some(service)) = (required("host"), required("service")) else { continue };
            let host = self.parsed(&at("host"), host);
            let path = rule["path"].as_str().map_or_else(|| Some(PathPrefix::root()), |p| self.parsed(&at("path"), p));
            let service = self.parsed(&at("service"), service);
            let (Some(host), Some(path), Some(service)) = (host, path, service) else { continue };
            let is = |key: &str| rule[key].as_bool().unwrap_or_default();
            let way = if is("sni") { Way::Sni } else { Way::Http };
            let route = Route {
                strip_prefix: is("strip_prefix"),
                sticky: is("sticky"),
                redirect_https: is("redirect_https"),
                priority: rule["priority"].as_i64().and_then(|p| i32::try_from(p).ok()),
                ..Route::new(host, path)
            };
            const OF_REQUESTS: [&str; 5] = ["path", "strip_prefix", "sticky", "redirect_https", "priority"];
            if let Some(key) = OF_REQUESTS.iter().find(|key| way == Way::Sni && !rule[**key].is_null()) {
                self.error(&at(key), "means nothing with sni: TLS is passed through unread");
                continue;
            }
            let place = |way: Way, route: &Route| (way, route.host.clone(), route.path.clone());
            if rules.iter().any(|other| place(other.way, &other.route) == place(way, &route)) {
                self.error(&at("path"), "this host and path have a rule already");
            } else {
                rules.push(ConfigRule { service, way, route });
            }
        }
        rules
    }
}
