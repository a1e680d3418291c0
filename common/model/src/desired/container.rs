//! A container as far as registering it is concerned: what was read from `docker inspect`, parsed once.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::{Port, Transport};

/// A container's id: 64 lower-case hexadecimal digits. It outlives renames and restarts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ContainerId(Arc<str>);

/// A text that is no container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("container id {0:?} is not 64 hexadecimal digits")]
pub struct ContainerIdError(String);

impl ContainerId {
    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one that comes before all others: where a search in an ordered set begins.
    pub fn lowest() -> Self {
        Self("".into())
    }

    /// The first 12 digits, as `docker ps` shows them and docker-register's keys have them.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

/// It is ordered as its text is, so a map of ids can be searched by the beginning of one.
impl Borrow<str> for ContainerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = ContainerIdError;
    fn from_str(text: &str) -> Result<Self, ContainerIdError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.into()))
        } else {
            Err(ContainerIdError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its program runs.
    Running,
    /// Its program is frozen; its port still accepts connections and nobody answers.
    Paused,
    /// Between two runs, as its restart policy has it.
    Restarting,
    /// Never started.
    Created,
    /// Ended.
    Exited,
    /// Could not be removed.
    Dead,
    /// Being removed.
    Removing,
    /// A word that no daemon known to us uses for a running container (Podman: `stopped`, `stopping`, `initialized`).
    Other,
}

/// What Docker's own HEALTHCHECK says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not yet passed, and still within its start period or its retries.
    Starting,
    /// Passed.
    Healthy,
    /// Failed.
    Unhealthy,
}

/// A container's place on one network. Both addresses are absent where the container does not run, or where the network is the
/// host's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Network {
    /// Its IPv4 address there.
    pub ipv4: Option<Ipv4Addr>,
    /// Its global IPv6 address there.
    pub ipv6: Option<Ipv6Addr>,
}

/// Where one container port is published on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Binding {
    /// The host's address; `None` where the daemon leaves it empty (Podman), which means all of them.
    pub ip: Option<IpAddr>,
    /// The host's port.
    pub port: Port,
}

/// A port that the image exposes or the container publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerPort {
    /// The port inside the container.
    pub port: Port,
    /// TCP or UDP; others (SCTP) are left out.
    pub transport: Transport,
    /// Where it is published; empty: exposed only.
    pub published: Vec<Binding>,
}

/// A container as the daemon described it at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Container {
    /// Its identity.
    pub id: ContainerId,
    /// Its name, without the leading slash.
    pub name: String,
    /// The image's reference, as it was given when the container was made.
    pub image: String,
    /// Its labels, the image's included.
    pub labels: BTreeMap<String, String>,
    /// Its environment; an entry without `=` is an empty value.
    pub env: BTreeMap<String, String>,
    /// What it is doing.
    pub state: State,
    /// Its HEALTHCHECK's word; `None`: it has none.
    pub health: Option<Health>,
    /// `bridge`, `host`, `container:<id>`, or a network's name.
    pub network_mode: String,
    /// Its networks by name.
    pub networks: BTreeMap<String, Network>,
    /// Its ports, sorted by number and transport, each once.
    pub ports: Vec<ContainerPort>,
    /// The signal by which it is asked to stop (15 unless the image or the command line says otherwise).
    pub stop_signal: i32,
    /// How long Docker waits after that signal before it kills (10 s unless told otherwise).
    pub stop_timeout: Duration,
    /// When it was last started, as the daemon's RFC 3339 text (which sorts by time); empty: never.
    pub started_at: String,
    /// Its main process in the host's process table; `None`: not running.
    pub pid: Option<u32>,
}

/// The number of a signal as Docker writes it: `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`.
///
/// Source: moby/sys/signal, `ParseSignal`; numbers are Linux's on x86, ARM and RISC-V.
pub fn parse_signal(text: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    const RT_MIN: i32 = 34;
    const RT_MAX: i32 = 64;
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RT_MAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(index + 1).ok();
    }
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    let number = match name {
        "IOT" => 6,
        "CLD" => 17,
        "POLL" => 29,
        _ if name.starts_with("RTMIN") => RT_MIN.checked_add(offset(&name[5..])?)?,
        _ if name.starts_with("RTMAX") => RT_MAX.checked_add(offset(&name[5..])?)?,
        _ => return None,
    };
    (1..=RT_MAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_64_hex_digits_and_its_short_form_has_12() {
        let id: ContainerId = "0123456789abcdef".repeat(4).parse().unwrap();
        assert_eq!(id.short(), "0123456789ab");
        for bad in ["", "abc", &"G".repeat(64), &"A".repeat(64), &"a".repeat(65), &"é".repeat(32)] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("sigquit", 3),
            ("15", 15),
            ("SIGKILL", 9),
            ("SIGWINCH", 28),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMIN", 34),
            ("SIGSYS", 31),
            ("IOT", 6),
        ] {
            assert_eq!(parse_signal(text), Some(number), "{text}");
        }
        for bad in ["", "0", "-1", "65", "SIG", "SIGRTMIN+99", "SIGRTMIN+2147483647", "RTMIN+x", "é"] {
            assert_eq!(parse_signal(bad), None, "{bad}");
        }
    }
}
