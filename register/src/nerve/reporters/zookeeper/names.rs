//! Which node is whose.

use serde_json::Value;
use zookeeper::{NodeKind, ZkPath, ZooKeeper, child};

use super::Target;
use crate::nerve::reporters::{AnyTarget, Payload, Placement};

pub(super) fn target(placement: &Placement) -> Option<&Target> {
    if let AnyTarget::ZooKeeper(target) = &placement.target { Some(target) } else { None }
}

/// The node's name, up to ZooKeeper's number.
pub(super) fn name(placement: &Placement, payload: &Payload) -> String {
    let encoded = target(placement).filter(|t| t.encoded).and_then(|_| child::encoded(payload.as_bytes()));
    encoded.unwrap_or_else(|| child::plain(&placement.instance))
}

/// Whether a node has that name, with ZooKeeper's number where the kind has one.
pub(super) fn is_named(path: &ZkPath, name: &str, kind: NodeKind) -> bool {
    let found = path.as_str().rsplit('/').next().unwrap_or_default();
    match found.strip_prefix(name) {
        Some(number) if kind.is_sequential() => !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()),
        Some(rest) => rest.is_empty(),
        None => false,
    }
}

/// Whether both are of the same agent, host and port.
pub(super) fn same_place(a: &[u8], b: &[u8]) -> bool {
    let place = |bytes| {
        let said: Value = serde_json::from_slice(bytes).ok()?;
        Some(["name", "host", "port"].map(|field| said[field].clone()))
    };
    place(a).is_some_and(|a| Some(a) == place(b))
}

/// Nerve's name for an ensemble in its figures: the first host's first label, without the number at its end.
pub(super) fn cluster(zk: &ZooKeeper) -> String {
    let host = zk.target().servers().first().map(ToString::to_string).unwrap_or_default();
    let label = host.split('.').next().unwrap_or_default();
    let stem = label.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.is_empty() { host } else { stem.to_owned() }
}
