//! Numbers as Nerve takes them: as such, or as digits in a text.

use model::Port;
use serde_json::Value;

/// A whole number, also as digits in a text.
pub(super) fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::String(digits) => digits.trim().parse().ok(),
        other => other.as_u64(),
    }
}

/// A port, as a number or as text.
pub(super) fn port(value: Option<&Value>) -> Option<Port> {
    u16::try_from(whole(value?)?).ok().and_then(Port::new)
}
