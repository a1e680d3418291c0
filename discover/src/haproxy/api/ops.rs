//! The runtime operations: the command of each, and which of HAProxy's replies mean that it worked.
//!
//! HAProxy answers in prose and differs between versions, so success is a list of known replies and everything else is a [`Refusal`].
//! Texts measured on 2.6.12 and 3.0.11; those about sections are from 3.4.3 and 3.4.7.

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
        Ok(Self { section: checked(section.into())?, name: checked(name.into())? })
    }
}

impl fmt::Display for ServerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.section, self.name)
    }
}

/// The name of a section, or of a `defaults` section.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionName(String);

impl SectionName {
    /// Checks the name as [`ServerRef::new`] does.
    pub fn new(name: impl Into<String>) -> Result<Self, CommandError> {
        Ok(Self(checked(name.into())?))
    }
}

impl fmt::Display for SectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn checked(name: String) -> Result<String, CommandError> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    if !name.is_empty() && name.bytes().all(ok) { Ok(name) } else { Err(CommandError::UnsafeWord { word: name }) }
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
        self.has("check")
    }

    /// Whether `agent-check` is among them: the server then needs [`Op::EnableAgent`] too.
    pub fn has_agent(&self) -> bool {
        self.has("agent-check")
    }

    fn has(&self, word: &str) -> bool {
        self.0.iter().any(|w| w == word)
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
    /// Asks its agent; for servers with `agent-check` only.
    EnableAgent(ServerRef),
    /// Its agent, which is asked, counts as content until it says otherwise. HAProxy takes that of a server added at run time to be down, and an agent that speaks of
    /// weights alone never says `up`. In maintenance only: else the server counts as up, too.
    AgentUp(ServerRef),
    /// Asks its agent no more: it would end a drain or a maintenance of ours.
    DisableAgent(ServerRef),
    /// Takes traffic again, out of drain or maintenance.
    Ready(ServerRef),
    /// No new sessions at all and no checks; requests in flight are finished.
    Maint(ServerRef),
    /// What the checks think of it, set by hand: down until they find it up again. For servers with checks only.
    HealthDown(ServerRef),
    /// The weight, 0 to 256; needs a dynamic algorithm.
    SetWeight(ServerRef, u16),
    /// The address and port.
    SetAddr(ServerRef, SocketAddr),
    /// Adds an unpublished section that inherits all from a named `defaults` section (3.4 and later).
    AddSection {
        name: SectionName,
        /// The `defaults` section.
        defaults: SectionName,
    },
    /// Lets a section take traffic (3.4 and later).
    PublishSection(SectionName),
    /// Rules that choose the section are skipped from now on (3.4 and later).
    UnpublishSection(SectionName),
    /// Deletes a section that is unpublished, without servers and not referred to (3.4 and later).
    DelSection(SectionName),
    /// Gives every server of a section with dynamic cookies its cookie, those added at run time among them.
    RefreshCookies(SectionName),
    /// Adds a key to a map, by the map's file name.
    MapAdd {
        /// The map's file name as the config has it.
        map: String,
        key: String,
        value: String,
    },
    /// Changes the value of a key that is there.
    MapSet {
        /// The map's file name as the config has it.
        map: String,
        key: String,
        /// Its new value.
        value: String,
    },
    /// Removes a key.
    MapDel {
        /// The map's file name as the config has it.
        map: String,
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

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// No such server, section, map or key.
    NotFound,
    /// A server or section of that name is there already.
    Exists,
    /// It still has streams, connections or servers: ask again later.
    Busy,
    /// Only servers in maintenance, and unpublished sections, can be deleted.
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
            Self::AgentUp(s) => Command::new(["set", "server", &s.to_string(), "agent", "up"]),
            Self::DisableAgent(s) => Command::new(["disable", "agent", &s.to_string()]),
            Self::Ready(s) => Command::new(["set", "server", &s.to_string(), "state", "ready"]),
            Self::Maint(s) => Command::new(["set", "server", &s.to_string(), "state", "maint"]),
            Self::HealthDown(s) => Command::new(["set", "server", &s.to_string(), "health", "down"]),
            Self::SetWeight(s, weight) => {
                Command::new(["set", "server", &s.to_string(), "weight", &weight.to_string()])
            }
            Self::SetAddr(s, to) => {
                let (ip, port) = (to.ip().to_string(), to.port().to_string());
                Command::new(["set", "server", &s.to_string(), "addr", &ip, "port", &port])
            }
            Self::AddSection { name, defaults } => Command::new(["add", "backend", &name.0, "from", &defaults.0]),
            Self::PublishSection(name) => Command::new(["publish", "backend", &name.0]),
            Self::UnpublishSection(name) => Command::new(["unpublish", "backend", &name.0]),
            Self::DelSection(name) => Command::new(["del", "backend", &name.0]),
            Self::RefreshCookies(name) => Command::new(["enable", "dynamic-cookie", "backend", &name.0]),
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
            Self::AgentUp(_) => "agent_up",
            Self::DisableAgent(_) => "disable_agent",
            Self::Ready(_) => "ready",
            Self::Maint(_) => "maint",
            Self::HealthDown(_) => "health_down",
            Self::SetWeight(..) => "set_weight",
            Self::SetAddr(..) => "set_addr",
            Self::RefreshCookies(_) => "refresh_cookies",
            Self::MapAdd { .. } => "map_add",
            Self::MapSet { .. } => "map_set",
            Self::AddSection { .. } => "add_section",
            Self::PublishSection(_) => "publish_section",
            Self::UnpublishSection(_) => "unpublish_section",
            Self::DelSection(_) => "del_section",
            Self::MapDel { .. } => "map_del",
        }
    }

    /// Whether `reply` says that it was done.
    ///
    /// # Errors
    /// [`Refusal`] for every reply that is not known to mean success.
    pub fn judge(&self, reply: &Reply) -> Result<(), Refusal> {
        let text = reply.text();
        // Warnings about a parameter may stand before the verdict; 3.4 also repeats there what it logged about earlier commands.
        let verdict = text.lines().next_back().unwrap_or_default();
        let done = match self {
            Self::AddServer(..) => verdict == "New server registered.",
            Self::DelServer(_) => verdict == "Server deleted.",
            Self::AddSection { .. } => verdict == "New backend registered.",
            Self::PublishSection(_) => verdict == "Backend published.",
            Self::UnpublishSection(_) => verdict == "Backend unpublished.",
            Self::DelSection(_) => verdict == "Backend deleted.",
            Self::SetAddr(..) => address_changed(text),
            _ => text.is_empty(),
        };
        if done { Ok(()) } else { Err(Refusal { kind: RefusalKind::of(verdict), text: text.to_owned() }) }
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
            ("Backend does not support dynamic servers", RefusalKind::StaticAlgorithm),
            ("Backend is using a static LB algorithm", RefusalKind::StaticAlgorithm),
            ("Error during backend creation : name is already used", RefusalKind::Exists),
            ("Backend must be unpublished", RefusalKind::NotInMaintenance),
            ("Only a backend without server can be deleted", RefusalKind::Busy),
            ("This proxy cannot be removed at runtime", RefusalKind::Referenced),
            ("Cannot find default proxy", RefusalKind::NotFound),
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
#[path = "ops_tests.rs"]
mod tests;
