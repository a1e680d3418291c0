//! Files from Tera templates: what confd and consul-template do, from the same desired state as every other generator.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::files::Replace;
use model::{Mode, Pool};
use serde_json::{Map, Value, json};
use tera::{Context, Tera};
use tokio::time::Instant;

use super::output::{Made, MadeFrom, Output, OutputError, shell};
use super::{Generator, Outcome};
use crate::haproxy::words::options::{self, Place};
use crate::haproxy::words::template::fill;
use crate::reconcile::Desired;
use crate::synapse::types::Template as Settings;

/// Why a template's file is not there.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template cannot be read.
    #[error("reading template {path:?}")]
    Read { path: PathBuf, source: std::io::Error },
    /// It is not Tera, or names what is not there.
    #[error("template {path:?}: {why}")]
    Tera {
        path: PathBuf,
        /// Why, with line and column.
        why: String,
    },
    /// Its owner is nobody here.
    #[error("template {name}: no user or group {owner:?} here")]
    Owner {
        /// The template's name in the config.
        name: String,
        owner: String,
    },
    /// Writing, checking or announcing the file failed.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// One template as a generator.
pub struct Template {
    name: String,
    settings: Settings,
    tera: Tera,
    output: Output,
    /// What the text that is applied was made from.
    made_from: Option<MadeFrom>,
    /// What is in the file.
    written: Option<String>,
    /// A text that waits for quiet: it, since when it is the same, and since when anything waits.
    waiting: Option<(String, Instant, Instant)>,
    /// A reload that failed and is due again.
    reload_due: bool,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("name", &self.name).field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Template {
    /// A generator for one template of a config.
    ///
    /// # Errors
    /// [`TemplateError`] naming the file, with line and column.
    pub fn new(name: &str, settings: &Settings) -> Result<Self, TemplateError> {
        let mode = settings.mode.as_deref().and_then(|m| u32::from_str_radix(m, 8).ok()).unwrap_or(0o644);
        let owner = settings.owner.as_deref().map(|owner| ids(name, owner)).transpose()?;
        let how = Replace { mode: Some(mode), owner, ..Replace::default() };
        let output = Output { path: settings.destination.clone(), how, check_command: settings.check_command.clone() };
        let tera = parse(&settings.source)?;
        let (name, settings, made_from) = (name.to_owned(), settings.clone(), None);
        Ok(Self { name, settings, tera, output, made_from, written: None, waiting: None, reload_due: false })
    }

    /// The file's text.
    ///
    /// # Errors
    /// [`TemplateError::Tera`] with line and column, an undefined name for one.
    pub fn text(&self, desired: &Desired) -> Result<String, TemplateError> {
        render(&self.tera, &self.settings.source, desired)
    }
}

/// Renders the template in `path` once.
///
/// # Errors
/// [`TemplateError`] naming the file, with line and column.
pub fn render_once(path: &Path, desired: &Desired) -> Result<String, TemplateError> {
    render(&parse(path)?, path, desired)
}

fn parse(path: &Path) -> Result<Tera, TemplateError> {
    let text = std::fs::read_to_string(path).map_err(|source| TemplateError::Read { path: path.to_owned(), source })?;
    let mut tera = Tera::new();
    tera.autoescape_on(Vec::<&str>::new());
    tera.add_raw_template("template", &text).map_err(|e| failed(path, &e))?;
    Ok(tera)
}

fn failed(path: &Path, error: &tera::Error) -> TemplateError {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        why.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    TemplateError::Tera { path: path.to_owned(), why }
}

fn render(tera: &Tera, path: &Path, desired: &Desired) -> Result<String, TemplateError> {
    tera.render("template", &context(desired)).map_err(|e| failed(path, &e))
}

/// What a template sees; documented in docs/configuration.md.
fn context(desired: &Desired) -> Context {
    let empty = Pool::default();
    let list: Vec<Value> = desired
        .configured
        .iter()
        .map(|service| {
            let pool = desired.services.get(&service.name).map_or(&empty, |p| p);
            json!({"name": service.name.as_str(), "config": service.raw, "backends": backends(pool)})
        })
        .collect();
    let pools: Map<String, Value> =
        list.iter().map(|s| (s["name"].as_str().unwrap_or_default().to_owned(), s["backends"].clone())).collect();
    let env: Map<String, Value> = std::env::vars().map(|(name, value)| (name, Value::String(value))).collect();
    let mut context = Context::new();
    context.insert("services", &list);
    context.insert("pools", &pools);
    context.insert("env", &env);
    context
}

fn backends(pool: &Pool) -> Vec<Value> {
    let whole = |b: &model::Backend| {
        json!({
            "id": b.id.as_str(), "host": b.host.to_string(), "port": b.port.get(), "address": b.address(),
            "name": b.name.as_deref(), "weight": b.weight.map(|w| w.get()), "labels": &*b.labels,
            "transport": b.transport.as_str(), "mode": b.mode.map(|m| m.as_str()),
            "service_port": b.service_port.map(|p| p.get()), "status": b.status.as_str(),
            "haproxy_server_options": options(b),
        })
    };
    pool.backends().iter().map(|b| whole(b)).collect()
}

/// A registration's words in their normal form, so that a template that makes a haproxy.cfg writes no more than words; `None` for
/// what is none.
fn options(b: &model::Backend) -> Option<String> {
    let filled =
        fill(b.haproxy_server_options.as_deref()?, &b.host.to_string(), &b.port.to_string(), b.id.as_str()).ok()?;
    options::parse(&filled, &Place::of_mode(b.mode.unwrap_or(Mode::Http))).ok().map(|read| read.to_string())
}

fn ids(name: &str, owner: &str) -> Result<(u32, u32), TemplateError> {
    let unknown = || TemplateError::Owner { name: name.to_owned(), owner: owner.to_owned() };
    let (user, group) = owner.split_once(':').map_or((owner, None), |(u, g)| (u, Some(g)));
    let user = nix::unistd::User::from_name(user).ok().flatten().ok_or_else(unknown)?;
    let gid = match group {
        None => user.gid,
        Some(group) => nix::unistd::Group::from_name(group).ok().flatten().ok_or_else(unknown)?.gid,
    };
    Ok((user.uid.as_raw(), gid.as_raw()))
}

impl Generator for Template {
    /// The text, if it is made of something new; or why there is none.
    type Plan = Option<Made<Result<String, TemplateError>>>;
    type Error = TemplateError;

    fn plan(&self, desired: &Desired, _: Instant) -> Self::Plan {
        Made::unless(self.made_from.as_ref(), desired, || self.text(desired))
    }

    async fn apply(&mut self, plan: Self::Plan) -> Result<Outcome, TemplateError> {
        let Some(Made { what, from }) = plan else { return Ok(Outcome::Done) };
        self.made_from = None;
        let text = what?;
        if self.written.as_ref() == Some(&text) && !self.reload_due {
            self.waiting = None;
            self.made_from = Some(from);
            return Ok(Outcome::Done);
        }
        let now = Instant::now();
        if self.settings.quiet > 0.0 && self.written.is_some() {
            let quiet = Duration::from_secs_f64(self.settings.quiet.min(86_400.0));
            let most =
                Duration::from_secs_f64(self.settings.max_wait.unwrap_or(self.settings.quiet * 4.0).min(86_400.0));
            let (since, first) = match &self.waiting {
                Some((same, since, first)) if *same == text => (*since, *first),
                Some((_, _, first)) => (now, *first),
                None => (now, now),
            };
            let due = (since + quiet).min(first + most);
            if now < due {
                self.waiting = Some((text, since, first));
                return Ok(Outcome::Again(due));
            }
        }
        self.waiting = None;
        let changed = self.output.put(&text).await?;
        self.written = Some(text);
        if let Some(reload) = self.settings.reload_command.as_ref().filter(|_| changed || self.reload_due) {
            self.reload_due = true;
            shell("reload_command", reload).await?;
            self.reload_due = false;
        }
        self.made_from = Some(from);
        Ok(Outcome::Done)
    }
}
