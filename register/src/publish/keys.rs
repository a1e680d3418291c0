//! Keys of the registry with their values, and what tells one kind of key from another. No I/O.

use std::collections::BTreeMap;

use registry::store::{Key, Value};
use serde_json::Map;

/// Keys of the registry and their values.
pub type Keys = BTreeMap<Key, Value>;

/// Whether `key` is docker-register's port key, which agents of several hosts share: no backend's id is `port`.
pub fn is_shared(key: &str) -> bool {
    key.ends_with("/port")
}

/// Whether `key` is one of a service without Docker (`numbers`): no key of a container ends in 20 digits alone.
pub fn is_numbered(key: &str) -> bool {
    key.rsplit_once('/').is_some_and(|(_, number)| number.len() == 20 && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The value with which a registration says goodbye: a reader that knows no drain sees a backend, and its removal at once.
pub fn draining(value: &Value) -> Option<Value> {
    let mut object: Map<String, serde_json::Value> = serde_json::from_slice(value).ok()?;
    object.insert("status".to_owned(), "draining".into());
    serde_json::to_vec(&object).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goodbye_is_the_same_object_with_a_status() {
        let value: Value = (*br#"{"host":"h","port":1,"name":"i-1"}"#).into();
        let said = String::from_utf8(draining(&value).unwrap().to_vec()).unwrap();
        assert_eq!(said, r#"{"host":"h","port":1,"name":"i-1","status":"draining"}"#);
        assert!(draining(&Value::from(*b"")).is_none());
        for other in ["/backends/web/abc", "/backends/web/123", "00000000000000000042", "/x/0000000000000000004a"] {
            assert!(!is_numbered(other), "{other}");
        }
    }
}
