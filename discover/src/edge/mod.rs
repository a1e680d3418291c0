//! The HTTP edge's decisions: which host and path go to which service. Pure, no I/O.
//!
//! | module | what it holds |
//! |---|---|
//! | [`settings`] | what the operator decides: owners of hosts, rules of the config's own, automatic names |
//! | [`claims`] | what one service asks for |
//! | [`mod@decide`] | who gets what, and what the others are told |
//! | [`map`] | the rules as HAProxy's map has them, and what leads from one map to another |
//! | [`frontend`] | the frontend and the sections behind it, as text |
//!
//! A request's host is looked up first: the very name, else the longest wildcard above it. Within that host the longest path
//! counts. So whoever has a rule for a host has nothing to fear from a wildcard, and a host that the config gives to an owner
//! is nobody else's even while the owner has no rule for it.

pub mod claims;
pub mod decide;
pub mod frontend;
pub mod map;
pub mod settings;

pub use decide::{Lost, Routing, Rule, decide};
pub use map::RuleMap;
pub use settings::EdgeSettings;

use std::fmt;

use common::model::{HostPattern, PathPrefix};

/// Where a rule applies: a host and a path under it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The host, or a wildcard.
    pub host: HostPattern,
    /// The path, and all below it.
    pub path: PathPrefix,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}
