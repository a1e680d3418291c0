//! From desired registrations and what is published to the writes in between. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Backend, BackendId, Layout, NodeName, Prefix, ServiceName, SharedMap, Status, ValueFormat, encode};
use registry::store::{Key, LeaseId, Op, Value};

use super::keys::{Keys, draining, is_numbered};

/// All backends that this agent answers for.
pub type Registrations = SharedMap<(ServiceName, BackendId), Backend>;

/// How registrations are written.
#[derive(Debug, Clone)]
pub struct Form {
    /// Where backends lie (ETCD_PREFIX).
    pub prefix: Prefix,
    /// `--layout`.
    pub layout: Layout,
    /// The host that is registered for.
    pub node: NodeName,
    /// `--value`.
    pub values: ValueFormat,
    /// `--compat docker-register`: also write each service's port under `<service>/port`.
    pub service_ports: bool,
}

impl Form {
    /// The keys that stand for something else in `newer` than in `older`, with their new values; `None`: it is to go.
    ///
    /// A plain value has no room for a status, so a backend that is not up has no key then. Where backends of one
    /// service differ in their service port, the one with the lowest id gives it.
    pub fn changes(&self, older: &Registrations, newer: &Registrations) -> BTreeMap<Key, Option<Value>> {
        let is_written = |b: &&Backend| self.values == ValueFormat::Json || b.status == Status::Up;
        let (mut changes, mut services) = (BTreeMap::new(), BTreeSet::new());
        for place @ (service, id) in older.differences(newer) {
            let value = newer.get(place).filter(is_written).map(|backend| bytes(encode(backend, self.values)));
            changes.insert(self.prefix.backend(self.layout, &self.node, service, id).into(), value);
            services.insert(service);
        }
        for service in services.into_iter().filter(|_| self.service_ports) {
            let its = newer.seek(|(other, _)| other < service).take_while(|((other, _), _)| other == service);
            let port = its.map(|(_, backend)| backend).filter(is_written).find_map(|backend| backend.service_port);
            let key = self.prefix.service_port(self.layout, &self.node, service);
            changes.insert(key.into(), port.map(|port| bytes(port.to_string())));
        }
        changes
    }
}

fn bytes(text: String) -> Value {
    Arc::from(text.into_bytes())
}

/// The writes that turn `published` into `desired`; none where they are equal.
///
/// Changes of existing keys come first (a drain among them), then new keys, then deletions: no pool is ever emptier on the
/// way than before or after.
pub fn plan(desired: &Keys, published: &Keys, lease: LeaseId) -> Vec<Op> {
    let put = |(key, value): (&Key, &Value)| Op::put(key.clone(), value.clone(), Some(lease));
    let changed = desired.iter().filter(|(key, value)| published.get(*key).is_some_and(|old| old != *value));
    let new = desired.iter().filter(|(key, _)| !published.contains_key(*key));
    let mut ops: Vec<Op> = changed.chain(new).map(put).collect();
    for (key, value) in published.iter().filter(|(key, _)| !desired.contains_key(*key)) {
        // A service that fails is taken away on purpose: readers must not take it for a lease that ran out.
        if let Some(goodbye) = is_numbered(key).then(|| draining(value)).flatten() {
            ops.push(Op::put(key.clone(), goodbye, Some(lease)));
        }
        ops.push(Op::delete(key.clone()));
    }
    ops
}

/// What of a plan only takes away.
pub fn withdrawals(plan: &[Op]) -> Vec<Op> {
    plan.iter().filter(|op| matches!(op, Op::Delete { .. })).cloned().collect()
}

#[cfg(test)]
mod tests {
    use model::Port;
    use proptest::prelude::*;

    use super::*;

    fn form(values: ValueFormat, service_ports: bool) -> Form {
        let node = "n1".parse().unwrap();
        Form { prefix: Prefix::default(), layout: Layout::Service, node, values, service_ports }
    }

    fn registration(service: &str, id: &str, port: u16) -> ((ServiceName, BackendId), Backend) {
        let id: BackendId = id.parse().unwrap();
        let mut backend = Backend::new(id.clone(), "10.0.0.1".parse().unwrap(), Port::new(port).unwrap());
        backend.service_port = Port::new(80);
        ((service.parse().unwrap(), id), backend)
    }

    fn keys(form: &Form, registrations: &Registrations) -> Keys {
        let all = form.changes(&Registrations::new(), registrations);
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    fn text(keys: &Keys) -> Vec<(String, String)> {
        keys.iter().map(|(k, v)| (k.to_string(), String::from_utf8(v.to_vec()).unwrap())).collect()
    }

    #[test]
    fn compat_writes_what_docker_register_wrote() {
        let registrations = [registration("web", "abc", 32768), registration("web", "abd", 32769)].into();
        let expected = [("abc", "10.0.0.1:32768"), ("abd", "10.0.0.1:32769"), ("port", "80")]
            .map(|(id, value)| (format!("/backends/web/{id}"), value.to_owned()));
        assert_eq!(text(&keys(&form(ValueFormat::Plain, true), &registrations)), expected);
    }

    #[test]
    fn a_drain_is_in_the_json_value_and_takes_the_plain_key_away() {
        let (key, mut backend) = registration("web", "abc", 1);
        backend.status = Status::Draining;
        let registrations = [(key, backend)].into();
        let json = text(&keys(&form(ValueFormat::Json, false), &registrations));
        assert!(json[0].1.contains(r#""status":"draining""#), "{json:?}");
        assert!(keys(&form(ValueFormat::Plain, true), &registrations).is_empty());
    }

    #[test]
    fn changes_go_before_new_keys_and_those_before_deletions() {
        let keys = |pairs: &[(&str, &str)]| -> Keys {
            pairs.iter().map(|(k, v)| (Key::from(*k), bytes((*v).to_owned()))).collect()
        };
        let published = keys(&[("/a", "1"), ("/b/port", "1"), ("/c", "1")]);
        let plan = plan(&keys(&[("/0", "1"), ("/c", "2")]), &published, LeaseId(1));
        let order: Vec<&str> = plan.iter().map(|op| &**op.key()).collect();
        assert_eq!(order, ["/c", "/0", "/a", "/b/port"]);
    }

    fn any_keys() -> impl Strategy<Value = Keys> {
        let key = prop_oneof![9 => (0..30u8).prop_map(|n| format!("/b/s/{n}")), 1 => Just("/b/s/port".to_owned())];
        prop::collection::btree_map(key, 0..3u8, 0..30)
            .prop_map(|map| map.into_iter().map(|(k, v)| (Key::from(k), bytes(v.to_string()))).collect())
    }

    proptest! {
        #[test]
        fn the_plan_reaches_desired(old in any_keys(), new in any_keys()) {
            let plan_made = plan(&new, &old, LeaseId(7));
            let mut keys = old;
            for op in plan_made {
                match op {
                    Op::Put { key, value, lease } => {
                        prop_assert_eq!(lease, Some(LeaseId(7)));
                        prop_assert_ne!(keys.insert(key, value.clone()), Some(value));
                    }
                    Op::Delete { key } => prop_assert!(keys.remove(&key).is_some()),
                }
            }
            prop_assert_eq!(&keys, &new);
            prop_assert!(plan(&new, &keys, LeaseId(7)).is_empty());
        }
    }
}
