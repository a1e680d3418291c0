//! Every key of the config: one table, from which come the checks, the JSON Schema and the reference in the docs.
//!
//! | module | what it holds |
//! |---|---|
//! | `service` | a service, and its default servers |
//! | `discovery` | where its backends come from |
//! | `haproxy` | haproxy's own section, and a service's part of it |
//! | `generators` | the same of the other generators |

mod discovery;
mod generators;
mod haproxy;
mod service;

pub use discovery::DISCOVERY;
pub use generators::SERVICE_NGINX;
pub use haproxy::{HAPROXY, SERVICE_HAPROXY};
pub use service::SERVICE;

use generators::{FILE_OUTPUT, NGINX, PROMETHEUS, TEMPLATE};

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// true or false; `yes`, `no`, `on`, `off` as YAML 1.1 had them.
    Bool,
    /// One line of text; a number is taken as its digits.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number, also as digits in a text.
    Whole {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// A number from 0 on.
    Number,
    /// A port or a range of them (`8000-8010`), or null.
    Port,
    /// Lines of text; one alone need not be in a list.
    Lines,
    /// Any JSON: Synapse passes over what it cannot use.
    Any,
    /// An object with these keys.
    Object(&'static [Key]),
    /// Such objects; one alone need not be in a list.
    Objects(&'static [Key]),
    /// Any names, each with such a value.
    Map(&'static Kind),
}

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Synapse's own.
    Synapse,
    /// synapse-nginx's.
    SynapseNginx,
    /// Of the clay.io or the etcd fork.
    Fork,
    /// Ours.
    Ours,
}

impl Origin {
    /// As the reference prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synapse => "Synapse",
            Self::SynapseNginx => "synapse-nginx",
            Self::Fork => "a fork of Synapse",
            Self::Ours => "discover",
        }
    }
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// What counts without it, as the reference prints it; empty: nothing.
    pub default: &'static str,
    /// Whose it is.
    pub origin: Origin,
    /// What it does.
    pub doc: &'static str,
    /// The test that shows it.
    pub test: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str, test: &'static str) -> Key {
    Key { name, kind, default, origin: Origin::Synapse, doc, test }
}

const fn ours(name: &'static str, kind: Kind, default: &'static str, doc: &'static str, test: &'static str) -> Key {
    Key { name, kind, default, origin: Origin::Ours, doc, test }
}

const fn fork(name: &'static str, kind: Kind, default: &'static str, doc: &'static str, test: &'static str) -> Key {
    Key { name, kind, default, origin: Origin::Fork, doc, test }
}

const fn nginx(name: &'static str, kind: Kind, default: &'static str, doc: &'static str, test: &'static str) -> Key {
    Key { name, kind, default, origin: Origin::SynapseNginx, doc, test }
}

const ANY_NUMBER: Kind = Kind::Whole { min: i64::MIN, max: i64::MAX };
const NATURAL: Kind = Kind::Whole { min: 0, max: i64::MAX };
const SERVER_ID: Kind = Kind::Whole { min: 1, max: 2_147_483_647 };
const PORT_NUMBER: Kind = Kind::Whole { min: 1, max: 65_535 };

/// The whole file.
pub const ROOT: &[Key] = &[
    key(
        "services",
        Kind::Map(&Kind::Object(SERVICE)),
        "{}",
        "Services by name, in the order of haproxy.cfg.",
        "services_keep_the_order_of_the_file",
    ),
    key(
        "service_conf_dir",
        Kind::Text,
        "",
        "Directory of further services, `NAME.json` or `NAME.yaml` each; one of the same name takes the place of the other.",
        "service_conf_dir_adds_and_replaces_services",
    ),
    key("haproxy", Kind::Object(HAPROXY), "", "The haproxy generator.", "a_section_without_its_required_keys_is_named"),
    key(
        "file_output",
        Kind::Object(FILE_OUTPUT),
        "",
        "The file_output generator.",
        "file_output_writes_changed_files_and_removes_others",
    ),
    nginx("nginx", Kind::Object(NGINX), "", "The nginx generator.", "nginx_http_and_stream"),
    ours(
        "template",
        Kind::Map(&Kind::Object(TEMPLATE)),
        "",
        "Files rendered from Tera templates, by a name of your choice.",
        "templates_are_rendered_and_their_commands_run",
    ),
    ours(
        "prometheus",
        Kind::Object(PROMETHEUS),
        "",
        "Targets for Prometheus' file_sd.",
        "prometheus_targets_carry_labels",
    ),
    key("statsd", Kind::Object(STATSD), "", "Taken and not used: metrics are at `/metrics`.", "statsd_is_tolerated"),
];

const STATSD: &[Key] = &[
    key("host", Kind::Text, "localhost", "Not used.", "statsd_is_tolerated"),
    key("port", PORT_NUMBER, "8125", "Not used.", "statsd_is_tolerated"),
    key("sample_rate", Kind::Any, "", "Not used.", "statsd_is_tolerated"),
];
