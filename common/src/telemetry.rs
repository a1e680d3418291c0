//! Logs: their set-up, and how an error is printed in one.

use std::{
    error::Error,
    fmt,
    io::{self, IsTerminal},
};

use tracing_subscriber::{EnvFilter, filter::ParseError, util::TryInitError};
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
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !text.is_empty() && !printed.ends_with(&text) {
                write!(f, ": {text}")?;
                printed = text;
            }
            cause = error.source();
        }
        Ok(())
    }
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
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Somebody set up logging before.
    #[error("starting the log")]
    Init(#[source] TryInitError),
}

/// Sends logs to stderr (stdout belongs to the commands' results). `filter` such as `info` or `warn,common::store=debug`; `RUST_LOG`, when
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
        let layer = tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(io::stderr);
        registry.with(layer).try_init()
    }
    .map_err(LoggingError::Init)
}

fn choose_filter(env: Option<String>, given: &str) -> Result<EnvFilter, LoggingError> {
    let (origin, filter) = match env.filter(|v| !v.trim().is_empty()) {
        Some(v) => ("RUST_LOG", v),
        None => ("--log", given.to_owned()),
    };
    EnvFilter::try_new(&filter).map_err(|source| LoggingError::Filter { origin, filter, source })
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
