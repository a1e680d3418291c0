//! Keys of services without Docker: `<directory><20 digits>`, as the in-order keys of etcd's v2 API looked. A slot gets its
//! number when it first appears, above all earlier ones: the lowest of a service is the oldest, which is what leader election
//! goes by. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use registry::store::{Key, Revision, Value};
use serde_json::Map;

use super::keys::{Keys, is_numbered};
use super::slots::{Payload, Slot, Slots, Want};

/// Which key each slot has.
#[derive(Debug, Default)]
pub struct Numbers {
    keys: BTreeMap<Slot, Key>,
    last: u64,
}

impl Numbers {
    /// The keys and values that stand for `wanted`. What is in `published` already (the former self wrote it) keeps its
    /// key; a new number is above `newest` and above all others given here.
    pub fn keys(&mut self, wanted: &Slots, published: &Keys, newest: Revision) -> Keys {
        self.keys.retain(|slot, _| wanted.get(slot).is_some_and(|want| !matches!(want, Want::Absent(_))));
        let taken: BTreeSet<&Key> = self.keys.values().collect();
        let mut free: Vec<Key> =
            published.keys().filter(|key| is_numbered(key) && !taken.contains(key)).cloned().collect();
        let same_payload =
            |key: &Key, payload: &Payload| published.get(key).is_some_and(|v| **v == *payload.as_bytes());
        let same_address = |key: &Key, payload: &Payload| {
            published.get(key).is_some_and(|v| address(v).is_some() && address(v) == address(payload.as_bytes()))
        };
        // What is the very same finds its key first: two services may share a directory.
        self.find(wanted, &mut free, same_payload);
        self.find(wanted, &mut free, same_address);
        let mut keys = Keys::new();
        for (slot, want) in wanted {
            match (want, self.keys.get(slot)) {
                (Want::Publish(payload), Some(key)) => {
                    keys.insert(key.clone(), payload.as_bytes().into());
                }
                (Want::Publish(payload), None) => {
                    self.last = self.last.max(u64::try_from(newest.0).unwrap_or_default()) + 1;
                    let key = Key::from(format!("{}{:020}", slot.directory, self.last));
                    self.keys.insert(slot.clone(), key.clone());
                    keys.insert(key, payload.as_bytes().into());
                }
                (Want::Leave(_), Some(key)) => {
                    keys.extend(published.get(key).map(|value| (key.clone(), value.clone())));
                }
                (Want::Leave(_), None) | (Want::Absent(_), _) => {}
            }
        }
        keys
    }

    fn find(&mut self, wanted: &Slots, free: &mut Vec<Key>, fits: impl Fn(&Key, &Payload) -> bool) {
        for (slot, want) in wanted {
            let (Want::Publish(payload) | Want::Leave(payload)) = want else { continue };
            if self.keys.contains_key(slot) {
                continue;
            }
            let mine = |key: &Key| key.strip_prefix(&*slot.directory).is_some_and(|number| !number.contains('/'));
            if let Some(at) = free.iter().position(|key| mine(key) && fits(key, payload)) {
                self.keys.insert(slot.clone(), free.remove(at));
            }
        }
    }

    /// Somebody else has this key: its slot gets another number the next time.
    pub fn give_up(&mut self, key: &Key) {
        self.keys.retain(|_, own| own != key);
    }

    /// Whether any slot has a key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What is `published` of `wanted`.
    pub fn published<'a>(
        &self,
        wanted: &Slots,
        published: impl Fn(&Key) -> Option<&'a Value>,
    ) -> BTreeMap<Slot, Payload> {
        let of = |(slot, key): (&Slot, &Key)| {
            let payload = std::str::from_utf8(published(key).filter(|value| !value.is_empty())?).ok()?;
            wanted.contains_key(slot).then(|| (slot.clone(), Payload::from(payload)))
        };
        self.keys.iter().filter_map(of).collect()
    }
}

fn address(value: &[u8]) -> Option<(String, String)> {
    let object: Map<String, serde_json::Value> = serde_json::from_slice(value).ok()?;
    let text = |field: &str| object.get(field).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
    Some((text("host")?, text("port")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(service: &str, directory: &str) -> Slot {
        Slot { service: service.into(), directory: directory.into() }
    }

    fn payload(port: u16, more: &str) -> Payload {
        format!(r#"{{"host":"h","port":{port},"name":"i-1"{more}}}"#).into()
    }

    fn written(keys: &Keys) -> Vec<(String, String)> {
        keys.iter().map(|(k, v)| (k.to_string(), String::from_utf8(v.to_vec()).unwrap())).collect()
    }

    #[test]
    fn numbers_rise_stay_with_their_slot_and_lie_below_path_and_instance() {
        let mut numbers = Numbers::default();
        let mut wanted: Slots = [(slot("b", "/i-1/"), Want::Publish(payload(1, "")))].into();
        let first = numbers.keys(&wanted, &Keys::new(), Revision(41));
        assert_eq!(written(&first)[0].0, "/i-1/00000000000000000042");
        wanted.insert(slot("a", "/nerve/a/i-1/"), Want::Publish(payload(2, "")));
        wanted.insert(slot("c", "/x/i-1/"), Want::Leave(payload(3, "")));
        let both = numbers.keys(&wanted, &first, Revision(7));
        let keys: Vec<String> = written(&both).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["/i-1/00000000000000000042", "/nerve/a/i-1/00000000000000000043"]);
        assert!(keys.iter().all(|key| is_numbered(key)));
        numbers.give_up(&Key::from(keys[1].as_str()));
        let again = numbers.keys(&wanted, &first, Revision(7));
        assert!(again.contains_key("/nerve/a/i-1/00000000000000000044"));
    }

    #[test]
    fn what_the_former_self_wrote_keeps_its_key_by_payload_then_by_address() {
        let old = |number: u64, port| (Key::from(format!("/p/i-1/{number:020}")), payload(port, "").as_bytes().into());
        let published: Keys = [old(5, 1), old(6, 2), old(9, 3)].into();
        let wanted: Slots = [
            (slot("a", "/p/i-1/"), Want::Leave(payload(2, ""))),
            (slot("b", "/p/i-1/"), Want::Publish(payload(1, r#","weight":5"#))),
            (slot("c", "/p/i-1/"), Want::Leave(payload(4, ""))),
        ]
        .into();
        let keys = Numbers::default().keys(&wanted, &published, Revision(100));
        let expected = [
            ("/p/i-1/00000000000000000005".to_owned(), payload(1, r#","weight":5"#).to_string()),
            ("/p/i-1/00000000000000000006".to_owned(), payload(2, "").to_string()),
        ];
        assert_eq!(written(&keys), expected, "9 is nobody's any more, and c was never written");
    }
}
