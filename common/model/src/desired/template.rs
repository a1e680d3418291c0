//! Service names by a Tera template over the container.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tera::{Context, Tera};

use super::container::Container;
use crate::{Port, Transport};

const NAME: &str = "service";

/// A checked template whose text becomes a service name.
///
/// It sees `id` (12 digits), `name`, `image` (the whole reference), `base_name` (what the image rule makes of it),
/// `labels`, `env`, `networks`, `node`, `port`, `transport`; a missing key is an error for that container alone.
pub struct NameTemplate {
    text: String,
    tera: Tera,
    names_port: bool,
}

/// A template that cannot be read, or that a container cannot fill.
#[derive(Debug, thiserror::Error)]
#[error("service template {text:?}")]
pub struct TemplateError {
    text: String,
    source: tera::Error,
}

#[derive(Serialize)]
struct TemplateView<'a> {
    id: &'a str,
    name: &'a str,
    image: &'a str,
    base_name: &'a str,
    labels: &'a BTreeMap<String, String>,
    env: &'a BTreeMap<String, String>,
    networks: Vec<&'a str>,
    node: Option<&'a str>,
    port: Option<u16>,
    transport: Option<Transport>,
}

impl NameTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`] when it is no Tera template.
    pub fn new(text: &str) -> Result<Self, TemplateError> {
        let error = |source| TemplateError { text: text.to_owned(), source };
        let mut tera = Tera::default();
        tera.autoescape_on(Vec::<&'static str>::new());
        tera.add_raw_template(NAME, text).map_err(error)?;
        let names_port = tera.get_template_variables(NAME).map_err(error)?.contains("port");
        Ok(Self { text: text.to_owned(), tera, names_port })
    }

    /// Whether the template itself tells a container's ports apart.
    pub fn names_port(&self) -> bool {
        self.names_port
    }

    /// The template's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name for one port of `container`, blanks around it removed.
    ///
    /// # Errors
    /// [`TemplateError`] when the container lacks what the template asks for.
    pub fn render(
        &self,
        container: &Container,
        base_name: &str,
        port: Option<(Port, Transport)>,
        node: Option<&str>,
    ) -> Result<String, TemplateError> {
        let view = TemplateView {
            id: container.id.short(),
            name: &container.name,
            image: &container.image,
            base_name,
            labels: &container.labels,
            env: &container.env,
            networks: container.networks.keys().map(String::as_str).collect(),
            node,
            port: port.map(|(port, _)| port.get()),
            transport: port.map(|(_, transport)| transport),
        };
        let render = || self.tera.render(NAME, &Context::from_serialize(&view)?);
        render().map(|name| name.trim().to_owned()).map_err(|source| TemplateError { text: self.text.clone(), source })
    }
}

impl fmt::Debug for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}
