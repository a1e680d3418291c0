//! Which certificate is for which name, as a map of HAProxy's: by it the edge tells a request for a name of another certificate from one
//! that its connection's own certificate covers. Pure.

use std::collections::{BTreeMap, HashMap};

use model::HostPattern;

use super::Certificate;
use crate::haproxy::api::ops::Op;

/// Our copies' file names by name, in lower case; `*.NAME` is any name one label below NAME.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames(BTreeMap<String, String>);

impl CertificateNames {
    /// Of several certificates for a name the first counts, as in HAProxy's crt-list.
    pub fn of(certificates: &[Certificate]) -> Self {
        let mut all = BTreeMap::new();
        for certificate in certificates {
            for name in certificate.facts.names.iter().filter_map(|name| name.parse::<HostPattern>().ok()) {
                all.entry(name.as_str().to_owned()).or_insert_with(|| certificate.file.clone());
            }
        }
        Self(all)
    }

    /// The map's file.
    pub fn render(&self) -> String {
        self.0.iter().map(|(name, file)| format!("{name} {file}\n")).collect()
    }

    /// What leads HAProxy's map of that name, with these entries, to this one.
    pub fn changes(&self, map: &str, running: Vec<(String, String)>) -> Vec<Op> {
        let running: HashMap<String, String> = running.into_iter().collect();
        let (map, mut ops) = (|| map.to_owned(), Vec::new());
        for (key, value) in &self.0 {
            let (key, value) = (key.clone(), value.clone());
            match running.get(&key) {
                Some(was) if *was == value => {}
                Some(_) => ops.push(Op::MapSet { map: map(), key, value }),
                None => ops.push(Op::MapAdd { map: map(), key, value }),
            }
        }
        let gone = running.into_keys().filter(|key| !self.0.contains_key(key));
        ops.extend(gone.map(|key| Op::MapDel { map: map(), key }));
        ops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::x509::Facts;
    use std::time::SystemTime;

    #[test]
    fn the_first_certificate_for_a_name_counts_and_a_running_map_gets_what_differs() {
        let certificate = |file: &str, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let (not_before, not_after) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
            let facts = Facts { serial: "1".into(), not_before, not_after, names };
            Certificate { source: file.into(), file: file.into(), facts, pem: "".into() }
        };
        let names = CertificateNames::of(&[
            certificate("a", &["a.example", "*.a.example", "fe80::1", "b c"]),
            certificate("b", &["a.example", "b.example"]),
        ]);
        assert_eq!(names.render(), "*.a.example a\na.example a\nb.example b\n");
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let running = vec![pair("*.a.example", "a"), pair("a.example", "b"), pair("gone.example", "c")];
        let kinds: Vec<_> = names.changes("/m", running).iter().map(Op::kind).collect();
        assert_eq!(kinds, ["map_set", "map_add", "map_del"]);
    }
}
