//! What must outlive a restart: what the sources told last, what expired and is held, and which pools were kept. Pure.
//!
//! Without it every backend that went while discover was down would simply be missing, and nothing could be held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Backend, BackendId, Decoded, InOrder, Pool, ServiceMap, ServiceName, decode};
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

/// A moment, for what outlives a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Since 1970, by the clock of the day, which may be set.
    pub unix: Duration,
    /// Which run of the machine this is, and how long it has lasted: nobody sets that clock. `None` where it cannot be told.
    pub boot: Option<(String, Duration)>,
}

impl From<Duration> for Stamp {
    /// By the clock of the day alone.
    fn from(unix: Duration) -> Self {
        Self { unix, boot: None }
    }
}

impl Stamp {
    /// How long ago `earlier` was; a clock that was set back makes nothing older.
    fn since(&self, earlier: &Self) -> Duration {
        let steady = match (&self.boot, &earlier.boot) {
            (Some((run, now)), Some((same, then))) if run == same => now.checked_sub(*then),
            _ => None,
        };
        steady.unwrap_or_else(|| self.unix.saturating_sub(earlier.unix))
    }
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

/// A whole memory, or what has changed of one.
#[derive(Serialize, Deserialize)]
struct Raw<T> {
    version: u32,
    /// Which whole memory this is, or changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<u64>,
    /// When it was written, by both clocks.
    #[serde(default)]
    written_unix_ms: Option<u64>,
    #[serde(default)]
    boot: Option<RawBoot>,
    services: BTreeMap<ServiceName, Vec<T>>,
    /// The services that are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<ServiceName>,
    #[serde(default)]
    expired: BTreeMap<ServiceName, Vec<RawExpired<T>>>,
    #[serde(default)]
    holding: BTreeSet<ServiceName>,
    #[serde(default)]
    kept: BTreeMap<ServiceName, Vec<T>>,
}

#[derive(Serialize, Deserialize)]
struct RawBoot {
    id: String,
    uptime_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct RawExpired<T> {
    at_unix_ms: u64,
    backend: T,
}

impl Raw<Remembered> {
    /// Takes over what has changed since.
    fn change(&mut self, later: Self) {
        for service in &later.gone {
            self.services.remove(service);
        }
        self.services.extend(later.services);
        *self = Self { services: std::mem::take(&mut self.services), base: self.base, ..later };
    }
}

impl Memory {
    /// As JSON, written `now`; with a `base` later changes can name it.
    pub fn to_base(&self, base: Option<u64>, now: impl Into<Stamp>) -> Result<Vec<u8>, MemoryError> {
        Ok(serde_json::to_vec(&self.raw(base, shared(self.told.iter()), Vec::new(), now.into()))?)
    }

    /// What has changed since `told` was remembered, on one line: the changed pools, and all of the rest, which is mostly nothing.
    pub fn to_changes(&self, base: u64, told: &ServiceMap, now: impl Into<Stamp>) -> Result<Vec<u8>, MemoryError> {
        let (mut before, mut after) = (InOrder::of(told), InOrder::of(&self.told));
        let changed =
            self.told.iter().filter(|(service, pool)| before.find(service).is_none_or(|was| !Arc::ptr_eq(was, pool)));
        let services = shared(changed);
        let gone = told.keys().filter(|service| after.find(service).is_none()).cloned().collect();
        let mut line = serde_json::to_vec(&self.raw(Some(base), services, gone, now.into()))?;
        line.push(b'\n');
        Ok(line)
    }

    fn raw(
        &self,
        base: Option<u64>,
        services: BTreeMap<ServiceName, Vec<Shared>>,
        gone: Vec<ServiceName>,
        Stamp { unix, boot }: Stamp,
    ) -> Raw<Shared> {
        let expired = |all: &'_ Vec<(Arc<Backend>, Duration)>| {
            let at = |ago: &Duration| millis(unix.saturating_sub(*ago));
            all.iter()
                .map(|(backend, ago)| RawExpired { at_unix_ms: at(ago), backend: Shared(backend.clone()) })
                .collect()
        };
        Raw {
            version: VERSION,
            base,
            written_unix_ms: Some(millis(unix)),
            boot: boot.map(|(id, uptime)| RawBoot { id, uptime_ms: millis(uptime) }),
            services,
            gone,
            expired: self.expired.iter().map(|(service, all)| (service.clone(), expired(all))).collect(),
            holding: self.holding.clone(),
            kept: shared(self.kept.iter()),
        }
    }

    /// Reads what [`to_base`](Self::to_base) wrote, with the changes to it, a line each. A backend that cannot be read is left out, and said. Those of another memory do not count, and what was cut off, and what is behind it.
    pub fn from_base(bytes: &[u8], changes: &[u8], now: impl Into<Stamp>) -> Result<Self, MemoryError> {
        let (mut raw, now): (Raw<Remembered>, Stamp) = (serde_json::from_slice(bytes)?, now.into());
        if raw.version != VERSION {
            return Err(MemoryError::Version(raw.version));
        }
        let whole_lines = changes.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n"));
        for line in whole_lines {
            match serde_json::from_slice::<Raw<Remembered>>(line) {
                Ok(later) if later.version == VERSION && later.base.is_some() && later.base == raw.base => {
                    raw.change(later)
                }
                _ => break,
            }
        }
        // An older discover did not say when it wrote.
        let boot = raw.boot.map(|boot| (boot.id, Duration::from_millis(boot.uptime_ms)));
        let written =
            raw.written_unix_ms.map_or_else(|| now.clone(), |ms| Stamp { unix: Duration::from_millis(ms), boot });
        let age = now.since(&written);
        let pools = |map: BTreeMap<ServiceName, Vec<Remembered>>| -> ServiceMap {
            let pool = |all: Vec<Remembered>| Arc::new(Pool::new(all.into_iter().filter_map(|one| one.0)));
            map.into_iter().map(|(service, all)| (service, pool(all))).collect()
        };
        let expired = |(service, all): (ServiceName, Vec<RawExpired<Remembered>>)| {
            let one = |e: RawExpired<Remembered>| {
                let ago = written.unix.saturating_sub(Duration::from_millis(e.at_unix_ms));
                Some((e.backend.0?, ago + age))
            };
            (service, all.into_iter().filter_map(one).collect())
        };
        Ok(Self {
            told: pools(raw.services),
            expired: raw.expired.into_iter().map(expired).collect(),
            holding: raw.holding,
            kept: pools(raw.kept),
        })
    }
}

/// A backend that is read; none where it is unreadable. Each is read on its own, so that no more than one is held twice.
#[derive(Default)]
struct Remembered(Option<Arc<Backend>>);

impl<'de> Deserialize<'de> for Remembered {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Value::deserialize(from).map(|value| Self(backend(&value)))
    }
}

/// A backend that is written without being copied.
#[derive(Serialize)]
#[serde(transparent)]
struct Shared(#[serde(serialize_with = "by_reference")] Arc<Backend>);

fn by_reference<S: serde::Serializer>(backend: &Arc<Backend>, to: S) -> Result<S::Ok, S::Error> {
    backend.as_ref().serialize(to)
}

fn shared<'a>(pools: impl Iterator<Item = (&'a ServiceName, &'a Arc<Pool>)>) -> BTreeMap<ServiceName, Vec<Shared>> {
    let all = |pool: &Pool| pool.backends().iter().cloned().map(Shared).collect();
    pools.map(|(service, pool)| (service.clone(), all(pool))).collect()
}

fn backend(value: &Value) -> Option<Arc<Backend>> {
    let id = value["id"].as_str().and_then(|id| id.parse::<BackendId>().ok());
    let decoded = id.as_ref().map(|id| decode(id, value.to_string().as_bytes()));
    match decoded {
        Some(Ok(Decoded::Backend(backend))) => Some(Arc::new(*backend)),
        _ => {
            warn!(%value, "Remembered backend is unreadable and is left out.");
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
        let json = memory().to_base(None, then).unwrap();
        assert_eq!(Memory::from_base(&json, &[], then).unwrap(), memory());
        let aged = Memory::from_base(&json, &[], later).unwrap();
        assert_eq!(aged.expired.values().next().unwrap()[0].1, Duration::from_secs(150));
        let back = Memory::from_base(&json, &[], Duration::ZERO).unwrap();
        assert_eq!(back.expired.values().next().unwrap()[0].1, Duration::from_secs(90), "a clock that was set back");
    }

    #[test]
    fn what_was_written_in_the_same_run_of_the_machine_ages_by_its_steady_clock() {
        let seconds = Duration::from_secs;
        let stamp =
            |unix, run: &str, uptime| Stamp { unix: seconds(unix), boot: Some((run.to_owned(), seconds(uptime))) };
        let json = memory().to_base(None, stamp(1_000_000, "a", 500)).unwrap();
        let ago = |now: Stamp| Memory::from_base(&json, &[], now).unwrap().expired.into_values().next().unwrap()[0].1;
        assert_eq!(ago(stamp(1_003_610, "a", 510)), seconds(100), "the clock of the day jumped an hour forwards");
        assert_eq!(ago(stamp(996_410, "a", 510)), seconds(100), "and back");
        assert_eq!(ago(stamp(1_000_060, "b", 5)), seconds(150), "the machine was started anew");
        assert_eq!(ago(stamp(1_000_060, "a", 5)), seconds(150), "an uptime that is not the machine's");
        assert_eq!(ago(seconds(1_000_060).into()), seconds(150), "it cannot be told");
    }

    #[test]
    fn what_an_older_discover_wrote_ages_by_the_clock_of_the_day() {
        let mut json: Value =
            serde_json::from_slice(&memory().to_base(None, Duration::from_secs(1_000)).unwrap()).unwrap();
        let fields = json.as_object_mut().unwrap();
        assert!(fields.remove("written_unix_ms").is_some() && fields.remove("boot").is_some());
        let read = Memory::from_base(json.to_string().as_bytes(), &[], Duration::from_secs(1_060)).unwrap();
        assert_eq!(read.expired.into_values().next().unwrap()[0].1, Duration::from_secs(150));
    }

    #[test]
    fn changes_are_taken_over_in_their_order_up_to_the_first_that_is_not_whole() {
        let (now, base) = (Duration::from_secs(1_000), memory());
        let json = base.to_base(Some(7), now).unwrap();
        let name = |name: &str| name.parse::<ServiceName>().unwrap();
        let pool = |id: &str| {
            let backend = Backend::new(id.parse().unwrap(), "10.0.0.9".parse().unwrap(), 81.try_into().unwrap());
            Arc::new(Pool::new([Arc::new(backend)]))
        };
        let mut second = Memory { expired: BTreeMap::new(), ..base.clone() };
        second.told.insert(name("new"), pool("n"));
        let mut third = second.clone();
        third.told.remove(&name("web"));
        third.told.insert(name("new"), pool("m"));
        let one = second.to_changes(7, &base.told, now).unwrap();
        let two = third.to_changes(7, &second.told, now).unwrap();
        assert!(!String::from_utf8(one.clone()).unwrap().contains("\"id\":\"a\""), "only what changed");
        let both = [&one[..], &two].concat();
        let read = |changes: &[u8]| Memory::from_base(&json, changes, now).unwrap();
        assert_eq!([read(&[]), read(&one), read(&both)], [base.clone(), second.clone(), third.clone()]);
        for cut in 0..both.len() {
            let expected = if cut < one.len() { &base } else { &second };
            assert_eq!(read(&both[..cut]), *expected, "cut off after {cut} bytes");
        }
        let others = third.to_changes(8, &second.told, now).unwrap();
        assert_eq!(read(&[&one[..], &others, &two].concat()), second, "another memory's changes end it");
        let empty = third.to_changes(7, &third.told, now).unwrap();
        assert_eq!(read(&[&both[..], &empty].concat()), third);
        assert!(empty.len() < 400);
    }

    #[test]
    fn one_bad_backend_harms_no_other_and_a_strange_file_is_refused() {
        let text = String::from_utf8(memory().to_base(None, Duration::ZERO).unwrap()).unwrap();
        let bad = text.replacen("10.0.0.1", "no host!", 1);
        let read = Memory::from_base(bad.as_bytes(), &[], Duration::ZERO).unwrap();
        let lost = [&read.told, &read.kept].iter().filter(|m| m.values().all(|p| p.is_empty())).count()
            + read.expired.values().filter(|e| e.is_empty()).count();
        assert_eq!(lost, 1, "{read:?}");
        assert!(matches!(Memory::from_base(b"{}", &[], Duration::ZERO), Err(MemoryError::Unreadable(_))));
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert!(matches!(Memory::from_base(newer.as_bytes(), &[], Duration::ZERO), Err(MemoryError::Version(2))));
    }
}
