//! How the agent was told to register.

use std::fmt;
use std::net::IpAddr;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use super::container::Container;
use super::template::NameTemplate;
use crate::Pattern;

/// How the agent was told to register. The default is docker-register's behaviour, with every port of a container.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The address published for what is bound to every address of the host (HOST_IP).
    pub host_ip: Option<IpAddr>,
    /// Loopback addresses may be published (a demo on one host).
    pub allow_loopback: bool,
    /// No label says at which address a container is published.
    pub no_address_labels: bool,
    /// How many ports of a container are registered that no label names.
    pub max_ports: MaxPorts,
    /// Containers are published at their own addresses, exposed ports included.
    pub internal: bool,
    /// Which of a container's networks gives its own address, unless a label says.
    pub networks: NetworkChoice,
    /// Which family is taken where a container or a port has both.
    pub family: Family,
    /// Only what is named by label or variable is registered.
    pub explicit: bool,
    /// Where service names come from.
    pub service_from: ServiceFrom,
    /// What an unhealthy container means, unless the label `register.health` says.
    pub health: HealthPolicy,
    /// Which containers are looked at.
    pub filters: Vec<Filter>,
    /// The host, for templates.
    pub node: Option<Arc<str>>,
    /// The zone of the host: where there is one, registrations are labelled with it and with the node.
    pub zone: Option<Arc<str>>,
}

impl Settings {
    /// The filter that leaves `container` out, if one does.
    pub fn excluded_by(&self, container: &Container) -> Option<&Filter> {
        let admitted = |filter: &Filter| self.filters.iter().any(|f| f.same_kind(filter) && f.admits(container));
        self.filters.iter().find(|filter| !admitted(filter))
    }
}

/// Which of a container's networks gives its own address.
#[derive(Debug, Clone, Default)]
pub struct NetworkChoice {
    /// The one of this name.
    pub name: Option<String>,
    /// Ids of containers, whole or from the beginning, that may be the one that this program runs in. A network that it is on comes
    /// before others.
    pub own_ids: Arc<[String]>,
}

/// The most ports of one container that are registered although no label names them (`--max-ports`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPorts(pub usize);

impl Default for MaxPorts {
    fn default() -> Self {
        Self(32)
    }
}

impl FromStr for MaxPorts {
    type Err = ParseIntError;
    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for MaxPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which address family is taken where there is a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4 where there is one, else IPv6.
    #[default]
    Ipv4,
    /// IPv6 where there is one, else IPv4.
    Ipv6,
}

/// What becomes of a container whose HEALTHCHECK has not passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthPolicy {
    /// Not published until it is healthy, withdrawn when it is not.
    #[default]
    Hide,
    /// Published with status `down`.
    Down,
    /// The HEALTHCHECK does not count.
    Ignore,
}

/// Where a service's name comes from, where no label or variable of ours or Registrator's gives one.
#[derive(Debug, Clone, Default)]
pub enum ServiceFrom {
    /// The image's base name.
    #[default]
    Image,
    /// Compose's label `com.docker.compose.service`.
    Compose,
    /// Compose's project and service, `<project>-<service>`.
    ComposeProject,
    /// Swarm's label `com.docker.swarm.service.name`.
    Swarm,
    /// A label of the user's choice.
    Label(String),
    /// A Tera template over the container.
    Template(Arc<NameTemplate>),
}

/// A word or text that a setting does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {accepted}")]
pub struct SettingError {
    /// What was given.
    pub text: String,
    /// What would have been taken.
    pub accepted: &'static str,
}

impl SettingError {
    fn new(text: &str, accepted: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), accepted }
    }
}

impl FromStr for Family {
    type Err = SettingError;
    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text.to_ascii_lowercase().as_str() {
            "4" | "ipv4" | "inet" => Ok(Self::Ipv4),
            "6" | "ipv6" | "inet6" => Ok(Self::Ipv6),
            _ => Err(SettingError::new(text, "ipv4 or ipv6")),
        }
    }
}

impl FromStr for HealthPolicy {
    type Err = SettingError;
    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text.to_ascii_lowercase().as_str() {
            "hide" => Ok(Self::Hide),
            "down" => Ok(Self::Down),
            "ignore" => Ok(Self::Ignore),
            _ => Err(SettingError::new(text, "hide, down or ignore")),
        }
    }
}

/// `image`, `compose`, `compose-project`, `swarm`, `label:KEY`, `template:TEXT`.
impl FromStr for ServiceFrom {
    type Err = SettingError;
    fn from_str(text: &str) -> Result<Self, SettingError> {
        const ACCEPTED: &str =
            "image, compose, compose-project, swarm, label:KEY or template:TEXT (TEXT a Tera template)";
        match text.split_once(':') {
            None if text == "image" => Ok(Self::Image),
            None if text == "compose" => Ok(Self::Compose),
            None if text == "compose-project" => Ok(Self::ComposeProject),
            None if text == "swarm" => Ok(Self::Swarm),
            Some(("label", key)) if !key.is_empty() => Ok(Self::Label(key.to_owned())),
            Some(("template", text)) => match NameTemplate::new(text) {
                Ok(template) => Ok(Self::Template(Arc::new(template))),
                Err(_) => Err(SettingError::new(text, "a Tera template")),
            },
            _ => Err(SettingError::new(text, ACCEPTED)),
        }
    }
}

/// Which containers are looked at. Filters of different kinds, and several `label=`, must all agree; of several `name=`
/// or several `network=` one is enough, as in `docker ps --filter`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Filter {
    /// `label=KEY` or `label=KEY=VALUE`.
    Label(String, Option<String>),
    /// `name=PATTERN`, where `*` stands for any characters.
    Name(Pattern),
    /// `network=NAME`.
    Network(String),
}

impl FromStr for Filter {
    type Err = SettingError;
    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text.split_once('=') {
            Some(("label", rest)) if !rest.is_empty() => Ok(match rest.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(rest.to_owned(), None),
            }),
            Some(("name", rest)) if !rest.is_empty() => Ok(Self::Name(rest.into())),
            Some(("network", rest)) if !rest.is_empty() => Ok(Self::Network(rest.to_owned())),
            _ => Err(SettingError::new(text, "label=KEY, label=KEY=VALUE, name=PATTERN or network=NAME")),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(key, None) => write!(f, "label={key}"),
            Self::Label(key, Some(value)) => write!(f, "label={key}={value}"),
            Self::Name(pattern) => write!(f, "name={pattern}"),
            Self::Network(name) => write!(f, "network={name}"),
        }
    }
}

impl Filter {
    fn admits(&self, container: &Container) -> bool {
        match self {
            Self::Label(key, None) => container.labels.contains_key(key),
            Self::Label(key, Some(value)) => container.labels.get(key) == Some(value),
            Self::Name(pattern) => pattern.covers(&container.name),
            Self::Network(name) => container.networks.contains_key(name) || container.network_mode == *name,
        }
    }

    fn same_kind(&self, other: &Self) -> bool {
        match self {
            Self::Label(..) => self == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_refuse_what_they_do_not_know_and_say_what_they_take() {
        assert_eq!("x".parse::<HealthPolicy>().unwrap_err().to_string(), "\"x\" is not hide, down or ignore");
        assert!("label:".parse::<ServiceFrom>().is_err());
        assert!("template:{{ x".parse::<ServiceFrom>().is_err());
        assert!(matches!("template:{{ labels.app }}".parse(), Ok(ServiceFrom::Template(_))));
        assert!("status=running".parse::<Filter>().is_err());
        assert_eq!("label=a=b=c".parse::<Filter>().unwrap().to_string(), "label=a=b=c");
    }
}
