//! Services as sections, in docker-discover's way: one `listen` for each port of a service. Pure, and cached: a service
//! whose pool did not change costs a pointer comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _, HashSet};
use model::{Mode, Pool, Port, ServiceMap, ServiceName};
use tera::{Context, Tera};

use super::known::Given;
use super::layout::{Layout, Section};
use super::members::{params, servers};
use super::names::{self, owner_of};
use super::ports::{PortPool, ServicePort, Share};
use super::server::{Own, Server};
use super::settings::HaproxySettings;
use super::stats::StatsUser;
use super::synapse::Quarantined;
use crate::haproxy::api::version::Capabilities;
use crate::haproxy::words::options::Place;
use crate::seniority::mode;

/// A template that cannot be read, parsed or rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The file cannot be read.
    #[error("reading template {path:?}")]
    Read { path: PathBuf, source: std::io::Error },
    /// It is not Tera, or names what is not there.
    #[error("template {name:?}")]
    Tera {
        name: String,
        /// Why, with line and column.
        source: Box<tera::Error>,
    },
}

/// Composes the file.
pub struct Composer {
    settings: Arc<HaproxySettings>,
    tera: Tera,
    header: Arc<str>,
    /// The same without the stats page.
    header_without_stats: Arc<str>,
    /// The names of the header's sections: no service's may be called so.
    taken: BTreeSet<String>,
    /// Services that are called so.
    clashes: Vec<Quarantined>,
    cache: HashMap<Key, Cached>,
    /// The mode of each section, also from before a restart: no newcomer changes it.
    modes: HashMap<Key, Mode>,
    /// Sections rendered anew since the start.
    renders: u64,
}

/// Whose a section is, and the port in its name.
type Key = (ServiceName, Option<Port>);

struct Cached {
    pool: Arc<Pool>,
    share: Share,
    port: Port,
    generation: (u64, u64),
    can: Capabilities,
    section: Arc<Section>,
    quarantined: Vec<Quarantined>,
}

const TEMPLATES: [(&str, &str); 2] =
    [("header.tera", include_str!("templates/header.tera")), ("section.tera", include_str!("templates/section.tera"))];

impl Composer {
    /// Reads the templates and tries both out.
    ///
    /// # Errors
    /// [`TemplateError`] naming the file.
    pub fn new(settings: Arc<HaproxySettings>) -> Result<Self, TemplateError> {
        let mut tera = Tera::new();
        tera.autoescape_on(Vec::<&str>::new());
        for (name, ours) in TEMPLATES {
            let path = settings.templates.as_ref().map(|dir| dir.join(name)).filter(|path| path.exists());
            let text = match &path {
                None => ours.to_owned(),
                Some(path) => read(path)?,
            };
            let shown = path.map_or_else(|| name.to_owned(), |p| p.display().to_string());
            tera.add_raw_template(name, &text)
                .map_err(|source| TemplateError::Tera { name: shown, source: Box::new(source) })?;
        }
        let (header, cache): (Arc<str>, _) = ("".into(), HashMap::new());
        let (header_without_stats, taken, clashes) = (header.clone(), BTreeSet::new(), Vec::new());
        let (modes, renders) = (HashMap::new(), 0);
        let mut composer = Self { settings, tera, header_without_stats, header, taken, clashes, cache, modes, renders };
        composer.header = composer.render_header(composer.settings.stats.port)?.into();
        composer.header_without_stats = composer.render_header(None)?.into();
        composer.taken = names::of_proxies(&composer.header).map(str::to_owned).collect();
        if !composer.settings.stats.users.is_empty() && !composer.header.contains("http_auth(") {
            tracing::warn!(
                "The template header.tera does not ask for the users of --stats-auth-file (stats_users): everybody may read the stats page."
            );
        }
        composer.skeleton("example", Port::MIN, Mode::Http)?;
        Ok(composer)
    }

    /// Takes over from before a restart in which mode each section is.
    pub fn remember(&mut self, layout: &Layout) {
        for section in &layout.sections {
            if let (Some(key), Some(mode)) = (owner_of(&section.name), mode_of(&section.skeleton)) {
                self.modes.insert(key, mode);
            }
        }
    }

    /// What stands before the services' sections.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Sections rendered anew since the start.
    pub fn renders(&self) -> u64 {
        self.renders
    }

    fn render(&self, name: &str, context: &Context) -> Result<String, TemplateError> {
        let rendered = self.tera.render(name, context);
        let mut text =
            rendered.map_err(|source| TemplateError::Tera { name: name.to_owned(), source: Box::new(source) })?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }

    /// The registrations that the last turn left out.
    pub fn quarantined(&self) -> impl Iterator<Item = &Quarantined> {
        self.cache.values().flat_map(|cached| &cached.quarantined).chain(&self.clashes)
    }

    fn render_header(&self, stats_port: Option<Port>) -> Result<String, TemplateError> {
        let s = &self.settings;
        let mut context = Context::new();
        context.insert("maxconn", &s.maxconn);
        context.insert("listener_maxconn", &s.frame.listener_maxconn);
        context.insert("socket", &s.socket);
        context.insert("user", &s.user.as_ref().map(|(user, _)| user));
        context.insert("group", &s.user.as_ref().map(|(_, group)| group));
        context.insert("stats", &stats_port.map(|port| s.listen_of(port).binds(port)));
        context.insert("stats_users", &s.stats.users.iter().map(StatsUser::words).collect::<Vec<_>>());
        let milliseconds = s.frame.timeouts.map(|t| format!("{}ms", t.as_millis()));
        for (name, value) in ["timeout_connect", "timeout_client", "timeout_server"].into_iter().zip(milliseconds) {
            context.insert(name, &value);
        }
        self.render("header.tera", &context)
    }

    fn skeleton(&self, service: &str, port: Port, mode: Mode) -> Result<String, TemplateError> {
        let mut context = Context::new();
        context.insert("service", service);
        context.insert("port", &port);
        context.insert("listener_maxconn", &self.settings.frame.listener_maxconn);
        context.insert("binds", &self.settings.frame.listen.binds(port));
        context.insert("mode", mode.as_str());
        context.insert("silence", &self.settings.frame.silence.of_mode(mode));
        self.render("section.tera", &context)
    }

    fn params(&self, check: &str, mode: Mode, can: &Capabilities) -> Arc<str> {
        params(check, self.settings.frame.slow_start, self.settings.frame.silence.of_mode(mode), can)
    }

    /// The layout of these services. A section whose template fails keeps its last form and is reported.
    pub fn compose(
        &mut self,
        services: &ServiceMap,
        given: &Given<'_>,
    ) -> (Layout, BTreeMap<ServiceName, TemplateError>) {
        let Given { ports, can, .. } = given;
        let mut failed = BTreeMap::new();
        let mut sections = Vec::with_capacity(ports.listed.len());
        let mut clashes = Vec::new();
        let (mut cached_ones, mut others) = (0, false);
        for (at, pool) in &ports.listed {
            let key = (at.service.clone(), pool.apart.then_some(at.port));
            let same = |c: &&Cached| {
                Arc::ptr_eq(&c.pool, &pool.all)
                    && (c.port, c.generation, &c.can, &c.share) == (at.port, given.generation(), can, &pool.share)
            };
            if let Some(cached) = self.cache.get(&key).filter(same) {
                sections.push(cached.section.clone());
                cached_ones += 1;
                continue;
            }
            let name = pool.section(at);
            if self.taken.contains(&*name) {
                clashes.push(clash(at, &name));
                continue;
            }
            self.renders += 1;
            match self.section(name, at, pool, given) {
                Ok((section, quarantined)) => {
                    let before = self.cache.remove(&key);
                    others |= before.is_none();
                    let section = given.settle(section, before.map(|cached| cached.section));
                    let cached = Cached {
                        pool: pool.all.clone(),
                        share: pool.share.clone(),
                        port: at.port,
                        generation: given.generation(),
                        can: *can,
                        section: section.clone(),
                        quarantined,
                    };
                    self.modes.extend(mode_of(&section.skeleton).map(|mode| (key.clone(), mode)));
                    self.cache.insert(key, cached);
                    sections.push(section);
                    cached_ones += 1;
                }
                Err(error) => {
                    let last = self.cache.get(&key).map(|c| c.section.clone());
                    cached_ones += usize::from(last.is_some());
                    sections.extend(last);
                    failed.insert(at.service.clone(), error);
                }
            }
        }
        self.renders += u64::from(clashes != self.clashes);
        self.clashes = clashes;
        if others || self.cache.len() != cached_ones {
            let key = |(at, pool): (&ServicePort, &PortPool)| (at.service.clone(), pool.apart.then_some(at.port));
            let listed = ports.listed.iter().filter(|(at, pool)| !self.taken.contains(&*pool.section(at)));
            let keys: HashSet<Key> = listed.map(key).collect();
            self.cache.retain(|key, _| keys.contains(key));
            self.modes.retain(|(service, _), _| services.contains_key(service));
        }
        let header = if ports.stats_taken { &self.header_without_stats } else { &self.header };
        (Layout { header: header.clone(), sections, ..Layout::default() }, failed)
    }

    /// A section as every service's is made, under a name that no section of `layout` has.
    pub fn sample(&self, layout: &Layout, can: &Capabilities) -> Option<Arc<Section>> {
        let mut name = String::from("discover-sample");
        while layout.sections.iter().any(|section| *section.name == *name) {
            name.push('_');
        }
        let skeleton = self.skeleton(&name, Port::MIN, self.settings.frame.default_mode).ok()?.into();
        let params = self.params(&self.settings.check, self.settings.frame.default_mode, can);
        let (address, own) = (SocketAddr::from(([127, 0, 0, 1], 1)), Own::default());
        let server =
            Server { name: "sample".into(), address, params, id: None, weight: 1, maint: false, line: None, own };
        let (name, inherited, text) = (name.into(), "".into(), Default::default());
        Some(Arc::new(Section { name, skeleton, servers: vec![server], inherited, text }))
    }

    fn section(
        &self,
        name: Arc<str>,
        at: &ServicePort,
        pool: &PortPool,
        given: &Given<'_>,
    ) -> Result<(Section, Vec<Quarantined>), TemplateError> {
        let (service, port) = (&at.service, at.port);
        let key = (service.clone(), pool.apart.then_some(port));
        let pool = pool.behind(port);
        let mode = mode(&pool, self.settings.frame.default_mode, self.modes.get(&key).copied());
        let params = self.params(given.checking.words(), mode, &given.can);
        let skeleton: Arc<str> = self.skeleton(&name, port, mode)?.into();
        let http_checks = [&self.header, &skeleton].iter().any(|text| text.contains("option httpchk"));
        let place = Place { http_checks, ..Place::of_mode(mode) };
        let (servers, quarantined) = servers(&[(service.clone(), pool)], &params, given.names, &place);
        let (inherited, text) = ("".into(), Default::default());
        Ok((Section { name, skeleton, servers, inherited, text }, quarantined))
    }
}

/// A service port whose section would have the name of one in the operator's header.
fn clash(at: &ServicePort, section: &str) -> Quarantined {
    let reason = format!("the header has a section {section} already: call one of the two otherwise");
    Quarantined { service: at.service.clone(), server: section.to_owned(), reason }
}

/// The mode that a section's own lines say.
fn mode_of(skeleton: &str) -> Option<Mode> {
    skeleton.lines().find_map(|line| line.trim_start().strip_prefix("mode ")?.trim().parse().ok())
}

fn read(path: &Path) -> Result<String, TemplateError> {
    std::fs::read_to_string(path).map_err(|source| TemplateError::Read { path: path.to_owned(), source })
}
