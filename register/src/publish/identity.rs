//! Who an agent is, and what its own key says of it. No I/O.

use std::time::{Duration, SystemTime};

use model::{NodeName, Prefix};
use registry::store::{LeaseId, Value};
use serde::{Deserialize, Serialize};

/// For how long after two agents met the next of them waits until the other one is gone.
const CONTESTED: Duration = Duration::from_secs(600);

/// Who this agent is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The host that it answers for.
    pub node: NodeName,
    /// What tells this host from another one of the same name: Docker's engine ID, else the host's machine-id.
    pub machine: String,
    /// Tells this run of the agent from any other.
    pub token: String,
    pub started: SystemTime,
}

impl Identity {
    /// An identity with a fresh token.
    pub fn new(node: NodeName, machine: String) -> Self {
        let token = format!("{:032x}", rand::random::<u128>());
        Self { node, machine, token, started: SystemTime::now() }
    }

    /// When it began, as its record says it: such texts compare as times.
    pub(super) fn began(&self) -> String {
        said(self.started)
    }
}

/// The value of the agent's own key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub machine_id: String,
    pub token: String,
    /// As etcdctl shows it.
    lease: String,
    version: String,
    pub started: String,
    pub prefix: String,
    /// When this agent took over from another one that lived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contested: Option<String>,
}

impl Record {
    /// What `me` says of itself. A quarrel goes on under each of its parties: `contested` is what the record before said.
    pub fn new(me: &Identity, prefix: &Prefix, lease: LeaseId, contested: Option<String>) -> Self {
        Self {
            machine_id: me.machine.clone(),
            token: me.token.clone(),
            lease: lease.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: me.began(),
            prefix: prefix.to_string(),
            contested,
        }
    }

    /// `None` for a value that no agent wrote.
    pub fn read(value: &Value) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default() // strings only: cannot fail
    }

    /// The same record with the mark of an agent that lived when this one took over.
    pub fn disputed(self, now: SystemTime) -> Self {
        Self { contested: Some(said(now)), ..self }
    }

    /// Whether two agents met here not long ago.
    pub fn is_contested(&self, now: SystemTime) -> bool {
        let at = self.contested.as_deref().and_then(|at| humantime::parse_rfc3339(at).ok());
        // A clock that was set back says nothing of the past: then the mark counts.
        at.is_some_and(|at| now.duration_since(at).map_or(true, |ago| ago < CONTESTED))
    }
}

fn said(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarrel_is_remembered_for_some_minutes_and_older_records_know_none() {
        let me = Identity::new("n1".parse().unwrap(), "m1".to_owned());
        let record = Record::new(&me, &Prefix::default(), LeaseId(1), None);
        let json = record.json();
        assert!(!String::from_utf8_lossy(&json).contains("contested"), "agents of older versions write the same");
        assert_eq!(Record::read(&json.into()), Some(record.clone()));
        let now = SystemTime::now();
        assert!(!record.is_contested(now));
        let marked = record.disputed(now);
        assert!(marked.is_contested(now) && marked.is_contested(now - CONTESTED));
        assert!(!marked.is_contested(now + CONTESTED + Duration::from_secs(1)));
        assert!(!Record { contested: Some("rubbish".to_owned()), ..marked }.is_contested(now));
    }
}
