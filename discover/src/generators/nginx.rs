//! nginx.conf as synapse-nginx writes it: `http` and `stream` servers with their upstreams.

use std::sync::Arc;
use std::time::Duration;

use agent::files::Replace;
use model::{Backend, Pool, Status, Transport};
use tokio::time::Instant;

use super::haproxy::file::synapse::order::Shuffle;
use super::haproxy::file::synapse::prepare::Order;
use super::haproxy::file::synapse::server::Name;
use super::output::{Made, MadeFrom, Output, OutputError, shell};
use super::{Generator, Outcome};
use crate::haproxy::process::pace::ReloadPace;
use crate::reconcile::Desired;
use crate::synapse::Config;
use crate::synapse::types::{Nginx as Top, Service};

/// How long a nginx that was just started may be deaf to a reload, and between two tries.
const START_PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);

/// nginx as a generator.
#[derive(Debug)]
pub struct Nginx {
    top: Arc<Top>,
    shuffle: Shuffle,
    output: Output,
    /// What the text that is applied was made from.
    made_from: Option<MadeFrom>,
    pace: ReloadPace,
    /// The text that nginx was last told to load.
    loaded: Option<String>,
    started: bool,
}

impl Nginx {
    /// A generator for this config; `None` where nginx is not wanted.
    pub fn new(config: &Config) -> Option<Self> {
        let top = config.nginx.clone()?;
        let path = top.config_file_path.clone().unwrap_or_default();
        let check_command = top.check_command.clone().or_else(|| Some("nginx -t -c {candidate}".to_owned()));
        let output = Output { path, how: Replace { mode: Some(0o644), ..Replace::default() }, check_command };
        let pace = ReloadPace::new(Duration::from_secs(top.restart_interval), top.restart_jitter);
        let seed = config.haproxy.as_ref().and_then(|h| h.server_order_seed).unwrap_or_default();
        let shuffle = Shuffle::new(seed);
        Some(Self { top, shuffle, output, made_from: None, pace, loaded: None, started: false })
    }

    /// nginx.conf for what is desired. Equal services give equal bytes.
    pub fn text(&self, desired: &Desired) -> String {
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
            let of_mode = |s: &&Arc<Service>| !s.nginx.disabled && s.nginx.mode.as_deref().unwrap_or("http") == mode;
            for service in desired.configured.iter().filter(of_mode) {
                let pool = desired.services.get(&service.name).map_or(&empty, |p| p);
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
        let mut scratch = String::new();
        let mut servers: Vec<(Arc<str>, &Arc<Backend>)> =
            live.map(|b| (Name::of(b, b.port.get(), &mut scratch).text, b)).collect();
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
        match Order::of(Some(own.upstream_order.as_deref().unwrap_or("asc"))) {
            Order::Asc => servers.sort_by(|a, b| a.0.cmp(&b.0)),
            Order::Desc => servers.sort_by(|a, b| b.0.cmp(&a.0)),
            Order::Discovery => {}
            Order::Shuffle => self.shuffle.apply(&mut servers),
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
    type Plan = Option<Made<String>>;
    type Error = OutputError;

    fn plan(&self, desired: &Desired, _: Instant) -> Self::Plan {
        Made::unless(self.made_from.as_ref(), desired, || self.text(desired))
    }

    async fn apply(&mut self, plan: Self::Plan) -> Result<Outcome, OutputError> {
        let Some(Made { what: text, from }) = plan else { return Ok(Outcome::Done) };
        self.made_from = None;
        if self.top.do_writes && self.loaded.as_ref() != Some(&text) {
            let changed = self.output.put(&text).await?;
            // A file that is unchanged since a start of ours was loaded by its writer.
            let untouched = !changed && self.loaded.is_none();
            if self.top.do_reloads && !untouched {
                self.loaded = Some(String::new()); // the file is right, nginx is not yet
                if let Some(at) = self.pace.wait(Instant::now(), true) {
                    return Ok(Outcome::Again(at));
                }
                self.reload().await?;
            }
        }
        self.loaded = Some(text);
        self.made_from = Some(from);
        Ok(Outcome::Done)
    }
}

impl Nginx {
    async fn reload(&mut self) -> Result<(), OutputError> {
        let mut patience = Instant::now();
        if let Some(start) = self.top.start_command.as_ref().filter(|_| !self.started) {
            self.started = true;
            // It fails where nginx runs already. Where it does not, nginx may yet have to write its pid.
            if shell("start_command", start).await.is_ok() {
                patience = Instant::now() + START_PATIENCE;
            }
        }
        let reload = self.top.reload_command.as_deref().unwrap_or_default();
        let outcome = loop {
            match shell("reload_command", reload).await {
                Err(_) if Instant::now() < patience => tokio::time::sleep(POLL).await,
                outcome => break outcome,
            }
        };
        match &outcome {
            Ok(()) => self.pace.succeeded(Instant::now()),
            Err(_) => _ = self.pace.failed(Instant::now()),
        }
        outcome
    }
}
