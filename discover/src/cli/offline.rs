//! haproxy.cfg without a HAProxy: what `discover render` shows and `discover check` tries.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use agent::telemetry::Chain;
use model::ServiceMap;
use tokio::time::Instant;

use super::Failure;
use super::settings::HaproxyArgs;
use crate::certificates::keeper::FILES;
use crate::certificates::load;
use crate::edge::{EdgeCertificates, EdgeSettings};
use crate::generators::haproxy::file::assign::assign_anew;
use crate::generators::haproxy::file::checking::Checking;
use crate::generators::haproxy::file::compose::Composer;
use crate::generators::haproxy::file::edge::frontend::Frame;
use crate::generators::haproxy::file::edge::{EdgeComposer, Idle};
use crate::generators::haproxy::file::known::{Given, Known};
use crate::generators::haproxy::file::layout::{Layout, Retired};
use crate::generators::haproxy::file::loops::Loops;
use crate::generators::haproxy::file::ports::Ports;
use crate::generators::haproxy::file::settings::HaproxySettings;
use crate::generators::haproxy::turn::files::ConfigFiles;
use crate::haproxy::api::version::{Capabilities, Version};
use crate::names::Resolved;
use crate::reconcile::Desired;

/// docker-discover's way of composing, with the edge that the flags ask for.
pub struct Native {
    settings: Arc<HaproxySettings>,
    composer: Composer,
    /// The edge, if there is one.
    pub edge: Option<OfflineEdge>,
}

impl Native {
    /// Of these flags, for a haproxy.cfg at `config`.
    ///
    /// # Errors
    /// [`Failure::Usage`] naming the flag or the template.
    pub fn new(args: &HaproxyArgs, edge: Option<Arc<EdgeSettings>>, config: &Path) -> Result<Self, Failure> {
        let reserved: Vec<_> = edge.iter().flat_map(|edge| edge.ports()).collect();
        // HAProxy takes a socket's path by its slash: where one is to try the file, `config` is absolute.
        let settings = args.settings(config, &config.with_file_name("haproxy.sock"), reserved)?;
        let settings = Arc::new(HaproxySettings { edge: edge.clone(), ..settings });
        let checking = || Checking::new(&settings.check, settings.check_rate);
        let edge = edge.map(|edge| OfflineEdge::new(&edge, settings.frame.clone(), checking(), config)).transpose()?;
        let composer = Composer::new(settings.clone()).map_err(|e| Failure::usage(&e))?;
        Ok(Self { settings, composer, edge })
    }

    /// The layout of one service of nobody's, which has every word that the flags give to servers.
    ///
    /// # Errors
    /// [`Failure::Usage`], as for [`layout`](Self::layout).
    pub fn example(&mut self) -> Result<Layout, Failure> {
        let mut layout = self.layout(&ServiceMap::new())?;
        layout.sections.extend(self.composer.sample(&layout, &Capabilities::of(&Version::OLDEST)));
        Ok(layout)
    }

    /// The layout of these services; standard error says what is left out.
    ///
    /// # Errors
    /// [`Failure::Usage`] naming the service whose section cannot be rendered.
    pub fn layout(&mut self, services: &ServiceMap) -> Result<Layout, Failure> {
        let ports = assign_anew(services, &self.settings);
        let mut checking = Checking::new(&self.settings.check, self.settings.check_rate);
        checking.suit(services.values().map(|pool| pool.len()).sum());
        let (mut layout, failed) = self.composer.compose(services, &given(&ports, &checking, &Layout::default()));
        for (service, reason) in &ports.unlisted {
            eprintln!("discover: service {service}: {}", ports.why_unlisted(service, reason));
        }
        for (service, note) in ports.notes.iter().flat_map(|(service, notes)| notes.iter().map(move |n| (service, n))) {
            eprintln!("discover: service {service}: {note}");
        }
        if let Some((service, error)) = failed.into_iter().next() {
            return Err(Failure::Usage(format!("service {service}: {}", Chain(&error))));
        }
        if let Some(edge) = &mut self.edge {
            edge.add_to(&mut layout, services);
            layout.sections.sort_by(|a, b| a.name.cmp(&b.name));
        }
        without_loops(&mut layout);
        Ok(layout)
    }
}

/// What a file is made of where there is no HAProxy, as if `running` ran.
fn given<'a>(ports: &'a Ports, checking: &'a Checking, running: &'a Layout) -> Given<'a> {
    static NAMES: LazyLock<Resolved> = LazyLock::new(Resolved::default);
    static RETIRED: Retired = Retired::new();
    let (can, known) = (Capabilities::of(&Version::OLDEST), Known::new(running, &RETIRED));
    Given { ports, names: &NAMES, checking, can, known, now: Instant::now(), unix_now: 0 }
}

/// The edge beside a haproxy.cfg that nobody runs.
pub struct OfflineEdge {
    composer: EdgeComposer,
    checking: Checking,
    files: ConfigFiles,
    certificates: Vec<PathBuf>,
    copies: PathBuf,
    /// What the last round came to, as if it ran.
    last: Layout,
}

impl OfflineEdge {
    /// An edge of these settings.
    ///
    /// # Errors
    /// [`Failure::Usage`]: never, as the templates are ours.
    pub fn new(settings: &EdgeSettings, frame: Frame, checking: Checking, config: &Path) -> Result<Self, Failure> {
        let settings = settings.clone().with_copies_beside(config);
        let EdgeCertificates { given: certificates, copies } = settings.certificates.clone();
        let files = ConfigFiles::new(config.to_owned());
        let composer = EdgeComposer::new(Arc::new(settings), frame, &files.rules_name());
        let composer = composer.map_err(|e| Failure::usage(&e))?;
        Ok(Self { composer, checking, files, certificates, copies, last: Layout::default() })
    }

    /// Adds the edge to a layout; standard error says what came to nothing.
    pub fn add_to(&mut self, layout: &mut Layout, services: &ServiceMap) {
        let desired = Desired { services: services.clone(), ..Desired::default() };
        self.checking.suit(services.values().map(|pool| pool.len()).sum());
        self.composer.compose(layout, &desired, &given(&Ports::default(), &self.checking, &self.last), Idle::Stay);
        *layout = self.composer.refilled(layout);
        self.last = layout.clone();
        for lost in &self.composer.routing().lost {
            eprintln!("discover: edge: {lost}");
        }
    }

    /// The rules of `layout` as comments, so that haproxy.cfg with them behind it is still one.
    pub fn comments(&self, layout: &Layout) -> String {
        let text = layout.rules.as_ref().map(|rules| rules.render()).unwrap_or_default();
        let lines = text.lines().map(|line| format!("# {}\n", line.trim_start_matches("# ")));
        format!("\n# {}:\n{}", self.files.rules_name(), lines.collect::<String>())
    }

    /// Writes the files that haproxy.cfg names, and gives what is wrong with certificates. Those are not handed out: HAProxy takes an
    /// empty list as it takes one that is to grow.
    ///
    /// # Errors
    /// [`Failure`]: a file cannot be written.
    pub fn write(&self, layout: &Layout) -> Result<Vec<String>, Failure> {
        if let Some(rules) = &layout.rules {
            self.files.write_rules(rules).map_err(Failure::runtime)?;
        }
        if self.certificates.is_empty() {
            return Ok(Vec::new());
        }
        std::fs::create_dir_all(&self.copies).map_err(Failure::runtime)?;
        for file in FILES {
            std::fs::write(self.copies.join(file), "").map_err(Failure::runtime)?;
        }
        let refused = load(&self.certificates, SystemTime::now()).refused;
        Ok(refused.iter().map(|r| format!("certificate {}: {}", r.source.display(), r.why)).collect())
    }
}

/// Takes out servers that would be HAProxy itself, and says so.
pub fn without_loops(layout: &mut Layout) {
    let mut loops = Loops::default();
    loops.look(true, Instant::now());
    loops.leave_out(layout, &Layout::default());
    for (server, why) in loops.reasons() {
        eprintln!("discover: {server} is left out: {why}");
    }
}

/// The text of a layout, with the edge's rules behind it.
pub fn shown(layout: &Layout, edge: Option<&OfflineEdge>) -> String {
    format!("{}{}", layout.render(), edge.map(|edge| edge.comments(layout)).unwrap_or_default())
}
