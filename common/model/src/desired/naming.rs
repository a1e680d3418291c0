//! Service names: the image rule, and the other places that a name can come from.

use super::container::Container;
use super::decision::Skip;
use super::settings::{ServiceFrom, Settings};
use crate::{Port, ServiceName, Transport};

const COMPOSE_SERVICE: &str = "com.docker.compose.service";
const COMPOSE_PROJECT: &str = "com.docker.compose.project";
const SWARM_SERVICE: &str = "com.docker.swarm.service.name";

/// The base name of an image reference: registry, namespace, tag and digest removed. `None` where nothing is left, or
/// where the image is known by its id or digest alone (`72daf87a5d7f`, `sha256:…`).
///
/// Source of the grammar: distribution/reference. docker-register 's docker-gen 0.3.3 cut at the *first* slash and colon; for the
/// references that it could register the outcome is the same.
pub fn base_name(image: &str) -> Option<&str> {
    let without_digest = image.split('@').next().unwrap_or(image);
    let last = without_digest.rsplit('/').next().unwrap_or(without_digest);
    let name = last.split(':').next().unwrap_or(last);
    (!name.is_empty() && !is_id(without_digest)).then_some(name)
}

/// Whether a reference is an image's id, whole or as `docker images` shows it, or a digest.
///
/// Source: the OCI image specification, "Digests"; moby's stringid (12 digits are a short id).
fn is_id(reference: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match reference.split_once(':') {
        None => (12..=64).contains(&reference.len()) && hex(reference),
        Some((algorithm, digest)) => {
            matches!(algorithm, "sha256" | "sha384" | "sha512") && digest.len() >= 12 && hex(digest)
        }
    }
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
    let said = |key: &str| container.labels.get(key).filter(|value| !value.is_empty());
    let lacks = |key: &str| from_image(container, format!("image {} (it has no label {key})", container.image));
    let label = |key: &str| match said(key) {
        Some(value) => Ok(Given { text: value.clone(), from: format!("label {key}"), exact: false }),
        None => lacks(key),
    };
    match &settings.service_from {
        ServiceFrom::Image => from_image(container, format!("image {}", container.image)),
        ServiceFrom::Compose => label(COMPOSE_SERVICE),
        ServiceFrom::ComposeProject => match (said(COMPOSE_PROJECT), said(COMPOSE_SERVICE)) {
            (Some(project), Some(service)) => Ok(Given {
                text: format!("{project}-{service}"),
                from: format!("labels {COMPOSE_PROJECT} and {COMPOSE_SERVICE}"),
                exact: false,
            }),
            (None, _) => lacks(COMPOSE_PROJECT),
            (_, None) => lacks(COMPOSE_SERVICE),
        },
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
            let why = "an image's id or digest is no name; the label register.service names the service";
            Err(Skip::BadName { from, why: why.to_owned() })
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
            ("72daf87a5d7f:1", "72daf87a5d7f"),
            ("acme/72daf87a5d7f", "72daf87a5d7f"),
            ("deadbeef", "deadbeef"),
            ("sha256", "sha256"),
            ("sha256:1", "sha256"),
        ] {
            assert_eq!(base_name(image), Some(name), "{image}");
        }
        let digest = "a1".repeat(32);
        let ids = [&digest, &format!("sha256:{digest}"), &format!("sha512:{digest}{digest}")];
        for image in ["", "/", ":1", "a/:1", "@sha256:ab", "8b0e7e657b5b", "sha256:8b0e7e657b5b"]
            .into_iter()
            .chain(ids.map(String::as_str))
        {
            assert_eq!(base_name(image), None, "{image}");
        }
    }
}
