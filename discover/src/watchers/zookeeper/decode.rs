//! What a child's name and data say of a backend. Pure.

use std::sync::Arc;

use model::{Backend, Status};
use serde::Deserialize;
use serde_json::{Map, Value};
use zookeeper::child;

use crate::synapse::registration;
use crate::watchers::Fault;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Keys {
    method: Option<String>,
    endpoint_name: Option<String>,
}

/// In whose format children are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decode {
    /// Nerve's object.
    Nerve,
    /// Twitter's server sets (Finagle, Aurora): the service's endpoint, or the additional one of that name.
    Serverset {
        /// The additional endpoint's name.
        endpoint: Option<String>,
    },
}

impl Decode {
    pub(super) fn read(keys: Option<Keys>) -> Result<Self, Fault> {
        let Some(keys) = keys else { return Ok(Self::Nerve) };
        match keys.method.as_deref() {
            Some("nerve") => Ok(Self::Nerve),
            Some("serverset") => Ok(Self::Serverset { endpoint: keys.endpoint_name }),
            _ => Err(Fault::new("decode.method", "is neither nerve nor serverset")),
        }
    }

    /// The backend that a child stands for; `port` takes the place of a missing one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn backend(&self, name: &str, data: &[u8], port: Option<u16>) -> Result<Backend, String> {
        let text = std::str::from_utf8(data).map_err(|_| "is not UTF-8".to_owned())?;
        let value: Value = serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
        let Value::Object(map) = value else { return Err("is JSON, but no object".to_owned()) };
        let (map, status) = match self {
            Self::Nerve => (map, None),
            Self::Serverset { endpoint } => serverset(&map, endpoint.as_deref())?,
        };
        let backend = registration::read(&map, port)?;
        Ok(Backend {
            sequence: child::number(name),
            raw: Some(raw(&map, name, port)),
            status: status.unwrap_or(backend.status),
            ..backend
        })
    }
}

/// The member's endpoint as Nerve would have it, and what the member says of itself.
fn serverset(member: &Map<String, Value>, name: Option<&str>) -> Result<(Map<String, Value>, Option<Status>), String> {
    let endpoint = match name {
        None => member.get("serviceEndpoint"),
        Some(name) => member.get("additionalEndpoints").and_then(|all| all.get(name)),
    };
    let what = name.map_or_else(|| "serviceEndpoint".to_owned(), |name| format!("additionalEndpoints.{name}"));
    let mut map = endpoint.and_then(Value::as_object).cloned().ok_or_else(|| format!("{what} is missing"))?;
    map.remove("name");
    if let Some(shard) = member.get("shard").filter(|s| !s.is_null()) {
        let shard = shard.as_str().map_or_else(|| shard.to_string(), str::to_owned);
        map.insert("name".to_owned(), shard.into());
    }
    // Source: Finagle's serverset `Status`; whatever else it says, it is not known to be dead.
    let down = ["DEAD", "STARTING", "STOPPING", "STOPPED"];
    let down = member.get("status").and_then(Value::as_str).is_some_and(|s| down.contains(&s));
    Ok((map, down.then_some(Status::Down)))
}

/// The fields that Synapse's watcher hands on, null where there is none.
fn raw(map: &Map<String, Value>, name: &str, port: Option<u16>) -> Arc<str> {
    let mut map = map.clone();
    map.insert("id".to_owned(), child::number(name).map_or(Value::Null, Value::from));
    if let Some(port) = port.filter(|_| map.get("port").is_none_or(Value::is_null)) {
        map.insert("port".to_owned(), port.into());
    }
    let fields = ["name", "host", "port", "id", "weight", "haproxy_server_options", "labels"];
    let seven = fields.map(|field| (field.to_owned(), map.get(field).cloned().unwrap_or(Value::Null)));
    Value::Object(seven.into_iter().collect()).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MEMBER: &str = r#"{"serviceEndpoint":{"host":"h1","port":31943},"additionalEndpoints":{"http":{"host":"h2","port":31944}},"shard":3,"status":"ALIVE"}"#;

    #[test]
    fn a_child_is_nerves_object_with_the_seven_fields_that_synapse_hands_on() {
        let data = br#"{"host":"h1","port":"80","name":"i-1","weight":3,"labels":{"az":"x"},"extra":1}"#;
        let backend = Decode::Nerve.backend("i-1_0000000012", data, None).unwrap();
        assert_eq!((backend.address().as_str(), backend.sequence), ("h1:80", Some(12)));
        let raw = r#"{"name":"i-1","host":"h1","port":"80","id":12,"weight":3,"haproxy_server_options":null,"labels":{"az":"x"}}"#;
        assert_eq!(backend.raw.as_deref(), Some(raw));
        let other = Decode::Nerve.backend("i-1", br#"{"host":"h1"}"#, Some(81)).unwrap();
        assert_eq!((other.address().as_str(), other.sequence), ("h1:81", None));
    }

    #[test]
    fn serversets_are_decoded() {
        let decode = |endpoint: Option<&str>, data: &str| {
            Decode::Serverset { endpoint: endpoint.map(str::to_owned) }.backend(
                "member_0000000001",
                data.as_bytes(),
                None,
            )
        };
        let plain = decode(None, MEMBER).unwrap();
        assert_eq!(
            (plain.address().as_str(), plain.name.as_deref(), plain.status),
            ("h1:31943", Some("3"), Status::Up)
        );
        assert_eq!(decode(Some("http"), MEMBER).unwrap().address(), "h2:31944");
        assert_eq!(decode(Some("x"), MEMBER).unwrap_err(), "additionalEndpoints.x is missing");
        assert_eq!(decode(None, &MEMBER.replace("ALIVE", "DEAD")).unwrap().status, Status::Down);
    }

    #[test]
    fn a_bad_child_says_what_is_wrong() {
        for (data, why) in [
            (&b""[..], "is not JSON"),
            (b"\xff\xfe", "is not UTF-8"),
            (b"10.0.0.1:80", "is not JSON"),
            (b"[1]", "no object"),
            (b"{}", "host is missing"),
            (br#"{"host":"h"}"#, "port is missing"),
            (br#"{"host":"h\n","port":1}"#, "host"),
            (br#"{"host":"h","port":70000}"#, "port"),
            (br#"{"host":"h","port":1,"name":"a b"}"#, "name"),
        ] {
            let error = Decode::Nerve.backend("x_1", data, None).unwrap_err();
            assert!(error.contains(why), "{data:?}: {error}");
        }
        assert!(Decode::read(Some(Keys { method: Some("x".into()), endpoint_name: None })).is_err());
    }

    proptest! {
        #[test]
        fn no_child_panics(name in "\\PC{0,30}", data in prop::collection::vec(any::<u8>(), 0..200), member in any::<bool>()) {
            let decode = if member { Decode::Serverset { endpoint: Some("http".into()) } } else { Decode::Nerve };
            let _ = decode.backend(&name, &data, None);
            let _ = decode.backend(&name, &[b"{\"serviceEndpoint\":".to_vec(), data, b"}".to_vec()].concat(), None);
        }
    }
}
