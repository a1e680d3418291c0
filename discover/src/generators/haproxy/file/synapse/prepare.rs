//! What a service's section is like before it has servers: made once, from the config alone.

use std::sync::Arc;

use model::Mode;

use super::lines::{self, Side};
use crate::generators::haproxy::file::layout::inherited;
use crate::synapse::types::{Haproxy, Service, ServiceHaproxy};

/// The cookie of a server line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cookie {
    /// None: the section has `mode tcp`.
    None,
    /// The server's name.
    Name,
    /// Its SHA-1.
    Hash,
}

/// The order of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By name.
    Asc,
    /// By name, backwards.
    Desc,
    /// As remembered, then as discovered.
    Discovery,
    /// Ruby's shuffle.
    Shuffle,
}

impl Order {
    /// As Synapse reads `backend_order`.
    pub fn of(word: Option<&str>) -> Self {
        match word {
            Some("asc") => Self::Asc,
            Some("desc") => Self::Desc,
            Some("no_shuffle") => Self::Discovery,
            _ => Self::Shuffle,
        }
    }
}

/// A section without its servers.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The config it was made from.
    pub haproxy: Arc<ServiceHaproxy>,
    /// The section that holds the servers.
    pub section: Arc<str>,
    /// Frontend and backend, as whole lines.
    skeleton: Arc<str>,
    /// The same with a name of its own for the frontend, where Synapse gives both the same one.
    apart: Option<Arc<str>>,
    /// Lines for the shared frontend.
    pub shared: Vec<String>,
    /// The words of `default-server` that count here.
    pub inherited: Arc<str>,
    /// The cookie of each line.
    pub cookie: Cookie,
    /// The mode of the section that holds the servers.
    pub mode: Mode,
    /// Its servers are checked by HTTP.
    pub http_checks: bool,
    /// The order of the lines.
    pub order: Order,
    /// Lines that were left out or that only HAProxy can judge.
    pub warnings: Vec<String>,
}

impl Prepared {
    /// Frontend and backend, as whole lines. HAProxy from 3.3 on refuses that both have one name: without `shared_names` the
    /// frontend is called `NAME:frontend`, and the backend, which holds the servers, keeps its name.
    pub fn skeleton(&self, shared_names: bool) -> &Arc<str> {
        self.apart.as_ref().filter(|_| !shared_names).unwrap_or(&self.skeleton)
    }
}

/// Prepares the section of one service.
pub fn prepare(service: &Service, top: &Haproxy, header: &str) -> Prepared {
    let own = &service.haproxy;
    let mut warnings = Vec::new();
    let mut side = |lines_of: &[String], side: Side, word: &str| -> Vec<String> {
        let (good, bad): (Vec<_>, Vec<_>) = lines_of.iter().cloned().partition(|l| lines::fits(l, side));
        for line in bad {
            warnings.push(format!("service {}: {line:?} is no line of a {word}; left out", service.name));
        }
        good
    };
    let mut frontend = side(&own.frontend, Side::Frontend, "frontend");
    let mut backend = side(&own.backend, Side::Backend, "backend");
    let mut shared = Vec::new();
    if let Some(lines) = &own.shared_frontend {
        match top.shared_frontend {
            Some(_) => shared = side(lines, Side::Frontend, "shared frontend"),
            None => {
                warnings.push(format!("service {} has shared_frontend, but haproxy has none; left out", service.name))
            }
        }
    }
    for line in &own.listen {
        let (f, b, unknown) = lines::split(line);
        if unknown {
            warnings.push(format!(
                "service {}: {line:?} is no line that we know; left to HAProxy in the backend",
                service.name
            ));
        }
        frontend.extend(f.then(|| line.clone()));
        backend.extend(b.then(|| line.clone()));
    }
    if top.harden {
        let more = safe_retries(&top.defaults, &backend);
        backend.extend(more);
    }
    let name = service.name.as_str();
    let section = service.haproxy_section();
    let mut skeleton = String::new();
    if let Some(place) = own.bind_place(top) {
        let bind =
            [Some(place.as_str()), own.bind_options.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        push(
            &mut skeleton,
            &format!("frontend {name}"),
            frontend
                .iter()
                .map(String::as_str)
                .chain([format!("bind {bind}").as_str(), format!("default_backend {section}").as_str()]),
        );
        skeleton.push('\n');
    }
    push(&mut skeleton, &format!("backend {section}"), backend.iter().map(String::as_str));
    let cookie = match own.cookie_value_method.as_deref() {
        _ if backend.iter().any(|l| l == "mode tcp") => Cookie::None,
        Some("hash") => Cookie::Hash,
        _ => Cookie::Name,
    };
    let order = Order::of(own.backend_order.as_deref());
    let mode = mode_of(&backend).or_else(|| mode_of(&top.defaults)).unwrap_or(Mode::Tcp);
    let http_checks = says(&top.defaults, "option httpchk") || says(&backend, "option httpchk");
    let inherited = inherited(header, &skeleton);
    let rest = skeleton.strip_prefix(&format!("frontend {section}\n"));
    let apart = rest.map(|rest| format!("frontend {section}:frontend\n{rest}").into());
    let (section, skeleton) = (section.into(), skeleton.into());
    Prepared {
        haproxy: own.clone(),
        section,
        skeleton,
        apart,
        shared,
        inherited,
        cookie,
        mode,
        http_checks,
        order,
        warnings,
    }
}

/// The last `mode` that the lines set.
fn mode_of(lines: &[String]) -> Option<Mode> {
    let mode = |line: &String| {
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|w| *w == "mode")?;
        Some(if words.next() == Some("http") { Mode::Http } else { Mode::Tcp })
    };
    lines.iter().rev().find_map(mode)
}

/// A section's title and its lines, each with a tab before it.
fn push<'a>(text: &mut String, title: &str, lines: impl IntoIterator<Item = &'a str>) {
    text.push_str(title);
    text.push('\n');
    for line in lines {
        text.push('\t');
        text.push_str(line);
        text.push('\n');
    }
}

/// Global, defaults and the extra sections.
pub fn header(top: &Haproxy) -> String {
    let mut text = String::new();
    let (mut global, mut defaults) = (top.global.clone(), top.defaults.clone());
    if top.harden {
        harden(&mut global, &mut defaults);
    }
    push(&mut text, "global", global.iter().map(String::as_str));
    push(&mut text, "defaults", defaults.iter().map(String::as_str));
    for (title, lines) in &top.extra_sections {
        let (title, bind) = lines::title(title);
        text.push('\n');
        push(&mut text, &title, bind.as_deref().into_iter().chain(lines.iter().map(String::as_str)));
    }
    text
}

/// Whether one of the lines says this or its opposite.
fn says(lines: &[String], start: &str) -> bool {
    lines.iter().any(|l| {
        let words = l.split_whitespace().filter(|w| *w != "no").collect::<Vec<_>>().join(" ");
        words.starts_with(start)
    })
}

/// Adds what masks a dying server (docs/haproxy.md), each where nothing is said about it.
fn harden(global: &mut Vec<String>, defaults: &mut Vec<String>) {
    if !says(global, "hard-stop-after") {
        global.push("hard-stop-after 15m".to_owned());
    }
    let idle_close = says(defaults, "mode http").then_some("option idle-close-on-response");
    for line in ["option redispatch", "balance roundrobin", "timeout connect 2s"].into_iter().chain(idle_close) {
        let words = if line.starts_with("balance") { 1 } else { 2 };
        let start: Vec<&str> = line.split(' ').take(words).collect();
        if !says(defaults, &start.join(" ")) {
            defaults.push(line.to_owned());
        }
    }
}

/// Retries for an http backend whose config says nothing of them. In the backend and not in `defaults`, which takes no rule:
/// without the rule a request that is not idempotent could be executed twice.
fn safe_retries(defaults: &[String], backend: &[String]) -> Vec<String> {
    let says = |start: &str| says(defaults, start) || says(backend, start);
    let http = self::says(backend, "mode http") || says("mode http") && !self::says(backend, "mode tcp");
    if !http || says("retry-on") {
        return Vec::new();
    }
    let retries = (!says("retries")).then_some("retries 10");
    let lines =
        ["retry-on conn-failure empty-response", "http-request disable-l7-retry if !{ method GET HEAD OPTIONS }"];
    retries.into_iter().chain(lines).map(str::to_owned).collect()
}

/// The shared frontend, if there is one.
pub fn footer<'a>(top: &Haproxy, prepared: impl Iterator<Item = &'a Prepared>) -> String {
    let Some(base) = &top.shared_frontend else { return String::new() };
    let mut text = String::new();
    let base = base.iter().filter(|l| lines::fits(l, Side::Frontend)).map(String::as_str);
    push(&mut text, "frontend shared-frontend", base);
    for line in prepared.flat_map(|p| &p.shared) {
        text.push('\t');
        text.push_str(line);
        text.push('\n');
    }
    text
}
