//! What becomes of one server, or of one section, and the operations that make it. Pure.

use std::sync::Arc;

use crate::generators::haproxy::file::server::Server;
use crate::haproxy::api::command::CommandError;
use crate::haproxy::api::ops::{Op, SectionName, ServerParams, ServerRef};

/// Sections that HAProxy makes and deletes without a reload (3.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SectionChanges {
    /// Those that come: before any server.
    pub come: Vec<NewSection>,
    /// Those that go, as far as HAProxy lets them: without servers, and no rule leads there.
    pub go: Vec<Arc<str>>,
}

impl SectionChanges {
    pub fn is_empty(&self) -> bool {
        self.come.is_empty() && self.go.is_empty()
    }
}

/// A section to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSection {
    pub name: Arc<str>,
    /// The `defaults` section that it is made from, which runs.
    pub defaults: Arc<str>,
}

impl NewSection {
    /// The operations, in order.
    ///
    /// # Errors
    /// [`CommandError`] when a name cannot be sent over the runtime API.
    pub fn ops(&self) -> Result<[Op; 2], CommandError> {
        let (name, defaults) = (SectionName::new(&*self.name)?, SectionName::new(&*self.defaults)?);
        // Without servers, and before a rule leads there, it is no matter that it takes traffic.
        Ok([Op::AddSection { name: name.clone(), defaults }, Op::PublishSection(name)])
    }
}

/// One server's change, as the operations that make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub section: Arc<str>,
    /// What becomes of the server.
    pub change: ServerChange,
    /// What `add server` is given before the server's own parameters.
    pub inherited: Arc<str>,
    /// This version refuses `cookie` in `add server`, and here it means nothing: left out.
    pub without_cookie: bool,
    /// The section has dynamic cookies, and this version gives an added server none by itself.
    pub refresh_cookies: bool,
}

impl Step {
    /// The operations, in order.
    ///
    /// # Errors
    /// [`CommandError`] when a name or a parameter cannot be sent over the runtime API.
    pub fn ops(&self) -> Result<Vec<Op>, CommandError> {
        let mut ops = match &self.change {
            ServerChange::Add(now) if self.without_cookie => {
                ServerChange::Add(now.without_cookie()).ops(&self.section, &self.inherited)?
            }
            change => change.ops(&self.section, &self.inherited)?,
        };
        let added = ops.iter().position(|op| matches!(op, Op::AddServer(..)));
        if let Some(at) = added.filter(|_| self.refresh_cookies) {
            ops.insert(at + 1, Op::RefreshCookies(SectionName::new(&*self.section)?));
        }
        Ok(ops)
    }
}

/// What becomes of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerChange {
    /// It is new in its section.
    Add(Server),
    /// It lingers in maintenance with the same parameters: enabled again.
    Revive {
        was: Server,
        /// As it should be.
        now: Server,
    },
    /// Its address, weight or maintenance changed.
    Alter {
        was: Server,
        /// As it should be.
        now: Server,
    },
    /// Its parameters changed: deleted and added anew. Refused while it is busy, and then a reload does it.
    Replace {
        was: Server,
        /// As it should be.
        now: Server,
    },
    /// It goes: maintenance at once, deletion when it is idle.
    Retire(Server),
}

impl ServerChange {
    /// The server, as it will be; one that goes, as it is.
    pub fn server(&self) -> &Server {
        match self {
            Self::Add(server) | Self::Retire(server) => server,
            Self::Revive { now, .. } | Self::Alter { now, .. } | Self::Replace { now, .. } => now,
        }
    }

    /// Whether a server that was sent requests is to get none any more.
    pub fn is_dead(&self) -> bool {
        match self {
            Self::Retire(_) => true,
            Self::Alter { was, now } | Self::Replace { was, now } => was.serves() && !now.serves(),
            Self::Add(_) | Self::Revive { .. } => false,
        }
    }

    /// Changes of a lower number are made first.
    pub(super) fn urgency(&self) -> u8 {
        match self {
            // New servers first: a pool that is replaced as a whole is never empty in between.
            Self::Add(_) | Self::Revive { .. } => 0,
            Self::Alter { .. } => 1,
            Self::Replace { .. } => 2,
            Self::Retire(_) => 3,
        }
    }

    /// The operations, in order. An agent is asked only for a server that serves as far as discover decides: its word would end a drain or a maintenance.
    ///
    /// # Errors
    /// [`CommandError`] when a name or a parameter cannot be sent over the runtime API.
    fn ops(&self, section: &str, inherited: &str) -> Result<Vec<Op>, CommandError> {
        let at = |server: &Server| ServerRef::new(section, &*server.name);
        let mut ops = Vec::with_capacity(3);
        match self {
            Self::Add(server) => add(&mut ops, at(server)?, server, inherited)?,
            Self::Replace { was, now } => {
                if !was.maint {
                    ops.push(Op::Maint(at(was)?));
                }
                ops.push(Op::DelServer(at(was)?));
                add(&mut ops, at(now)?, now, inherited)?;
            }
            Self::Revive { was, now } | Self::Alter { was, now } => {
                let (revived, agent) = (matches!(self, Self::Revive { .. }), now.has_agent(inherited));
                if agent && !now.serves() && was.serves() {
                    ops.push(Op::DisableAgent(at(now)?));
                }
                if was.address != now.address {
                    ops.push(Op::SetAddr(at(now)?, now.address));
                }
                if was.weight != now.weight {
                    ops.push(Op::SetWeight(at(now)?, now.weight));
                }
                match (was.maint || revived, now.maint) {
                    (true, false) => ops.push(Op::Ready(at(now)?)),
                    (false, true) => ops.push(Op::Maint(at(now)?)),
                    _ => {}
                }
                if agent && now.serves() && (revived || !was.serves()) {
                    ops.push(Op::EnableAgent(at(now)?));
                }
            }
            Self::Retire(server) => {
                if server.has_agent(inherited) {
                    ops.push(Op::DisableAgent(at(server)?));
                }
                if !server.maint {
                    ops.push(Op::Maint(at(server)?));
                }
            }
        }
        Ok(ops)
    }
}

/// A new server starts in maintenance and with its checks off, whatever its parameters say.
fn add(ops: &mut Vec<Op>, at: ServerRef, server: &Server, inherited: &str) -> Result<(), CommandError> {
    let params = ServerParams::parse(&server.runtime_params(inherited))?;
    let (checked, agent) = (params.has_check(), params.has_agent());
    ops.push(Op::AddServer(at.clone(), server.address, params));
    if agent {
        ops.extend([Op::EnableAgent(at.clone()), Op::AgentUp(at.clone())]);
        ops.extend((!server.serves()).then(|| Op::DisableAgent(at.clone())));
    }
    if checked {
        ops.push(Op::EnableHealth(at.clone()));
    }
    if !server.maint {
        ops.push(Op::Ready(at));
    }
    Ok(())
}
