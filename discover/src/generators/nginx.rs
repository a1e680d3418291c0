//! nginx.conf as synapse-nginx writes it: `http` and `stream` servers with their upstreams.

use std::sync::Arc;

use common::files::Replace;
use common::model::{Backend, Pool, ServiceMap, Status, Transport};
use tokio::time::Instant;

use super::haproxy::reload::ReloadPace;
use super::haproxy::synapse::order::shuffle;
use super::haproxy::synapse::prepare::Order;
use super::haproxy::synapse::server::name;
use super::output::{Output, OutputError, shell};
use super::{Generator, Outcome};
use crate::config::Config;
use crate::config::types::{Nginx as Top, Service};
use crate::reconcile::Desired;

/// nginx as a generator.
#[derive(Debug)]
pub struct Nginx {
    top: Arc<Top>,
    services: Vec<Arc<Service>>,
    seed: i64,
    output: Output,
    pace: ReloadPace,
    /// The text that nginx was last told to load.
    loaded: Option<String>,
    started: bool,
}

impl Nginx {
    /// A generator for this config; `None` where nginx is not wanted.
    pub fn new(config: &Config) -> Option<Self> {
        let top = config.nginx.clone()?;
        let services = config.services.iter().filter(|s| !s.nginx.disabled).cloned().collect();
        let path = top.config_file_path.clone().unwrap_or_default();
        let check_command = top.check_command.clone().or_else(|| Some("nginx -t -c {candidate}".to_owned()));
        let output = Output { path, how: Replace { mode: Some(0o644), ..Replace::default() }, check_command };
        let pace = ReloadPace::new(std::time::Duration::from_secs(top.restart_interval), top.restart_jitter);
        let seed = config.haproxy.as_ref().and_then(|h| h.server_order_seed).unwrap_or_default();
        Some(Self { top, services, seed, output, pace, loaded: None, started: false })
    }

    /// nginx.conf for these services. Equal services give equal bytes.
    pub fn text(&self, services: &ServiceMap) -> String {
        let context = |name: &str| self.top.contexts.iter().find(|(n, _)| n == name).map(|(_, lines)| lines.as_slice());
        let mut text = String::from("# Written by discover; edits are undone.\n\n");
        lines(&mut text, "", context("main").unwrap_or_default());
        for (title, own) in self.top.contexts.iter().filter(|(n, _)| !matches!(n.as_str(), "main" | "http" | "stream"))
        {
            text.push_str(&format!("\n{title} {{\n"));
            lines(&mut text, "\t", own);
            text.push_str("}\n");
        }
        let empty = Pool::default();
        for (title, mode) in [("http", "http"), ("stream", "tcp")] {
            let mut inner = String::new();
            for service in self.services.iter().filter(|s| s.nginx.mode.as_deref().unwrap_or("http") == mode) {
                let pool = services.get(&service.name).map_or(&empty, |p| p);
                self.service(&mut inner, service, pool, mode);
            }
            let own = context(title).unwrap_or_default();
            if !inner.is_empty() || !own.is_empty() {
                text.push_str(&format!("\n{title} {{\n"));
                lines(&mut text, "\t", own);
                text.push_str(&inner);
                text.push_str("}\n");
            }
        }
        text
    }

    fn service(&self, text: &mut String, service: &Service, pool: &Pool, mode: &str) {
        let own = &service.nginx;
        let upstream = own.upstream_name.as_deref().unwrap_or(service.name.as_str());
        let live = pool.backends().iter().filter(|b| b.transport == Transport::Tcp && b.status != Status::Down);
        let mut servers: Vec<(String, &Arc<Backend>)> =
            live.map(|b| (name(b.name.as_deref(), &b.host.to_string(), &b.port.to_string()), b)).collect();
        // nginx has no stream server without an upstream, and no upstream without a server.
        if servers.is_empty() && mode == "tcp" {
            return;
        }
        if let Some(port) = &own.port {
            let address = own.listen_address.as_deref().or(self.top.listen_address.as_deref()).unwrap_or("localhost");
            let place = [Some(address), port.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(":");
            let listen =
                [Some(place.as_str()), own.listen_options.as_deref()].into_iter().flatten().collect::<Vec<_>>();
            text.push_str("\tserver {\n");
            lines(text, "\t\t", &[format!("listen {}", listen.join(" "))]);
            lines(text, "\t\t", &own.server);
            match (mode, servers.is_empty()) {
                ("tcp", _) => lines(text, "\t\t", &[format!("proxy_pass {upstream}")]),
                (_, true) => text.push_str("\t\tlocation / {\n\t\t\treturn 503;\n\t\t}\n"),
                _ => text.push_str(&format!("\t\tlocation / {{\n\t\t\tproxy_pass http://{upstream};\n\t\t}}\n")),
            }
            text.push_str("\t}\n");
        }
        if servers.is_empty() {
            return;
        }
        match Order::of(Some(own.upstream_order.as_deref().unwrap_or("asc")), self.seed) {
            Order::Asc => servers.sort_by(|a, b| a.0.cmp(&b.0)),
            Order::Desc => servers.sort_by(|a, b| b.0.cmp(&a.0)),
            Order::Discovery => {}
            Order::Shuffle(seed) => shuffle(&mut servers, seed),
        }
        text.push_str(&format!("\tupstream {upstream} {{\n"));
        lines(text, "\t\t", &own.upstream);
        let servers = servers.iter().map(|(_, b)| {
            let place = format!("server {}", b.address());
            own.server_options.as_ref().map_or(place.clone(), |options| format!("{place} {options}"))
        });
        lines(text, "\t\t", &servers.collect::<Vec<_>>());
        text.push_str("\t}\n");
    }
}

fn lines(text: &mut String, indent: &str, lines: &[String]) {
    for line in lines {
        let line = line.trim_end();
        // Blocks and comments need no semicolon of ours, and a line that brings its own none more.
        let end = if line.ends_with([';', '{', '}']) || line.trim_start().starts_with('#') { "" } else { ";" };
        text.push_str(&format!("{indent}{line}{end}\n"));
    }
}

impl Generator for Nginx {
    /// The text to load, if it is another one.
    type Plan = Option<String>;
    type Error = OutputError;

    async fn resume(&mut self) {}

    async fn prepare(&mut self, _: &Desired) {}

    fn plan(&mut self, desired: &Desired) -> Option<String> {
        let text = self.text(&desired.services);
        (self.loaded.as_ref() != Some(&text)).then_some(text)
    }

    async fn apply(&mut self, plan: Option<String>) -> Result<Outcome, OutputError> {
        let Some(text) = plan else { return Ok(Outcome::Done) };
        if !self.top.do_writes {
            self.loaded = Some(text);
            return Ok(Outcome::Done);
        }
        let changed = self.output.put(&text).await?;
        // An unchanged file after a start of ours was loaded by whoever wrote it.
        let untouched = !changed && self.loaded.is_none();
        if self.top.do_reloads && !untouched {
            let now = Instant::now();
            if let Some(at) = self.pace.wait(now) {
                self.loaded = Some(String::new()); // the file is right, nginx is not yet
                return Ok(Outcome::Again(at));
            }
            if let Some(start) = self.top.start_command.as_ref().filter(|_| !self.started) {
                let _ = shell("start_command", start).await; // fails where nginx runs already
                self.started = true;
            }
            let reload = self.top.reload_command.clone().unwrap_or_default();
            match shell("reload_command", &reload).await {
                Ok(()) => self.pace.succeeded(Instant::now()),
                Err(error) => {
                    self.pace.failed(Instant::now());
                    self.loaded = Some(String::new()); // tried again, though the file is right
                    return Err(error);
                }
            }
        }
        self.loaded = Some(text);
        Ok(Outcome::Done)
    }
}
