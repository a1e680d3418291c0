//! The runtime operations: the command of each, and which of HAProxy's replies mean that it worked.
//!
//! HAProxy answers in prose and differs between versions, so success is a list of known replies and everything else is a [`Refusal`].
//! Texts measured on 2.6.12 and 3.0.11.

use std::fmt;
use std::net::SocketAddr;

use super::command::{Command, CommandError, is_safe_word};
use super::socket::Reply;

/// A server within a section: `section/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerRef {
    section: String,
    name: String,
}

impl ServerRef {
    /// Checks both names: HAProxy's own character set, `[A-Za-z0-9_.:-]`.
    ///
    /// # Errors
    /// [`CommandError::UnsafeWord`] with the name at fault.
    pub fn new(section: impl Into<String>, name: impl Into<String>) -> Result<Self, CommandError> {
        let (section, name) = (section.into(), name.into());
        let ok = |s: &str| {
            !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'))
        };
        for part in [&section, &name] {
            if !ok(part) {
                return Err(CommandError::UnsafeWord { word: part.clone() });
            }
        }
        Ok(Self { section, name })
    }

    /// The section's name.
    pub fn section(&self) -> &str {
        &self.section
    }

    /// The server's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ServerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.section, self.name)
    }
}

/// What stands behind the address in a `server` line.
///
/// `add server` inherits nothing from `default-server`, so this must hold every parameter that counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerParams(Vec<String>);

impl ServerParams {
    /// Splits at white space and checks each word.
    ///
    /// # Errors
    /// [`CommandError::UnsafeWord`]: such a parameter can be written into a file, but not sent.
    pub fn parse(text: &str) -> Result<Self, CommandError> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        match words.iter().find(|w| !is_safe_word(w)) {
            Some(bad) => Err(CommandError::UnsafeWord { word: bad.clone() }),
            None => Ok(Self(words)),
        }
    }

    /// Whether `check` is among them: the server then needs [`Op::EnableHealth`] too.
    pub fn has_check(&self) -> bool {
        self.0.iter().any(|w| w == "check")
    }
}

/// One change to the running HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Adds a server. It starts in maintenance, with its checks off.
    AddServer(ServerRef, SocketAddr, ServerParams),
    /// Deletes a server that is in maintenance and has neither streams nor connections.
    DelServer(ServerRef),
    /// Starts its checks; for servers added with `check` only.
    EnableHealth(ServerRef),
    /// Starts its agent checks.
    EnableAgent(ServerRef),
    /// Takes traffic again, out of drain or maintenance.
    Ready(ServerRef),
    /// No new sessions but those that persistence sends; the running ones go on.
    Drain(ServerRef),
    /// No new sessions at all and no checks; requests in flight are finished.
    Maint(ServerRef),
    /// The weight, 0 to 256; needs a dynamic algorithm.
    SetWeight(ServerRef, u16),
    /// The address and port.
    SetAddr(ServerRef, SocketAddr),
    /// Cuts the sessions of the server: requests in flight fail.
    ShutdownSessions(ServerRef),
    /// Adds a key to a map, by the map's file name.
    MapAdd {
        /// The map's file name as the config has it.
        map: String,
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Changes the value of a key that is there.
    MapSet {
        /// The map's file name as the config has it.
        map: String,
        /// The key.
        key: String,
        /// Its new value.
        value: String,
    },
    /// Removes a key.
    MapDel {
        /// The map's file name as the config has it.
        map: String,
        /// The key.
        key: String,
    },
}

/// HAProxy did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What to make of it.
    pub kind: RefusalKind,
    /// HAProxy's own words.
    pub text: String,
}

/// What a refusal means to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// No such server, section, map or key.
    NotFound,
    /// A server of that name is there already.
    Exists,
    /// It still has streams or connections: ask again later.
    Busy,
    /// Only servers in maintenance can be deleted.
    NotInMaintenance,
    /// Other parts of the config point to it, so only a reload removes it.
    Referenced,
    /// The section's algorithm takes no change at run time: only a reload does it.
    StaticAlgorithm,
    /// The session is still with a worker that has stopped: reopen it.
    StoppedWorker,
    /// Anything else, a keyword that this version does not know among it.
    Other,
}

impl Op {
    /// The command that does it.
    ///
    /// # Errors
    /// [`CommandError`] when a map's name, key or value cannot be sent, or the parameters are too long.
    pub fn command(&self) -> Result<Command, CommandError> {
        match self {
            Self::AddServer(s, address, params) => {
                let (server, address) = (s.to_string(), address.to_string());
                let words = ["add", "server", &server, &address];
                Command::new(words.into_iter().chain(params.0.iter().map(String::as_str)))
            }
            Self::DelServer(s) => Command::new(["del", "server", &s.to_string()]),
            Self::EnableHealth(s) => Command::new(["enable", "health", &s.to_string()]),
            Self::EnableAgent(s) => Command::new(["enable", "agent", &s.to_string()]),
            Self::Ready(s) => Command::new(["set", "server", &s.to_string(), "state", "ready"]),
            Self::Drain(s) => Command::new(["set", "server", &s.to_string(), "state", "drain"]),
            Self::Maint(s) => Command::new(["set", "server", &s.to_string(), "state", "maint"]),
            Self::SetWeight(s, weight) => {
                Command::new(["set", "server", &s.to_string(), "weight", &weight.to_string()])
            }
            Self::SetAddr(s, to) => {
                let (ip, port) = (to.ip().to_string(), to.port().to_string());
                Command::new(["set", "server", &s.to_string(), "addr", &ip, "port", &port])
            }
            Self::ShutdownSessions(s) => Command::new(["shutdown", "sessions", "server", &s.to_string()]),
            Self::MapAdd { map, key, value } => Command::new(["add", "map", map_name(map)?, map_key(key)?, value]),
            Self::MapSet { map, key, value } => Command::new(["set", "map", map_name(map)?, map_key(key)?, value]),
            Self::MapDel { map, key } => Command::new(["del", "map", map_name(map)?, map_key(key)?]),
        }
    }

    /// Its kind in one word, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AddServer(..) => "add_server",
            Self::DelServer(_) => "del_server",
            Self::EnableHealth(_) => "enable_health",
            Self::EnableAgent(_) => "enable_agent",
            Self::Ready(_) => "ready",
            Self::Drain(_) => "drain",
            Self::Maint(_) => "maint",
            Self::SetWeight(..) => "set_weight",
            Self::SetAddr(..) => "set_addr",
            Self::ShutdownSessions(_) => "shutdown_sessions",
            Self::MapAdd { .. } => "map_add",
            Self::MapSet { .. } => "map_set",
            Self::MapDel { .. } => "map_del",
        }
    }

    /// Whether `reply` says that it was done.
    ///
    /// # Errors
    /// [`Refusal`] for every reply that is not known to mean success.
    pub fn judge(&self, reply: &Reply) -> Result<(), Refusal> {
        let text = reply.text();
        let done = match self {
            // Warnings about a parameter may stand before it.
            Self::AddServer(..) => text.lines().next_back() == Some("New server registered."),
            Self::DelServer(_) => text == "Server deleted.",
            Self::SetAddr(..) => address_changed(text),
            _ => text.is_empty(),
        };
        if done { Ok(()) } else { Err(Refusal { kind: RefusalKind::of(text), text: text.to_owned() }) }
    }
}

/// A map is named by its file; `#1` would be its number and `@1` a version.
pub(super) fn map_name(map: &str) -> Result<&str, CommandError> {
    if map.starts_with(['#', '@']) { Err(CommandError::UnsafeWord { word: map.to_owned() }) } else { Ok(map) }
}

/// `#0x…` in the place of a key is HAProxy's own reference to an entry, and begins a comment in a map file.
pub(super) fn map_key(key: &str) -> Result<&str, CommandError> {
    if key.starts_with('#') { Err(CommandError::UnsafeWord { word: key.to_owned() }) } else { Ok(key) }
}

/// `IP changed from 'a' to 'b', port changed from 'c' to 'd' by 'stats socket command'`; each half may be `no need to change the …`, and
/// 3.0 says `nothing changed` when both are.
fn address_changed(text: &str) -> bool {
    let known = |part: &str| {
        ["IP changed from ", "port changed from ", "no need to change the "].iter().any(|p| part.starts_with(p))
    };
    let parts = text.strip_suffix(" by 'stats socket command'");
    text == "nothing changed" || parts.is_some_and(|parts| parts.split(", ").all(known))
}

impl RefusalKind {
    fn of(text: &str) -> Self {
        const KNOWN: &[(&str, RefusalKind)] = &[
            ("No such server", RefusalKind::NotFound),
            ("No such backend", RefusalKind::NotFound),
            ("Can't find backend", RefusalKind::NotFound),
            ("Unknown map identifier", RefusalKind::NotFound),
            ("entry not found", RefusalKind::NotFound),
            ("Key not found", RefusalKind::NotFound),
            ("Already exists a server with the same name", RefusalKind::Exists),
            ("Server still has ", RefusalKind::Busy),
            ("Only servers in maintenance mode can be deleted", RefusalKind::NotInMaintenance),
            ("This server cannot be removed at runtime", RefusalKind::Referenced),
            ("Backend must use a dynamic load balancing", RefusalKind::StaticAlgorithm),
            ("Backend is using a static LB algorithm", RefusalKind::StaticAlgorithm),
            ("Proxy is disabled", RefusalKind::StoppedWorker),
        ];
        KNOWN.iter().find(|(start, _)| text.starts_with(start)).map_or(Self::Other, |(_, kind)| *kind)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command() {
            Ok(command) => write!(f, "{command}"),
            Err(_) => write!(f, "{self:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s() -> ServerRef {
        ServerRef::new("web", "web_10.0.0.1:80").unwrap()
    }

    fn judge(op: &Op, text: &str) -> Result<(), RefusalKind> {
        op.judge(&Reply::from_text(text)).map_err(|r| r.kind)
    }

    #[test]
    fn each_operation_has_its_command() {
        let address: SocketAddr = "[::1]:80".parse().unwrap();
        let params = ServerParams::parse("check inter 1s weight 3").unwrap();
        let is = |op: Op, line: &str| assert_eq!(op.command().unwrap().to_string(), line);
        is(Op::AddServer(s(), address, params), "add server web/web_10.0.0.1:80 [::1]:80 check inter 1s weight 3");
        is(Op::SetAddr(s(), address), "set server web/web_10.0.0.1:80 addr ::1 port 80");
        is(Op::SetWeight(s(), 0), "set server web/web_10.0.0.1:80 weight 0");
        is(Op::Maint(s()), "set server web/web_10.0.0.1:80 state maint");
    }

    #[test]
    fn nothing_can_be_injected() {
        for bad in ["", "a/b", "a b", "a;b", "a\nb", "a%", "#1"] {
            assert!(ServerRef::new("web", bad).is_err(), "{bad:?}");
            assert!(ServerRef::new(bad, "s").is_err(), "{bad:?}");
        }
        assert!(ServerParams::parse("check;disable server a/b").is_err());
        assert!(ServerParams::parse("weight 3\nshow info").is_ok(), "a newline only separates words");
        let map = |map: &str, key: &str, value: &str| {
            Op::MapAdd { map: map.into(), key: key.into(), value: value.into() }.command()
        };
        assert!(map("/m", "a.example", "web").is_ok());
        for (m, k, v) in [
            ("#1", "a", "b"),
            ("@1", "a", "b"),
            ("/m", "#0x1", "b"),
            ("/m", "a b", "c"),
            ("/m", "a", "b;c"),
            ("/m", "a", ""),
        ] {
            assert!(map(m, k, v).is_err(), "{m} {k} {v}");
        }
    }

    #[test]
    fn only_known_replies_are_a_success() {
        use RefusalKind::*;
        let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let add = Op::AddServer(s(), address, ServerParams::default());
        assert_eq!(judge(&add, "New server registered.\n"), Ok(()));
        assert_eq!(judge(&add, ""), Err(Other));
        assert_eq!(judge(&add, "Already exists a server with the same name in backend.\n"), Err(Exists));
        assert_eq!(
            judge(&add, "Backend must use a dynamic load balancing to support dynamic servers.\n"),
            Err(StaticAlgorithm)
        );
        assert_eq!(judge(&add, "unknown keyword 'bogus'.\n"), Err(Other));
        let del = Op::DelServer(s());
        assert_eq!(judge(&del, "Server deleted."), Ok(()));
        assert_eq!(judge(&del, "No such server."), Err(NotFound));
        assert_eq!(judge(&del, "Server still has connections attached to it, cannot remove it."), Err(Busy));
        assert_eq!(judge(&del, "Only servers in maintenance mode can be deleted."), Err(NotInMaintenance));
        assert_eq!(judge(&Op::Ready(s()), "\n"), Ok(()));
        assert_eq!(judge(&Op::Ready(s()), "Proxy is disabled.\n"), Err(StoppedWorker));
        assert_eq!(judge(&Op::Drain(s()), "Permission denied\n"), Err(Other));
    }

    #[test]
    fn an_address_that_is_already_right_counts_as_set() {
        let op = Op::SetAddr(s(), "127.0.0.2:99".parse().unwrap());
        let by = "by 'stats socket command'";
        let good = [
            format!("IP changed from '127.0.0.1' to '127.0.0.2', port changed from '1' to '99' {by}"),
            format!("no need to change the addr, no need to change the port {by}"),
            format!("no need to change the addr, port changed from '1' to '99' {by}"),
            "nothing changed".to_owned(),
        ];
        for text in good {
            assert_eq!(judge(&op, &text), Ok(()), "{text}");
        }
        for text in [
            format!("Invalid addr 'zzz' {by}"),
            format!("no need to change the addr, can't change port {by}"),
            String::new(),
        ] {
            assert_eq!(judge(&op, &text), Err(RefusalKind::Other), "{text}");
        }
    }
}
