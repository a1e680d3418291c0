//! The frontends and the sections behind them, as text of haproxy.cfg.
//!
//! Everything that differs from rule to rule is in the map, so a rule of any kind comes and goes without a change here. The sections
//! are all alike, too: a service takes one, and nothing of it is in the section's text. From HAProxy 3.4 on there are two [`Kind`]s.

use std::net::SocketAddr;
use std::time::Duration;

use model::{Mode, Port};
use tera::{Context, Tera};

use super::map::{NOBODY, SNI};
use super::told::forged;
use crate::certificates::keeper::{bind_words, names};
use crate::edge::Way;
use crate::edge::decide::MOST_STRIPPED;
use crate::edge::sections::{PLAIN, empty, section_name};
use crate::edge::settings::EdgeSettings;
use crate::generators::haproxy::file::server::checksum_of_text;
use crate::generators::haproxy::file::silence::Silence;
use crate::haproxy::words::bind::ListenOn;

/// How many labels of a host a wildcard may stand for.
const MOST_LABELS: usize = 8;

/// A page for people whose request comes to nothing; it holds nothing of the request. HAProxy reads it between double quotes,
/// in every section, so it is short.
macro_rules! page {
    ($title:literal, $status:literal, $says:literal) => {
        concat!(
            "<!doctype html><meta name=viewport content='width=device-width'>",
            "<style>:root{color-scheme:light dark;font-family:sans-serif}body{max-width:32em;margin:15vh auto;padding:0 1em}</style>",
            "<title>", $status, " ", $title, "</title><h1>", $status, "</h1><p>", $says, "</p>"
        )
    };
}

/// Those pages, by their names in the templates.
const PAGES: [(&str, &str); 5] = [
    ("page_400", page!("Bad Request", "400", "This is no name of a host.")),
    ("page_405", page!("Method Not Allowed", "405", "There is no tunnel here.")),
    ("page_421", page!("Misdirected Request", "421", "This name is served over a connection of its own.")),
    ("page_404", page!("Not Found", "404", "There is no service here.")),
    ("page_503", page!("Service Unavailable", "503", "No backend of this service is up.")),
];

/// What the whole of a Host header is, in either case: labels of letters, digits, `-` and `_` with a final dot at will, or an IPv6 address in
/// brackets; then perhaps a port. A POSIX extended expression.
const HOST: &str = "^([a-z0-9_-]+([.][a-z0-9_-]+)*[.]?|[[][0-9a-f:.]+])\
                    (:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$";

/// How a section of the edge gets into HAProxy, and what it can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Made from [`PLAIN`] with nothing of its own, so that HAProxy can add it at run time (3.4). No sticky rule: neither a cookie's
    /// name nor `ignore-persist` can be had from a `defaults` section.
    Plain,
    /// Written out in the file, which only a reload reads; serves everything.
    Whole,
}

/// What the edge's part of haproxy.cfg has in common with the services'.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Where services listen; the edge does, too, unless it has an address of its own.
    pub listen: ListenOn,
    /// `timeout connect`, `client` and `server`.
    pub timeouts: [Duration; 3],
    /// For how long a backend's host may be silent.
    pub silence: Silence,
    /// Ramps a new server's weight up over this time.
    pub slow_start: Option<Duration>,
    /// The mode of a section whose registrations do not say.
    pub default_mode: Mode,
    /// How long the section, or the rules, of a service without registrations stay before a reload removes them.
    pub linger: Duration,
    /// `maxconn` of each listener: what one of them uses up at most. Without it the process's counts.
    pub listener_maxconn: Option<u32>,
}

impl Default for Frame {
    /// Beside sections of the operator's own making.
    fn default() -> Self {
        Self {
            listen: ListenOn::all(),
            timeouts: [Duration::from_secs(2), Duration::from_secs(60), Duration::from_secs(60)],
            silence: Silence::default(),
            slow_start: None,
            default_mode: Mode::Tcp,
            linger: Duration::from_secs(600),
            listener_maxconn: None,
        }
    }
}

pub fn addresses(settings: &EdgeSettings, listen: &ListenOn) -> Vec<SocketAddr> {
    let of = |port: Port| match settings.listen.ip {
        Some(ip) => vec![SocketAddr::new(ip, port.get())],
        None => listen.addresses(port),
    };
    settings.ports().flat_map(of).collect()
}

/// The `bind` lines of a way's frontend, without the keyword: all that the edge listens on is said here.
fn binds(settings: &EdgeSettings, listen: &ListenOn, way: Way) -> Vec<String> {
    let of = |port: Port, words: &str| {
        let addresses = match settings.listen.ip {
            Some(ip) => vec![SocketAddr::new(ip, port.get()).to_string()],
            None => listen.binds(port),
        };
        addresses.into_iter().map(|address| format!("{address} {words}").trim_end().to_owned()).collect::<Vec<_>>()
    };
    let secure = bind_words(&settings.certificates.copies);
    let https = match settings.https() {
        _ if settings.shares_port() => vec![format!("{} accept-proxy {secure}", inner(settings))],
        https => https.map(|port| of(port, &secure)).unwrap_or_default(),
    };
    match way {
        Way::Http => [of(settings.listen.port, ""), https].concat(),
        Way::Sni => settings.sni_port.map(|port| of(port, "")).unwrap_or_default(),
    }
}

/// Where TLS that ends here comes from the frontend that looks at names, with the client's address ahead. A socket without a file needs
/// no directory that HAProxy could reach from where it may be locked in.
fn inner(settings: &EdgeSettings) -> String {
    let of = format!("{} {:?} {:?}", settings.certificates.copies.display(), settings.listen, settings.sni_port);
    format!("abns@discover-{:016x}", checksum_of_text(of.as_bytes()))
}

fn render(template: &str, mut context: Context) -> Result<String, tera::Error> {
    PAGES.iter().for_each(|(name, page)| context.insert(*name, page));
    Tera::one_off(template, &context, false)
}

/// The frontends, each with the section for what has no other. `map` is the map's file; without `bound` they listen nowhere.
///
/// # Errors
/// [`tera::Error`]: never, as a test shows.
pub fn frontends(settings: &EdgeSettings, frame: &Frame, map: &str, bound: bool) -> Result<String, tera::Error> {
    let mut text = String::new();
    for way in settings.ways() {
        text.push_str(&frontend(settings, frame, map, bound, *way)?);
    }
    Ok(text)
}

fn frontend(settings: &EdgeSettings, frame: &Frame, map: &str, bound: bool, way: Way) -> Result<String, tera::Error> {
    let mut context = Context::new();
    context.insert("map", map);
    context.insert("maxconn", &frame.listener_maxconn);
    context.insert("binds", &if bound { binds(settings, &frame.listen, way) } else { Vec::new() });
    for (name, time) in [("timeout_connect", frame.timeouts[0]), ("timeout_client", frame.timeouts[1])] {
        context.insert(name, &format!("{}ms", time.as_millis()));
    }
    context.insert("timeout_server", &format!("{}ms", frame.timeouts[2].as_millis()));
    context.insert("sni", SNI);
    context.insert("host", HOST);
    context.insert("forged", &forged());
    context.insert("names", &settings.https().map(|_| names(&settings.certificates.copies)));
    context.insert("inner", &settings.shares_port().then(|| inner(settings)));
    context.insert("access_log", &settings.access_log.as_ref().map(ToString::to_string));
    context.insert("trusted", &settings.trusted.iter().map(ToString::to_string).collect::<Vec<_>>());
    context.insert("wildcards", &(1..=MOST_LABELS).collect::<Vec<_>>());
    context.insert("strips", &(1..=MOST_STRIPPED).collect::<Vec<_>>());
    context.insert("nobody", NOBODY);
    context.insert("empty", empty(way));
    let port = settings.https_port.get();
    context.insert("https_port", &if port == 443 { String::new() } else { format!(":{port}") });
    let template = match way {
        Way::Http => include_str!("../templates/edge.tera"),
        Way::Sni => include_str!("../templates/edge_sni.tera"),
    };
    render(template, context)
}

/// The skeleton of the section of that number.
///
/// # Errors
/// [`tera::Error`]: never, as a test shows.
pub fn section(
    settings: &EdgeSettings,
    frame: &Frame,
    way: Way,
    number: u32,
    kind: Kind,
) -> Result<String, tera::Error> {
    let head = format!("backend {}", section_name(way, number));
    match (way, kind) {
        (Way::Http, Kind::Plain) => Ok(format!("{head} from {PLAIN}\n")),
        (Way::Http, Kind::Whole) => slot(way, &head, Some(&format!("edge{number}")), settings, frame),
        (Way::Sni, _) => slot(way, &head, None, settings, frame),
    }
}

/// The lines of [`PLAIN`], without its head: what a whole section says, but for its cookie.
///
/// # Errors
/// [`tera::Error`]: never, as a test shows.
pub fn plain_lines(settings: &EdgeSettings, frame: &Frame) -> Result<String, tera::Error> {
    Ok(slot(Way::Http, "", None, settings, frame)?.trim_start_matches('\n').to_owned())
}

fn slot(
    way: Way,
    head: &str,
    cookie: Option<&str>,
    settings: &EdgeSettings,
    frame: &Frame,
) -> Result<String, tera::Error> {
    let mut context = Context::new();
    context.insert("head", head);
    context.insert("cookie", &cookie);
    context.insert("cookie_key", &settings.cookie_key.to_string());
    for (name, time) in [("timeout_connect", frame.timeouts[0]), ("timeout_server", frame.timeouts[2])] {
        context.insert(name, &format!("{}ms", time.as_millis()));
    }
    let (mode, template) = match way {
        Way::Http => (Mode::Http, include_str!("../templates/slot.tera")),
        Way::Sni => (Mode::Tcp, include_str!("../templates/slot_sni.tera")),
    };
    context.insert("silence", &frame.silence.of_mode(mode));
    render(template, context)
}
