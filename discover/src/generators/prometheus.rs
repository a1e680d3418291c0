//! Targets for Prometheus' file-based discovery (`file_sd_configs`).
//!
//! Source: Prometheus' configuration reference, `<file_sd_config>`: a JSON array of `{targets, labels}`. A label there counts before
//! Prometheus' own: `job` in one would put a target under another job's name. So no registration names such a label.

use agent::files::Replace;
use model::Status;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::output::{Made, MadeFrom, Output, OutputError};
use super::{Generator, Outcome};
use crate::reconcile::Desired;
use crate::synapse::Config;
use crate::synapse::types::{Prometheus as Settings, REGISTERED};

/// Prometheus' targets as a generator.
#[derive(Debug)]
pub struct Prometheus {
    settings: Settings,
    output: Output,
    /// What the text that is applied was made from.
    made_from: Option<MadeFrom>,
}

impl Prometheus {
    /// A generator for this config; `None` where it is not wanted.
    pub fn new(config: &Config) -> Option<Self> {
        let settings = config.prometheus.clone()?;
        let how = Replace { mode: Some(0o644), ..Replace::default() };
        let output = Output { path: settings.file.clone(), how, check_command: None };
        Some(Self { settings, output, made_from: None })
    }

    /// The file's text: one entry for each backend, as its labels are its own.
    pub fn text(&self, desired: &Desired) -> String {
        let mut entries = Vec::new();
        for service in desired.configured.iter().filter(|s| !s.prometheus.disabled) {
            for backend in desired.services.get(&service.name).into_iter().flat_map(|p| p.backends()) {
                if backend.status == Status::Down {
                    continue;
                }
                let mut labels = Map::new();
                for (name, value) in backend.labels.iter() {
                    labels.insert(registered(&self.settings.label_prefix, name), json!(value));
                }
                for (name, value) in &service.prometheus.labels {
                    labels.insert(label_name(name), json!(value));
                }
                labels.insert("service".to_owned(), json!(service.name.as_str()));
                if let Some(name) = &backend.name {
                    labels.insert("name".to_owned(), json!(&**name));
                }
                entries.push(json!({"targets": [backend.address()], "labels": labels}));
            }
        }
        let mut text = serde_json::to_string_pretty(&Value::Array(entries)).unwrap_or_default(); // string keys only
        text.push('\n');
        text
    }
}

/// The label for a registration's own: with the operator's prefix, and never one that means something to Prometheus.
fn registered(prefix: &str, name: &str) -> String {
    let own = label_name(&format!("{prefix}{name}"));
    if ["job", "instance", "service", "name", "le", "quantile"].contains(&own.as_str()) {
        return label_name(&format!("{REGISTERED}{name}"));
    }
    own
}

/// What a label's name may go on with: `[a-zA-Z0-9_]*`, an underscore for all else, as Prometheus' own discovery has it.
pub fn label_word(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, and not with the two underscores that Prometheus keeps for itself.
fn label_name(text: &str) -> String {
    let name = label_word(text);
    let name = name.trim_start_matches("__");
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name.to_owned() }
}

impl Generator for Prometheus {
    /// The text, if it is another one.
    type Plan = Option<Made<String>>;
    type Error = OutputError;

    fn plan(&self, desired: &Desired, _: Instant) -> Self::Plan {
        Made::unless(self.made_from.as_ref(), desired, || self.text(desired))
    }

    async fn apply(&mut self, plan: Self::Plan) -> Result<Outcome, OutputError> {
        if let Some(Made { what: text, from }) = plan {
            self.made_from = None;
            self.output.put(&text).await?;
            self.made_from = Some(from);
        }
        Ok(Outcome::Done)
    }
}
