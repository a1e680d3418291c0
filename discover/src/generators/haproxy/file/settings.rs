//! What the operator decides about HAProxy.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use model::Port;

use super::edge::frontend::Frame;
use super::stats::Stats;
use crate::edge::EdgeSettings;
use crate::haproxy::words::bind::ListenOn;

/// What the operator decides about HAProxy, checked.
#[derive(Debug, Clone)]
pub struct HaproxySettings {
    /// haproxy.cfg. Its directory must be writable: the file is replaced by renaming.
    pub config_file: PathBuf,
    /// The runtime API's socket, written into the file.
    pub socket: PathBuf,
    /// What the services' part of the file has in common with the edge's.
    pub frame: Frame,
    pub stats: Stats,
    /// Ports that services may open.
    pub service_ports: PortRanges,
    /// Ports that they may not, because discover or the edge listens there.
    pub reserved: BTreeSet<Port>,
    /// The check of every server, as words of its line.
    pub check: String,
    /// How many checks a second all servers together get; 0: as many as that says.
    pub check_rate: u32,
    /// `maxconn` of the process.
    pub maxconn: u32,
    /// The user and group that HAProxy drops to, when it starts as root.
    pub user: Option<(String, String)>,
    /// A directory with `header.tera` or `section.tera` in place of ours.
    pub templates: Option<PathBuf>,
    /// The HTTP edge, if there is one.
    pub edge: Option<Arc<EdgeSettings>>,
}

impl HaproxySettings {
    /// What listens on `port`: the stats page may have addresses of its own.
    pub fn listen_of(&self, port: Port) -> &ListenOn {
        let own = self.stats.listen.as_ref().filter(|_| self.stats.port == Some(port));
        own.unwrap_or(&self.frame.listen)
    }
}

/// The most connections that one listener has, as a share of the process's (`50%`) or as a number. What one service can use up is
/// bounded, so that the others and the stats page answer; a share does not depend on how many services there are, which would be a
/// reload for each new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerShare {
    /// Of the process's `maxconn`, 1 to 100.
    Percent(u8),
    /// From 1.
    Connections(u32),
}

/// A text that is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a share such as 50% (1% to 100%) nor a number of connections from 1")]
pub struct ListenerShareError(String);

impl ListenerShare {
    /// As many connections, of `maxconn` in all.
    pub fn of(self, maxconn: u32) -> u32 {
        let most = match self {
            Self::Percent(share) => u64::from(maxconn) * u64::from(share) / 100,
            Self::Connections(number) => number.into(),
        };
        u32::try_from(most).unwrap_or(maxconn).clamp(1, maxconn.max(1))
    }
}

impl Default for ListenerShare {
    fn default() -> Self {
        Self::Percent(50)
    }
}

impl fmt::Display for ListenerShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(share) => write!(f, "{share}%"),
            Self::Connections(number) => write!(f, "{number}"),
        }
    }
}

impl FromStr for ListenerShare {
    type Err = ListenerShareError;
    fn from_str(text: &str) -> Result<Self, ListenerShareError> {
        let read = match text.trim().strip_suffix('%') {
            Some(share) => share.parse().ok().filter(|share| (1..=100).contains(share)).map(Self::Percent),
            None => text.trim().parse().ok().filter(|number| *number > 0).map(Self::Connections),
        };
        read.ok_or_else(|| ListenerShareError(text.to_owned()))
    }
}

/// Ports such as `8000-8999,443`, or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRanges(Vec<(Port, Port)>);

/// A text that names no ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a list of ports or ranges such as 8000-8999,443, nor none")]
pub struct PortRangesError(String);

impl PortRanges {
    /// Whether `port` is among them.
    pub fn contains(&self, port: Port) -> bool {
        self.0.iter().any(|(low, high)| (low..=high).contains(&&port))
    }

    /// Whether it is `none`: services are reached over the edge alone.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for PortRanges {
    fn default() -> Self {
        Self(vec![(Port::MIN, Port::MAX)])
    }
}

impl FromStr for PortRanges {
    type Err = PortRangesError;
    fn from_str(text: &str) -> Result<Self, PortRangesError> {
        if text.trim() == "none" {
            return Ok(Self(Vec::new()));
        }
        let range = |part: &str| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let range: (Port, Port) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            (range.0 <= range.1).then_some(range)
        };
        let ranges = text.split(',').map(range).collect::<Option<Vec<_>>>();
        ranges.map(Self).ok_or_else(|| PortRangesError(text.to_owned()))
    }
}

#[cfg(test)]
pub(super) mod tests_support {
    use std::time::Duration;

    use super::*;

    /// Settings that listen on 127.0.0.1 only.
    pub fn settings() -> HaproxySettings {
        HaproxySettings {
            config_file: "haproxy.cfg".into(),
            socket: "haproxy.sock".into(),
            frame: Frame {
                listen: ListenOn::These(vec!["127.0.0.1".parse().unwrap()]),
                listener_maxconn: Some(50),
                timeouts: [Duration::from_secs(1); 3],
                linger: Duration::ZERO,
                ..Frame::default()
            },
            stats: Stats::default(),
            service_ports: PortRanges::default(),
            reserved: BTreeSet::new(),
            check: "check".into(),
            check_rate: 0,
            maxconn: 100,
            user: None,
            templates: None,
            edge: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_are_read() {
        let ranges: PortRanges = "443, 8000-8002".parse().unwrap();
        let inside = |p: u16| ranges.contains(p.try_into().unwrap());
        assert_eq!([443, 444, 7999, 8000, 8002, 8003].map(inside), [true, false, false, true, true, false]);
        assert!("none".parse::<PortRanges>().unwrap().is_none() && !ranges.is_none());
        for bad in ["", "0", "9-8", "a", "1-70000", "1,,2", "none,80"] {
            assert!(bad.parse::<PortRanges>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_listeners_share_is_a_part_of_the_whole_and_never_nothing() {
        let of = |text: &str, maxconn| text.parse::<ListenerShare>().unwrap().of(maxconn);
        assert_eq!(
            [of("50%", 4096), of("1%", 10), of("100%", 7), of("300", 4096), of("300", 200)],
            [2048, 1, 7, 300, 200]
        );
        assert_eq!(ListenerShare::default().to_string().parse(), Ok(ListenerShare::default()));
        for bad in ["", "0", "0%", "101%", "-1", "%", "a", "1.5"] {
            assert!(bad.parse::<ListenerShare>().is_err(), "{bad}");
        }
    }
}
