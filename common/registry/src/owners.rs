//! Which nodes may register which services: the operator's table, checked against the node in a key's layout.
//!
//! The node is never read from a value: the registry's own access rules say who may write below `/backends/@<node>/`, and nobody
//! who may write there can say that he is another.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use model::{NodeName, Pattern, ServiceName};

/// Services and the nodes that may register them. Of the entries that cover a service the most specific counts, which is the one
/// with the most characters besides `*`; where several are as specific, all must allow. What no entry covers is anybody's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners(Arc<[Owned]>);

/// One entry of the table: `SERVICE=NODE,NODE…`, `*` standing for any characters in a service's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    pattern: Pattern,
    nodes: BTreeSet<NodeName>,
}

/// A text that is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not SERVICE=NODE,NODE (in SERVICE * stands for any characters): {why}")]
pub struct OwnedError {
    text: String,
    why: String,
}

/// Whose a service is, where a registration comes from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotOwner<'a> {
    entry: &'a Owned,
    node: Option<&'a NodeName>,
}

impl fmt::Display for NotOwner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owned { pattern, nodes } = self.entry;
        let nodes = nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
        match self.node {
            Some(node) => write!(f, "node {node} may not register it: owners gives {pattern} to {nodes}"),
            None => write!(
                f,
                "its key names no node: owners gives {pattern} to {nodes}, whose keys are @NODE/… (register --layout host)"
            ),
        }
    }
}

impl Owned {
    /// An entry of the table.
    pub fn new<'a>(pattern: &str, nodes: impl IntoIterator<Item = &'a str>) -> Result<Self, OwnedError> {
        let error = |why: String| OwnedError { text: pattern.chars().take(80).collect(), why };
        pattern.replace('*', "x").parse::<ServiceName>().map_err(|e| error(e.to_string()))?;
        let nodes = nodes.into_iter().map(|node| node.trim().parse::<NodeName>().map_err(|e| error(e.to_string())));
        let nodes = nodes.collect::<Result<BTreeSet<_>, _>>()?;
        if nodes.is_empty() {
            return Err(error("it names no node".to_owned()));
        }
        Ok(Self { pattern: pattern.into(), nodes })
    }
}

impl FromStr for Owned {
    type Err = OwnedError;
    fn from_str(text: &str) -> Result<Self, OwnedError> {
        let error = |why: &str| OwnedError { text: text.chars().take(80).collect(), why: why.to_owned() };
        let (pattern, nodes) = text.split_once('=').ok_or_else(|| error("there is no ="))?;
        Self::new(pattern.trim(), nodes.split(',').filter(|node| !node.trim().is_empty()))
    }
}

impl Owners {
    /// The table.
    pub fn new(entries: impl IntoIterator<Item = Owned>) -> Self {
        Self(entries.into_iter().collect())
    }

    /// Whether an entry names this service.
    pub fn covers(&self, service: &ServiceName) -> bool {
        self.0.iter().any(|entry| entry.pattern.covers(service.as_str()))
    }

    /// Whether a registration of `service` counts whose key is below `node`, or below none.
    ///
    /// # Errors
    /// [`NotOwner`], with the entry that decides.
    pub fn check<'a>(&'a self, service: &ServiceName, node: Option<&'a NodeName>) -> Result<(), NotOwner<'a>> {
        let covering = || self.0.iter().filter(|entry| entry.pattern.covers(service.as_str()));
        let Some(most) = covering().map(|entry| entry.pattern.specificity()).max() else { return Ok(()) };
        let mut deciding = covering().filter(|entry| entry.pattern.specificity() == most);
        match deciding.find(|entry| node.is_none_or(|node| !entry.nodes.contains(node))) {
            Some(entry) => Err(NotOwner { entry, node }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_entry_decides_and_what_no_entry_covers_is_anybodys() {
        let entries = ["pay-*=a,b", "pay-admin=c", "*=a, b, c", "*-eu=b", "pay-=z"];
        let owners = Owners::new(entries.iter().map(|e| e.parse::<Owned>().unwrap()));
        let allowed =
            |service: &str, node: &str| owners.check(&service.parse().unwrap(), Some(&node.parse().unwrap())).is_ok();
        assert!(allowed("pay-web", "a") && allowed("pay-web", "b") && !allowed("pay-web", "c"));
        assert!(allowed("pay-admin", "c") && !allowed("pay-admin", "a"), "the name itself comes before all patterns");
        assert!(allowed("web", "c") && !allowed("web", "z"));
        assert!(allowed("web-eu", "b") && !allowed("web-eu", "a"));
        assert!(owners.check(&"web".parse().unwrap(), None).is_err(), "a key without a node is nobody's");
        let open = Owners::new(["pay-*=a".parse().unwrap()]);
        assert!(open.check(&"web".parse().unwrap(), None).is_ok());
    }

    #[test]
    fn of_entries_that_are_as_specific_all_must_allow_in_whatever_order() {
        let mut entries = ["a*=x,y", "*b=y,z"].map(|e| e.parse::<Owned>().unwrap());
        for _ in 0..2 {
            let owners = Owners::new(entries.clone());
            let allowed = |node: &str| owners.check(&"a-b".parse().unwrap(), Some(&node.parse().unwrap())).is_ok();
            assert_eq!(["x", "y", "z"].map(allowed), [false, true, false]);
            entries.reverse();
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_with_the_reason() {
        for bad in ["", "web", "web=", "=a", "we b=a", "web=a b", "web=a,/"] {
            assert!(bad.parse::<Owned>().is_err(), "{bad}");
        }
    }
}
