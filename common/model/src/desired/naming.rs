//! Service names: the image rule, and the other places that a name can come from.

use super::container::Container;
use super::decision::Skip;
use super::settings::{ServiceFrom, Settings};
use crate::{Port, ServiceName, Transport};

const COMPOSE_SERVICE: &str = "com.docker.compose.service";
const SWARM_SERVICE: &str = "com.docker.swarm.service.name";

/// The base name of an image reference: registry, namespace, tag and digest removed. `None` where nothing is left, or
/// where the image is known by its digest alone (`sha256:…`).
///
/// Source of the grammar: distribution/reference. docker-register 's docker-gen 0.3.3 cut at the *first* slash and colon; for the
/// references that it could register the outcome is the same.
pub fn base_name(image: &str) -> Option<&str> {
    let without_digest = image.split('@').next().unwrap_or(image);
    let last = without_digest.rsplit('/').next().unwrap_or(without_digest);
    let name = last.split(':').next().unwrap_or(last);
    let digest_only = name == "sha256" && without_digest.len() > "sha256:".len() + 11;
    (!name.is_empty() && !digest_only).then_some(name)
}

/// A name before a port is appended to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// As it was given; not yet checked.
    pub text: String,
    /// Where it came from, for the trail.
    pub from: String,
    /// It tells a container's ports apart by itself, so none is appended.
    pub exact: bool,
}

/// The name that `--service-from` gives to a port; what it names but a container lacks falls back to the image.
///
/// # Errors
/// [`Skip::BadName`] when the template fails on this container or the image has no name.
pub fn from_settings(
    container: &Container,
    port: Option<(Port, Transport)>,
    settings: &Settings,
) -> Result<Given, Skip> {
    let label = |key: &str| match container.labels.get(key).filter(|value| !value.is_empty()) {
        Some(value) => Ok(Given { text: value.clone(), from: format!("label {key}"), exact: false }),
        None => from_image(container, format!("image {} (it has no label {key})", container.image)),
    };
    match &settings.service_from {
        ServiceFrom::Image => from_image(container, format!("image {}", container.image)),
        ServiceFrom::Compose => label(COMPOSE_SERVICE),
        ServiceFrom::Swarm => label(SWARM_SERVICE),
        ServiceFrom::Label(key) => label(key),
        ServiceFrom::Template(template) => {
            let from = format!("template {}", template.text());
            let base = base_name(&container.image).unwrap_or_default();
            let text = template
                .render(container, base, port, settings.node.as_deref())
                .map_err(|e| Skip::BadName { from: from.clone(), why: reason(&e) })?;
            Ok(Given { text, from, exact: template.names_port() })
        }
    }
}

/// The whole chain of causes: Tera says what is missing only in the last.
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    excerpt(&cause.to_string())
}

fn from_image(container: &Container, from: String) -> Result<Given, Skip> {
    match base_name(&container.image) {
        Some(name) => Ok(Given { text: name.to_owned(), from, exact: false }),
        None => {
            Err(Skip::BadName { from, why: "the image is known by its digest only; name the service by label".into() })
        }
    }
}

/// The service's name: what was given, with the port behind it where several ports share it.
///
/// # Errors
/// [`Skip::BadName`] when the text is no service name.
pub fn service(given: &Given, port: Option<Port>) -> Result<ServiceName, Skip> {
    let text = match port {
        Some(port) if !given.exact => format!("{}-{port}", given.text),
        _ => given.text.clone(),
    };
    text.parse().map_err(|e: crate::NameError| Skip::BadName { from: given.from.clone(), why: e.to_string() })
}

/// The beginning of a text: refusals quote what they refuse, and a megabyte of rubbish is not quoted.
pub fn excerpt(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_rule_leaves_the_base_name() {
        for (image, name) in [
            ("nginx", "nginx"),
            ("nginx:1.25", "nginx"),
            ("acme/web:1.2", "web"),
            ("a/web", "web"),
            ("reg.local:5000/team/api:3", "api"),
            ("reg.local:5000/api", "api"),
            ("localhost/x/y/z", "z"),
            ("nginx@sha256:abcd", "nginx"),
            ("reg:5000/team/api:3@sha256:abcd", "api"),
            ("[::1]:5000/web:2", "web"),
            ("8b0e7e657b5b", "8b0e7e657b5b"),
        ] {
            assert_eq!(base_name(image), Some(name), "{image}");
        }
        for image in ["", "/", ":1", "a/:1", "@sha256:ab", &format!("sha256:{}", "a".repeat(64))] {
            assert_eq!(base_name(image), None, "{image}");
        }
    }
}
