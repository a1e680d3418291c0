//! Replies with words that bollard does not know.
//!
//! bollard's types are strict: one unknown word fails a whole reply. This module takes such words out, decodes the rest, and hands the
//! words over beside it.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// A reply that is no JSON, or not of the expected kind.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct Unreadable {
    pub path: String,
    pub why: serde_json::Error,
}

impl From<serde_path_to_error::Error<serde_json::Error>> for Unreadable {
    fn from(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        Self { path: error.path().to_string(), why: error.into_inner() }
    }
}

/// More unknown words than this make a reply unreadable.
const MOST: usize = 1000;

/// A decoded reply.
#[derive(Debug)]
pub struct Reply<T> {
    /// What bollard knows.
    pub value: T,
    /// What it does not know, by its path in the reply.
    pub odd: BTreeMap<String, Value>,
}

impl<T> From<T> for Reply<T> {
    fn from(value: T) -> Self {
        Self { value, odd: BTreeMap::new() }
    }
}

pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<Reply<T>, Unreadable> {
    if let Ok(value) = serde_json::from_slice::<T>(text) {
        return Ok(value.into());
    }
    // A label that is no UTF-8 spoils nothing else.
    let text = String::from_utf8_lossy(text);
    let mut reader = serde_json::Deserializer::from_str(&text);
    let reply = serde_path_to_error::deserialize(&mut reader)?;
    reader.end().map_err(|why| Unreadable { path: ".".to_owned(), why })?;
    mend(reply)
}

/// Reads a reply that is JSON.
pub fn mend<T: DeserializeOwned>(mut reply: Value) -> Result<Reply<T>, Unreadable> {
    let mut odd = BTreeMap::new();
    loop {
        let wrong: serde_path_to_error::Error<serde_json::Error> = match serde_path_to_error::deserialize(&reply) {
            Ok(value) => return Ok(Reply { value, odd }),
            Err(wrong) => wrong,
        };
        match take(&mut reply, wrong.path()) {
            Some(taken) if odd.len() < MOST => drop(odd.insert(wrong.path().to_string(), taken)),
            _ => return Err(wrong.into()),
        }
    }
}

/// Takes out what is at `path`.
fn take(reply: &mut Value, path: &Path) -> Option<Value> {
    let steps: Vec<&Segment> =
        path.iter().take_while(|s| matches!(s, Segment::Seq { .. } | Segment::Map { .. })).collect();
    let (last, way) = steps.split_last()?;
    let mut at = reply;
    for step in way {
        at = match step {
            Segment::Seq { index } => at.get_mut(index)?,
            Segment::Map { key } => at.get_mut(key)?,
            _ => return None,
        };
    }
    match (at, last) {
        (Value::Array(all), Segment::Seq { index }) if *index < all.len() => Some(all.remove(*index)),
        (Value::Object(all), Segment::Map { key }) => all.shift_remove(key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerInspectResponse, ContainerSummary, SystemInfo};
    use serde_json::json;

    use super::*;

    /// The paths of what did not fit.
    fn odd<T: DeserializeOwned>(reply: &Value) -> Vec<String> {
        let text = reply.to_string();
        assert!(serde_json::from_str::<T>(&text).is_err(), "bollard reads it now: {text}");
        read::<T>(text.as_bytes()).unwrap().odd.into_keys().collect()
    }

    #[test]
    fn each_unknown_word_is_taken_out_and_all_else_counts() {
        type Inspected = ContainerInspectResponse;
        for (reply, expected) in [
            (json!({"Id": "a", "State": {"Status": "hibernating", "Pid": 7}}), "State.Status"),
            (json!({"Id": "a", "State": {"Health": {"Status": "pondering", "Log": []}}}), "State.Health.Status"),
            (
                json!({"Id": "a", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}),
                "HostConfig.RestartPolicy.Name",
            ),
            (json!({"Id": "a", "HostConfig": {"CgroupnsMode": "shared"}}), "HostConfig.CgroupnsMode"),
            (
                json!({"Id": "a", "HostConfig": {"Mounts": [{"Target": "/a", "Type": "moon"}]}}),
                "HostConfig.Mounts[0].Type",
            ),
            (json!({"Id": "a", "Config": {"StopSignal": 3, "Image": "b"}}), "Config.StopSignal"),
            (json!({"Id": "a", "Config": {"Labels": {"a.b": null, "c": "d"}}}), "Config.Labels.a.b"),
            (json!({"Id": "a", "Config": {"ExposedPorts": {"80/tcp": null}}}), "Config.ExposedPorts.80/tcp"),
            (json!({"Id": "a", "NetworkSettings": {"Networks": {"n": null}}}), "NetworkSettings.Networks.n"),
        ] {
            assert_eq!(odd::<Inspected>(&reply), [expected], "{reply}");
            let read = read::<Inspected>(reply.to_string().as_bytes()).unwrap();
            assert_eq!(read.value.id.as_deref(), Some("a"), "{reply}");
        }
        assert_eq!(odd::<ContainerSummary>(&json!({"State": "hibernating", "Id": "a"})), ["State"]);
        assert_eq!(
            odd::<SystemInfo>(&json!({"CgroupDriver": "none-at-all", "CgroupVersion": "3"})),
            ["CgroupDriver", "CgroupVersion"]
        );
        let two = json!({"State": {"Status": "x", "Health": {"Status": "y"}}});
        assert_eq!(odd::<Inspected>(&two), ["State.Health.Status", "State.Status"]);
    }

    #[test]
    fn what_is_no_utf8_costs_nothing_else_and_what_is_no_json_is_an_error() {
        let text = b"{\"Id\":\"a\",\"Config\":{\"Labels\":{\"odd\":\"\xff\"}}}";
        let labels = read::<ContainerInspectResponse>(text).unwrap().value.config.unwrap().labels.unwrap();
        assert_eq!(labels["odd"], "\u{fffd}");
        for text in ["", "{", "not json", "[]", "7", "{\"Id\":\"a\"} x"] {
            assert!(read::<ContainerInspectResponse>(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_reply_full_of_oddities_ends() {
        let labels: BTreeMap<String, Value> = (0..5_000).map(|n| (n.to_string(), Value::Null)).collect();
        assert!(
            read::<ContainerInspectResponse>(json!({"Config": {"Labels": labels}}).to_string().as_bytes()).is_err()
        );
    }
}
