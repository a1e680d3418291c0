//! What a resolver is asked to read.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::watchers::{About, Fault};

/// What a resolver is asked to read.
#[derive(Debug)]
pub struct Ask<'a> {
    /// `resolver` of the config.
    pub keys: &'a Map<String, Value>,
    /// The watchers' names, in the order of the config.
    pub names: &'a [Arc<str>],
    /// The service.
    pub about: &'a About,
}

impl Ask<'_> {
    /// The resolver's own keys.
    ///
    /// # Errors
    /// [`Fault`] naming the key.
    pub fn keys<T: serde::de::DeserializeOwned>(&self) -> Result<T, Fault> {
        let value = Value::Object(self.keys.clone());
        serde_path_to_error::deserialize(value).map_err(|e| Fault::new(format!("resolver.{}", e.path()), e.inner()))
    }
}

/// The order of preference that a resolver is given, which must name each watcher once.
///
/// # Errors
/// [`Fault`] when it does not.
pub(super) fn order(key: &str, given: &[String], names: &[Arc<str>]) -> Result<Vec<Arc<str>>, Fault> {
    let wanted: BTreeSet<&str> = names.iter().map(|n| &**n).collect();
    let has: BTreeSet<&str> = given.iter().map(String::as_str).collect();
    if wanted != has || given.len() != names.len() {
        let all = names.join(", ");
        return Err(Fault::new(format!("resolver.{key}"), format!("must name each of these watchers once: {all}")));
    }
    Ok(given.iter().map(|n| n.as_str().into()).collect())
}
