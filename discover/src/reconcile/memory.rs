//! What must outlive a restart: what the sources told last, what expired and is held, and which pools were kept. Pure.
//!
//! Without it every backend that went while discover was down would simply be missing, and nothing could be held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::model::{Backend, BackendId, Decoded, Pool, ServiceMap, ServiceName, decode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// The pools as the sources told them last.
    pub told: ServiceMap,
    /// What expired of late, and how long ago.
    pub expired: BTreeMap<ServiceName, Vec<(Arc<Backend>, Duration)>>,
    /// The services whose expired backends are held.
    pub holding: BTreeSet<ServiceName>,
    /// Pools that are empty now, as they were before.
    pub kept: ServiceMap,
}

/// Why a text is no memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Not the JSON that was written.
    #[error("not what discover writes there")]
    Unreadable(#[from] serde_json::Error),
    /// Another discover's.
    #[error("version {0} of the format, and only {VERSION} is known")]
    Version(u32),
}

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Raw<T> {
    version: u32,
    services: BTreeMap<ServiceName, Vec<T>>,
    #[serde(default)]
    expired: BTreeMap<ServiceName, Vec<RawExpired<T>>>,
    #[serde(default)]
    holding: BTreeSet<ServiceName>,
    #[serde(default)]
    kept: BTreeMap<ServiceName, Vec<T>>,
}

#[derive(Serialize, Deserialize)]
struct RawExpired<T> {
    at_unix_ms: u64,
    backend: T,
}

impl Memory {
    /// As JSON. `unix_now` is the time since 1970.
    ///
    /// # Errors
    /// None in practice: every key is text.
    pub fn to_json(&self, unix_now: Duration) -> Result<Vec<u8>, MemoryError> {
        let expired = |all: &'_ Vec<(Arc<Backend>, Duration)>| {
            let at = |ago: &Duration| millis(unix_now.saturating_sub(*ago));
            all.iter()
                .map(|(backend, ago)| RawExpired { at_unix_ms: at(ago), backend: Shared(backend.clone()) })
                .collect()
        };
        let raw = Raw {
            version: VERSION,
            services: shared(&self.told),
            expired: self.expired.iter().map(|(service, all)| (service.clone(), expired(all))).collect(),
            holding: self.holding.clone(),
            kept: shared(&self.kept),
        };
        Ok(serde_json::to_vec(&raw)?)
    }

    /// Reads what [`to_json`](Self::to_json) wrote. A backend that cannot be read is left out, and said.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn from_json(bytes: &[u8], unix_now: Duration) -> Result<Self, MemoryError> {
        let raw: Raw<Value> = serde_json::from_slice(bytes)?;
        if raw.version != VERSION {
            return Err(MemoryError::Version(raw.version));
        }
        let backends = |service: &ServiceName, values: Vec<Value>| -> Vec<Arc<Backend>> {
            values.into_iter().filter_map(|value| backend(service, &value)).collect()
        };
        let pools = |map: BTreeMap<ServiceName, Vec<Value>>| -> ServiceMap {
            map.into_iter().map(|(s, values)| (s.clone(), Arc::new(Pool::new(backends(&s, values))))).collect()
        };
        let expired = |(service, all): (ServiceName, Vec<RawExpired<Value>>)| {
            let one = |e: RawExpired<Value>| {
                // A clock that was set back makes nothing older.
                let ago = unix_now.saturating_sub(Duration::from_millis(e.at_unix_ms));
                Some((backend(&service, &e.backend)?, ago))
            };
            let all = all.into_iter().filter_map(one).collect();
            (service.clone(), all)
        };
        Ok(Self {
            told: pools(raw.services),
            expired: raw.expired.into_iter().map(expired).collect(),
            holding: raw.holding,
            kept: pools(raw.kept),
        })
    }
}

/// A backend that is written without being copied.
#[derive(Serialize)]
#[serde(transparent)]
struct Shared(#[serde(serialize_with = "by_reference")] Arc<Backend>);

fn by_reference<S: serde::Serializer>(backend: &Arc<Backend>, to: S) -> Result<S::Ok, S::Error> {
    backend.as_ref().serialize(to)
}

fn shared(pools: &ServiceMap) -> BTreeMap<ServiceName, Vec<Shared>> {
    let all = |pool: &Pool| pool.backends().iter().cloned().map(Shared).collect();
    pools.iter().map(|(service, pool)| (service.clone(), all(pool))).collect()
}

fn backend(service: &ServiceName, value: &Value) -> Option<Arc<Backend>> {
    let id = value["id"].as_str().and_then(|id| id.parse::<BackendId>().ok());
    let decoded = id.as_ref().map(|id| decode(id, value.to_string().as_bytes()));
    match decoded {
        Some(Ok(Decoded::Backend(backend))) => Some(Arc::new(*backend)),
        _ => {
            warn!(%service, %value, "Remembered backend is unreadable and is left out.");
            None
        }
    }
}

fn millis(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let backend = |id: &str| {
            let mut b = Backend::new(id.parse().unwrap(), "10.0.0.1".parse().unwrap(), 80.try_into().unwrap());
            (b.service_port, b.weight) = (8080.try_into().ok(), 7_u32.try_into().ok());
            Arc::new(b)
        };
        let service: ServiceName = "web".parse().unwrap();
        let pool = |id: &str| ServiceMap::from([(service.clone(), Arc::new(Pool::new([backend(id)])))]);
        Memory {
            told: pool("a"),
            expired: [(service.clone(), vec![(backend("b"), Duration::from_secs(90))])].into(),
            holding: [service.clone()].into(),
            kept: pool("c"),
        }
    }

    #[test]
    fn what_was_written_is_read_back_and_has_grown_older_meanwhile() {
        let (then, later) = (Duration::from_secs(1_000_000), Duration::from_secs(1_000_060));
        let json = memory().to_json(then).unwrap();
        assert_eq!(Memory::from_json(&json, then).unwrap(), memory());
        let aged = Memory::from_json(&json, later).unwrap();
        assert_eq!(aged.expired.values().next().unwrap()[0].1, Duration::from_secs(150));
        let back = Memory::from_json(&json, Duration::ZERO).unwrap();
        assert_eq!(back.expired.values().next().unwrap()[0].1, Duration::ZERO, "a clock that was set back");
    }

    #[test]
    fn one_bad_backend_harms_no_other_and_a_strange_file_is_refused() {
        let text = String::from_utf8(memory().to_json(Duration::ZERO).unwrap()).unwrap();
        let bad = text.replacen("10.0.0.1", "no host!", 1);
        let read = Memory::from_json(bad.as_bytes(), Duration::ZERO).unwrap();
        let lost = [&read.told, &read.kept].iter().filter(|m| m.values().all(|p| p.is_empty())).count()
            + read.expired.values().filter(|e| e.is_empty()).count();
        assert_eq!(lost, 1, "{read:?}");
        assert!(matches!(Memory::from_json(b"{}", Duration::ZERO), Err(MemoryError::Unreadable(_))));
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert!(matches!(Memory::from_json(newer.as_bytes(), Duration::ZERO), Err(MemoryError::Version(2))));
    }
}
