//! Sections that come from the registry (Synapse's `generator_config_path`): each takes the place of the service's own,
//! whole or not at all. Whoever may write there is not the operator. So a line counts only if its directive is one that stays within
//! the section and on this host, as a registration's options do; all else is refused.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::Mode;
use serde_json::{Map, Value};

use super::service::Sections;
use super::{Reader, each_line};
use crate::haproxy::words::options::{self, Place};
use crate::haproxy::words::{lines, template};
use crate::synapse::keys::{SERVICE, SERVICE_HAPROXY, SERVICE_NGINX};
use crate::synapse::types::Service;
use crate::synapse::{ConfigError, Report, check};

/// The generators whose sections a registry may hold.
const GENERATORS: [&str; 3] = ["haproxy", "file_output", "nginx"];

/// nginx's directives that a registry may say in an upstream or a server: none names a file, a program or another host.
const NGINX: &[&str] = &[
    "add_header",
    "client_body_buffer_size",
    "client_body_timeout",
    "client_header_timeout",
    "client_max_body_size",
    "expires",
    "gzip",
    "gzip_comp_level",
    "gzip_min_length",
    "gzip_proxied",
    "gzip_types",
    "gzip_vary",
    "hash",
    "ip_hash",
    "keepalive",
    "keepalive_requests",
    "keepalive_timeout",
    "least_conn",
    "limit_rate",
    "proxy_buffer_size",
    "proxy_buffering",
    "proxy_buffers",
    "proxy_busy_buffers_size",
    "proxy_connect_timeout",
    "proxy_hide_header",
    "proxy_http_version",
    "proxy_ignore_client_abort",
    "proxy_next_upstream",
    "proxy_next_upstream_timeout",
    "proxy_next_upstream_tries",
    "proxy_pass_header",
    "proxy_read_timeout",
    "proxy_redirect",
    "proxy_request_buffering",
    "proxy_requests",
    "proxy_responses",
    "proxy_send_timeout",
    "proxy_set_header",
    "proxy_timeout",
    "random",
    "send_timeout",
    "server_name",
    "server_tokens",
    "tcp_nodelay",
    "tcp_nopush",
    "zone",
];

/// Words behind an address of a `bind` line: those that take nothing, and those with a number.
const BIND_FLAGS: &[&str] = &["accept-proxy", "defer-accept", "tfo", "v4v6", "v6only"];
const BIND_NUMBERS: &[&str] = &["backlog", "maxconn", "mss", "nice"];

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
    reader.untrusted_nginx(own.get("nginx").unwrap_or(&Value::Null), service.name.as_str(), &format!("{path}.nginx"));
    let mut raw = service.raw.clone();
    if let Some(raw) = raw.as_object_mut() {
        raw.extend(own);
    }
    let Sections { mut haproxy, file_output_disabled, nginx, prometheus } = reader.sections(&raw, &path);
    if sections.contains_key("haproxy") {
        Arc::make_mut(&mut haproxy).from_registry = true;
    }
    match reader.report.errors.is_empty() {
        true => Ok(Service { haproxy, file_output_disabled, nginx, prometheus, raw, ..service.clone() }),
        false => Err(ConfigError(reader.report.errors)),
    }
}

impl Reader {
    fn untrusted(&mut self, haproxy: &Value, path: &str, allowed: &[String]) {
        for (at, line) in each_line(haproxy, SERVICE_HAPROXY, path) {
            if let Some(why) = problem(line, allowed) {
                self.report.error(&at, why);
            }
        }
        let shared = haproxy["shared_frontend"].is_null();
        self.require(
            shared,
            &format!("{path}.shared_frontend"),
            "decides about other services' requests: a registry may not",
        );
        let address = haproxy["bind_address"].as_str().unwrap_or("*");
        let good = address.bytes().all(|b| b.is_ascii_alphanumeric() || b"*._:[]-".contains(&b));
        self.require(good, &format!("{path}.bind_address"), "is no host or address");
        let mut words = haproxy["bind_options"].as_str().unwrap_or_default().split_ascii_whitespace();
        while let Some(word) = words.next() {
            let number = |text: &str| text.parse::<i32>().is_ok();
            let good = BIND_FLAGS.contains(&word) || BIND_NUMBERS.contains(&word) && words.next().is_some_and(number);
            let flags = [BIND_FLAGS, BIND_NUMBERS].concat().join(", ");
            self.require(
                good,
                &format!("{path}.bind_options"),
                &format!("{word:?} is none of {flags}, or has no number"),
            );
        }
        if let Some(words) = haproxy["server_options"].as_str() {
            let place = Place { allowed, tracked: &|_| true, ..Place::of_mode(Mode::Http) };
            if let Err(why) =
                template::fill(words, "host", "1", "name").and_then(|filled| options::readable(&filled, &place))
            {
                self.report.error(&format!("{path}.server_options"), why);
            }
        }
    }

    /// Lines that end a block or a directive, and those that reach elsewhere.
    fn untrusted_nginx(&mut self, nginx: &Value, service: &str, path: &str) {
        for (at, line) in each_line(nginx, SERVICE_NGINX, path) {
            let first = line.split_whitespace().next().unwrap_or_default().trim_end_matches(';');
            let good = NGINX.contains(&first) && one_directive(line);
            self.require(good, &at, "is no directive that a registry may say, or more than one");
        }
        for key in ["listen_address", "listen_options", "server_options"] {
            let good = nginx[key].as_str().is_none_or(|text| one_directive(text) && !text.contains(['/', '$', '\\']));
            self.require(good, &format!("{path}.{key}"), "is more than plain words of one directive");
        }
        let own = nginx["upstream_name"].as_str().is_none_or(|name| name == service);
        self.require(own, &format!("{path}.upstream_name"), "is not the service's name");
    }
}

fn one_directive(text: &str) -> bool {
    !text.trim_end().trim_end_matches(';').contains(['{', '}', ';', '#', '"', '\''])
}

/// What a line from the registry says that it may not say.
fn problem(line: &str, allowed: &[String]) -> Option<String> {
    let mut words = line.split_whitespace();
    if words.next()?.eq_ignore_ascii_case("default-server") {
        let words = words.collect::<Vec<_>>().join(" ");
        // The line stays as it is, in a section whose mode is not known here.
        for place in [Mode::Http, Mode::Tcp].map(|mode| Place { allowed, ..Place::of_mode(mode) }) {
            match options::parse(&words, &place) {
                Ok(read) if read.to_string() == words && read.id().is_none() => {}
                Ok(read) => return Some(format!("{line:?}: write \"default-server {read}\", without id")),
                Err(why) => return Some(format!("{line:?}: {why}")),
            }
        }
        return None;
    }
    lines::problem(line, allowed)
}
