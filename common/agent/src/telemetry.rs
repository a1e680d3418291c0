//! Logs: their set-up, and how an error is printed in one; a metric of both agents.

use std::{
    error::Error,
    fmt,
    io::{self, IsTerminal},
};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

/// An error with its causes, `operation: cause: cause`, each once.
///
/// Our own errors leave their cause to `source()`; some libraries print it in their `Display` as well: a cause that the text before it
/// already ends with is left out.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printed = self.0.to_string();
        f.write_str(&printed)?;
        let mut hint = remedy(&printed);
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !text.is_empty() && !printed.ends_with(&text) {
                write!(f, ": {text}")?;
                hint = hint.or_else(|| remedy(&text));
                printed = text;
            }
            cause = error.source();
        }
        hint.map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// What to do about words of the TLS library that name none.
fn remedy(text: &str) -> Option<&'static str> {
    let known = [
        (
            "CaUsedAsEndEntity",
            "the server's certificate is an authority's own: it needs one that the authority made for the server",
        ),
        ("UnknownIssuer", "the authority that is trusted here has not signed the certificate"),
    ];
    known.into_iter().find(|(word, _)| text.contains(word)).map(|(_, remedy)| remedy)
}

/// A URL, or a comma list of them, with each password masked: `http://user:***@host`.
///
/// For every log line and status that shows where we connect to.
#[derive(Debug, Clone, Copy)]
pub struct Masked<'a>(pub &'a str);

impl fmt::Display for Masked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, url) in self.0.split(',').enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            // The last '@' counts: a password may hold one, a host may not. No scheme is needed (`user:pw@host:2379`).
            let start = url.find("://").map_or(0, |i| i + 3);
            let (scheme, rest) = url.split_at(start);
            let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            // A raw '/' in a password is no valid URL; mask up to the last '@' anyway rather than show half of it.
            let end = rest.rfind('@').filter(|at| *at < authority || rest.find(':').is_some_and(|c| c < authority));
            match end.map(|at| rest.split_at(at)) {
                Some((user, host)) => match user.split_once(':') {
                    Some((name, _)) => write!(f, "{scheme}{name}:***{host}")?,
                    None => f.write_str(url)?,
                },
                None => f.write_str(url)?,
            }
        }
        Ok(())
    }
}

/// How log lines look (`--log-format`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text when stderr is a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl LogFormat {
    fn is_json(self, terminal: bool) -> bool {
        match self {
            Self::Auto => !terminal,
            Self::Text => false,
            Self::Json => true,
        }
    }
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is no list of `target=level`.
    #[error("reading the log filter {filter:?} of {origin}")]
    Filter {
        /// `RUST_LOG` or `--log`.
        origin: &'static str,
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Somebody set up logging before.
    #[error("starting the log")]
    Init(#[source] TryInitError),
}

/// Sends logs to stderr (stdout belongs to the commands' results). `filter` such as `info` or `warn,registry::store=debug`; `RUST_LOG`, when
/// set and not empty, wins over it.
///
/// # Errors
/// A filter that cannot be read (a usage error), or a second call.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let filter = choose_filter(std::env::var("RUST_LOG").ok(), filter)?;
    let terminal = io::stderr().is_terminal();
    let registry = tracing_subscriber::registry().with(filter);
    if format.is_json(terminal) {
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(io::stderr);
        registry.with(layer).try_init()
    } else {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()); // https://no-color.org
        let layer = tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(move || OneEvent { colour });
        registry.with(layer).try_init()
    }
    .map_err(LoggingError::Init)
}

/// Stderr, for text. What is logged may come from strangers: a line's end in it begins no line that looks like an event
/// (what goes on is set in), and no control character reaches a terminal, but for the formatter's own colours.
struct OneEvent {
    colour: bool,
}

impl io::Write for OneEvent {
    /// An event comes in one piece.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = set_in(&String::from_utf8_lossy(event), self.colour);
        io::stderr().lock().write_all(text.as_bytes()).map(|()| event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn set_in(event: &str, colour: bool) -> String {
    let (body, end) = event.strip_suffix('\n').map_or((event, ""), |body| (body, "\n"));
    let mut text = String::with_capacity(event.len());
    for (at, c) in body.char_indices() {
        match c {
            '\n' => text.push_str("\n    | "),
            '\u{1b}' if colour && is_colour(&body[at + 1..]) => text.push(c),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text.push_str(end);
    text
}

/// Whether what follows an escape character sets a colour: `[1;31m`.
fn is_colour(rest: &str) -> bool {
    let numbers = |rest: &str| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m');
    rest.strip_prefix('[').is_some_and(numbers)
}

fn choose_filter(env: Option<String>, given: &str) -> Result<Targets, LoggingError> {
    let (origin, filter) = match env.filter(|v| !v.trim().is_empty()) {
        Some(v) => ("RUST_LOG", v),
        None => ("--log", given.to_owned()),
    };
    filter.parse().map_err(|source| LoggingError::Filter { origin, filter, source })
}

/// A gauge `tasks`: the tasks of the runtime in which it is asked. A number that only grows is a leak.
#[derive(Debug)]
pub struct Tasks;

impl Collector for Tasks {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        // Outside of a runtime there is none, as in a command that only prints.
        let alive = tokio::runtime::Handle::try_current().map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        let gauge = ConstGauge::new(i64::try_from(alive).unwrap_or(i64::MAX));
        let metric =
            encoder.encode_descriptor("tasks", "Tasks under way in this program", None, gauge.metric_type())?;
        gauge.encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug)]
    struct Link(&'static str, Option<Box<Link>>);
    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }
    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|e| e as &dyn Error)
        }
    }
    fn chain(texts: &[&'static str]) -> Link {
        Link(texts[0], (texts.len() > 1).then(|| Box::new(chain(&texts[1..]))))
    }

    #[test]
    fn words_of_tls_that_name_no_remedy_come_with_one() {
        let said = Chain(&chain(&["connecting", "invalid peer certificate: Other(CaUsedAsEndEntity)"])).to_string();
        assert!(
            said.ends_with(
                " (the server's certificate is an authority's own: it needs one that the authority made for the server)"
            ),
            "{said}"
        );
        assert!(!Chain(&chain(&["connecting", "refused"])).to_string().contains('('));
    }

    #[tokio::test]
    async fn the_tasks_of_the_runtime_are_counted() {
        let mut registry = prometheus_client::registry::Registry::with_prefix("x");
        registry.register_collector(Box::new(Tasks));
        let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(std::future::pending::<()>())).collect();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("\nx_tasks 3\n"), "{text}");
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[test]
    fn a_chain_prints_each_cause_once() {
        let print = |texts: &[&'static str]| Chain(&chain(texts)).to_string();
        assert_eq!(print(&["listing \"/backends\""]), "listing \"/backends\"");
        assert_eq!(print(&["listing", "connecting", "refused"]), "listing: connecting: refused");
        assert_eq!(
            print(&["listing: connecting: refused", "connecting: refused", "refused"]),
            "listing: connecting: refused"
        );
        assert_eq!(print(&["listing", "", "refused"]), "listing: refused");
        let boxed: Box<dyn Error + Send + Sync> = "boxed".into();
        assert_eq!(Chain(&*boxed).to_string(), "boxed");
    }

    #[test]
    fn passwords_are_masked() {
        for (url, shown) in [
            ("http://etcd:2379", "http://etcd:2379"),
            ("http://root:s3cret@etcd:2379/x", "http://root:***@etcd:2379/x"),
            ("root:s@3:cret@etcd", "root:***@etcd"),
            ("https://root:a/b@etcd", "https://root:***@etcd"),
            ("http://me@etcd", "http://me@etcd"),
            ("a:1,http://u:p@b:2,[::1]:3", "a:1,http://u:***@b:2,[::1]:3"),
            ("http://h/a@b:c", "http://h/a@b:c"),
            ("", ""),
        ] {
            assert_eq!(Masked(url).to_string(), shown);
        }
    }

    proptest! {
        #[test]
        fn no_password_is_ever_shown(user in "[a-z]{0,4}", secret in "[A-Z@:/?#]{0,3}[A-Z]{4}", host in "[a-z]{1,4}") {
            let shown = Masked(&format!("http://{user}:{secret}@{host}:2379/path")).to_string();
            prop_assert_eq!(shown, format!("http://{user}:***@{host}:2379/path"));
        }
    }

    #[test]
    fn an_event_in_text_is_one_line_or_is_set_in() {
        assert_eq!(set_in("plain\n", false), "plain\n");
        assert_eq!(set_in("key=a\n2026 INFO forged\r\n", false), "key=a\n    | 2026 INFO forged\\r\n");
        assert_eq!(set_in("\u{1b}[31mred\u{1b}[2Jgone\u{9b}\n", true), "\u{1b}[31mred\\u{1b}[2Jgone\\u{9b}\n");
        assert_eq!(set_in("\u{1b}[31m\t", false), "\\u{1b}[31m\\t");
    }

    #[test]
    fn format_follows_the_terminal_unless_told() {
        assert!(LogFormat::Auto.is_json(false) && !LogFormat::Auto.is_json(true));
        assert!(!LogFormat::Text.is_json(false) && LogFormat::Json.is_json(true));
        assert_eq!(LogFormat::from_str("json", false), Ok(LogFormat::Json));
    }

    #[test]
    fn rust_log_wins_and_errors_name_it() {
        assert_eq!(choose_filter(Some("debug".into()), "info").unwrap().to_string(), "debug");
        assert_eq!(choose_filter(Some(" ".into()), "info").unwrap().to_string(), "info");
        let err = choose_filter(Some("a=loud".into()), "info").unwrap_err();
        assert_eq!(err.to_string(), "reading the log filter \"a=loud\" of RUST_LOG");
    }
}
