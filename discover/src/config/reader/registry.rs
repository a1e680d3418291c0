//! Sections that come from the registry (Synapse's `generator_config_path`): each takes the place of the service's own,
//! whole or not at all. Whoever may write there is not the operator, so lines that name files, programs or other hosts,
//! or that begin another section, are refused, as they are in a registration's options.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::service::Sections;
use super::{Reader, each_line};
use crate::config::keys::{SERVICE, SERVICE_HAPROXY, SERVICE_NGINX};
use crate::config::types::Service;
use crate::config::{ConfigError, Report, check};
use crate::generators::haproxy::synapse::{lines, options};

/// The generators whose sections a registry may hold.
const GENERATORS: [&str; 3] = ["haproxy", "file_output", "nginx"];

/// Words that begin a section of haproxy.cfg (configuration manual, up to 3.2).
const TITLES: &[&str] = &[
    "acme",
    "backend",
    "cache",
    "crt-store",
    "defaults",
    "fcgi-app",
    "frontend",
    "global",
    "http-errors",
    "listen",
    "log-forward",
    "log-profile",
    "mailers",
    "namespace_list",
    "peers",
    "program",
    "resolvers",
    "ring",
    "traces",
    "userlist",
];

/// First words of lines that name a file, a program or another host.
const ELSEWHERE: &[&str] = &[
    "bind",
    "dispatch",
    "email-alert",
    "errorfile",
    "errorfiles",
    "external-check",
    "filter",
    "http-error",
    "load-server-state-from-file",
    "server",
    "server-template",
    "source",
    "use-fcgi-app",
];

/// Words that make a line name a file or another host.
const REACHING: &[&str] = &["-f", "-M", "file", "lf-file", "errorfile", "errorfiles", "set-dst", "do-resolve"];

/// First words of nginx's lines that name a file, a program or another host.
const NGINX_ELSEWHERE: &[&str] = &[
    "access_log",
    "alias",
    "auth_basic_user_file",
    "error_log",
    "error_page",
    "include",
    "proxy_pass",
    "resolver",
    "return",
    "rewrite",
    "root",
    "server",
    "try_files",
];

/// The service with the sections that the registry holds for it, an object of generator → section. `allowed` is
/// `haproxy.allow_registry_options`. Generators that we do not know are passed over.
///
/// # Errors
/// [`ConfigError`] with every problem; the service stays as it was.
pub fn with_registry_sections(
    service: &Service,
    sections: &Map<String, Value>,
    allowed: &[String],
) -> Result<Service, ConfigError> {
    let path = format!("services.{}", service.name);
    let file = PathBuf::from("the registry");
    let mut report = Report { file, ..Report::default() };
    let known = sections.iter().filter(|(name, _)| GENERATORS.contains(&name.as_str()));
    let mut own: Map<String, Value> = known.map(|(name, section)| (name.clone(), section.clone())).collect();
    check::object(&mut own, SERVICE, &path, &mut report);
    let mut reader = Reader::new(report, HashMap::new());
    reader.untrusted(own.get("haproxy").unwrap_or(&Value::Null), &format!("{path}.haproxy"), allowed);
    reader.untrusted_nginx(own.get("nginx").unwrap_or(&Value::Null), &format!("{path}.nginx"));
    let mut raw = service.raw.clone();
    if let Some(raw) = raw.as_object_mut() {
        raw.extend(own);
    }
    let Sections { haproxy, file_output_disabled, nginx, prometheus } = reader.sections(&raw, &path);
    match reader.report.errors.is_empty() {
        true => Ok(Service { haproxy, file_output_disabled, nginx, prometheus, raw, ..service.clone() }),
        false => Err(ConfigError(reader.report.errors)),
    }
}

impl Reader {
    fn untrusted(&mut self, haproxy: &Value, path: &str, allowed: &[String]) {
        for (at, line) in each_line(haproxy, SERVICE_HAPROXY, path) {
            let in_listen = at.starts_with(&format!("{path}.listen["));
            if let Some(why) = problem(line, in_listen, allowed) {
                self.report.error(&at, why);
            }
        }
        for key in ["bind_options", "bind_address"] {
            let unsafe_words = haproxy[key].as_str().is_some_and(|words| words.contains(['#', '"', '\'', '\\', '$']));
            self.require(!unsafe_words, &format!("{path}.{key}"), "has a character that a registry may not use there");
        }
        if let Some(words) = haproxy["server_options"].as_str() {
            let filled = options::fill(words, "host", "1", "name");
            if let Err(why) = filled.and_then(|filled| options::check(&filled, allowed, &|_| true)) {
                self.report.error(&format!("{path}.server_options"), why);
            }
        }
    }

    /// Lines that end a block or a directive, and those that reach elsewhere.
    fn untrusted_nginx(&mut self, nginx: &Value, path: &str) {
        for (at, line) in each_line(nginx, SERVICE_NGINX, path) {
            let first = line.split_whitespace().next().unwrap_or_default();
            let reaches = NGINX_ELSEWHERE.contains(&first) || first.starts_with("ssl_") || first.contains("_by_lua");
            let good = !reaches && one_directive(line);
            self.require(good, &at, "names a file, a program or another host, or is more than one directive");
        }
        for key in ["listen_address", "listen_options", "server_options", "upstream_name"] {
            let good = nginx[key].as_str().is_none_or(one_directive);
            self.require(good, &format!("{path}.{key}"), "is more than words of one directive");
        }
    }
}

fn one_directive(text: &str) -> bool {
    !text.trim_end().trim_end_matches(';').contains(['{', '}', ';', '#', '"', '\''])
}

/// What a line from the registry says that it may not say.
fn problem(line: &str, in_listen: bool, allowed: &[String]) -> Option<String> {
    let mut words = line.split_whitespace();
    let first = words.next()?.to_lowercase();
    let permitted = |word: &str| allowed.iter().any(|a| a == word);
    let reaching = |word: &&str| {
        (REACHING.contains(word) || word.contains("lua.") || word.contains("map(") || word.contains("map_"))
            && !permitted(word)
    };
    if TITLES.contains(&first.as_str()) {
        return Some(format!("{line:?} begins another section"));
    }
    if ELSEWHERE.contains(&first.as_str()) && !permitted(&first)
        || first == "log" && words.clone().next() != Some("global")
    {
        return Some(format!("{line:?} names a file, a program or another host, which a registry may not"));
    }
    if let Some(word) = words.clone().find(reaching) {
        return Some(format!("{line:?} names a file or another host ({word}), which a registry may not"));
    }
    if line.contains('"') && line.contains('$') {
        return Some(format!("{line:?} would be filled in from HAProxy's environment"));
    }
    if first == "default-server" {
        let words: Vec<&str> = words.collect();
        return options::check(&words.join(" "), allowed, &|_| true).err();
    }
    (in_listen && lines::split(line).2).then(|| format!("{line:?} is no line that we know"))
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn lines_from_the_registry_stay_within_their_section_and_this_host() {
        for good in [
            "mode http",
            "option httpchk GET /health",
            "timeout server 5s",
            "log global",
            "default-server inter 2s",
            "http-request set-header X-A \"a b\"",
            "acl a path_beg /a",
            "balance leastconn",
        ] {
            assert_eq!(problem(good, true, &[]), None);
        }
        for bad in [
            "listen evil",
            "  Backend evil",
            "log-forward x",
            "http-errors x",
            "bind :1",
            "server x 10.9.9.9:1",
            "errorfile 503 /etc/shadow",
            "http-request return status 200 file /etc/shadow",
            "acl a src -f /etc/shadow",
            "http-request set-header X %[path,map(/etc/shadow)]",
            "http-request lua.x",
            "http-request set-header X \"$HOME\"",
            "log 10.9.9.9 local0",
            "default-server crt /etc/x",
            "quux",
            ".notice x",
        ] {
            assert!(problem(bad, true, &[]).is_some(), "{bad}");
        }
        assert_eq!(problem("errorfile 503 /x", true, &["errorfile".to_owned()]), None);
        assert_eq!(problem("quux", false, &[]), None, "such a line is left out of a list of its own");
    }
}
