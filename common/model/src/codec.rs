//! A backend as the value of its key: written as JSON or `host:port`, read in any form that a known writer uses.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::backend::no_labels;
use super::{Backend, BackendId, Host, HostPattern, Port, Route, Routes, SniNames, Status, Weight};

/// The largest value read; more is no registration. What may be in one (labels, routes) comes to less, all
/// of it escaped. etcd itself takes 1.5 MB.
pub const MAX_VALUE_BYTES: usize = 48 * 1024;

/// How values are written (`--value`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ValueFormat {
    /// Nerve's object and ours.
    #[default]
    Json,
    /// `host:port`, docker-register's and Registrator's form. It has no room for a drain.
    Plain,
}

/// What a value says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A whole backend.
    Backend(Box<Backend>),
    /// A host alone: the service's own port is meant, where one is known.
    Portless(Host),
}

/// A value that is no backend. The message names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than [`MAX_VALUE_BYTES`].
    #[error("value of {0} bytes is above the limit of {MAX_VALUE_BYTES}")]
    TooLong(usize),
    /// Not text.
    #[error("value is not UTF-8")]
    NotText,
    /// It began as an object and is none.
    #[error("value is not JSON: {0}")]
    NotJson(String),
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field holds what it cannot mean.
    #[error("{field}: {why}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// Writes `backend` as a value.
pub fn encode(backend: &Backend, format: ValueFormat) -> String {
    match format {
        // A Backend has string keys and no map that could fail, so there is nothing to report.
        ValueFormat::Json => serde_json::to_string(backend).unwrap_or_default(),
        ValueFormat::Plain => backend.address(),
    }
}

/// Reads the value of the key that names backend `id`: our JSON, Nerve's, `host:port`, or a bare host. Fields that
/// nobody knows are passed over, `null` counts as absent. A route that cannot be is left out alone ([`Backend::left_out`]).
///
/// # Errors
/// [`DecodeError`] for a value that is no backend; the caller leaves out this one registration and says so.
pub fn decode(id: &BackendId, value: &[u8]) -> Result<Decoded, DecodeError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(DecodeError::TooLong(value.len()));
    }
    let text = std::str::from_utf8(value).map_err(|_| DecodeError::NotText)?.trim();
    if !text.starts_with('{') {
        return plain(id, text);
    }
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|e| DecodeError::NotJson(e.to_string()))?;
    Fields(&object).backend(id).map(|b| Decoded::Backend(Box::new(b)))
}

fn plain(id: &BackendId, text: &str) -> Result<Decoded, DecodeError> {
    if let Ok(host) = text.parse::<Host>() {
        return Ok(Decoded::Portless(host));
    }
    let (host, port) = text.rsplit_once(':').ok_or(DecodeError::Missing("port"))?;
    let host = host.parse().map_err(|e| bad("host", e))?;
    let port = port.parse::<Port>().map_err(|_| bad("port", format!("{port:?} is not between 1 and 65535")))?;
    Ok(Decoded::Backend(Box::new(Backend::new(id.clone(), host, port))))
}

fn bad(field: &'static str, why: impl ToString) -> DecodeError {
    DecodeError::Field { field, why: why.to_string() }
}

/// The fields of one object, read one by one so that each fault can be named.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn backend(&self, id: &BackendId) -> Result<Backend, DecodeError> {
        let host = self.text("host")?.ok_or(DecodeError::Missing("host"))?;
        let host = host.parse().map_err(|e| bad("host", e))?;
        let port = self.port("port")?.ok_or(DecodeError::Missing("port"))?;
        let (routes, sni, left_out) = self.edge();
        Ok(Backend {
            routes,
            sni,
            left_out,
            name: self.name()?,
            weight: self.number("weight")?.map(Weight::try_from).transpose().map_err(|e| bad("weight", e))?,
            labels: self.labels()?,
            transport: self.word("transport")?.unwrap_or_default(),
            mode: self.word("mode")?,
            service_port: self.port("service_port")?,
            status: self.word("status")?.unwrap_or(Status::Up),
            haproxy_server_options: self.options()?,
            haproxy_server_id: self.number("haproxy_server_id")?.filter(|id| *id > 0),
            ..Backend::new(id.clone(), host, port)
        })
    }

    fn get(&self, field: &'static str) -> Option<&Value> {
        self.0.get(field).filter(|v| !v.is_null())
    }

    fn text(&self, field: &'static str) -> Result<Option<&str>, DecodeError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| bad(field, "is not a string"))
    }

    /// A number, or digits in a string as old writers have them.
    fn number(&self, field: &'static str) -> Result<Option<u32>, DecodeError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let number = match value {
            Value::String(digits) => digits.parse().ok(),
            other => other.as_u64().and_then(|n| u32::try_from(n).ok()),
        };
        number.map(Some).ok_or_else(|| bad(field, "is not a whole number"))
    }

    fn port(&self, field: &'static str) -> Result<Option<Port>, DecodeError> {
        let Some(number) = self.number(field)? else { return Ok(None) };
        let port = u16::try_from(number).ok().and_then(Port::new);
        port.map(Some).ok_or_else(|| bad(field, format!("{number} is not between 1 and 65535")))
    }

    fn word<T: std::str::FromStr<Err: ToString>>(&self, field: &'static str) -> Result<Option<T>, DecodeError> {
        self.text(field)?.map(str::parse).transpose().map_err(|e| bad(field, e))
    }

    /// The name becomes part of a server's name, so it is held to the characters of an id; an empty one is none.
    fn name(&self) -> Result<Option<Arc<str>>, DecodeError> {
        let Some(name) = self.text("name")?.filter(|n| !n.is_empty()) else { return Ok(None) };
        let valid = name.len() <= 255 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:@-".contains(&b));
        if valid { Ok(Some(name.into())) } else { Err(bad("name", "is not 1 to 255 of A-Z a-z 0-9 _ . : @ -")) }
    }

    /// Nerve passes any JSON through as labels; what is no string is kept as its JSON text.
    fn labels(&self) -> Result<Arc<BTreeMap<String, String>>, DecodeError> {
        let Some(value) = self.get("labels") else { return Ok(no_labels()) };
        let object = value.as_object().ok_or_else(|| bad("labels", "is not an object"))?;
        let mut labels = BTreeMap::new();
        for (key, value) in object.iter().filter(|(_, v)| !v.is_null()) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if key.chars().chain(text.chars()).any(char::is_control) {
                return Err(bad("labels", format!("{key:?} has a control character")));
            }
            labels.insert(key.clone(), text);
        }
        Ok(Arc::new(labels))
    }

    /// The backend can be reached without its routes, so none of them is worth losing it: what is wrong with some is told.
    fn edge(&self) -> (Routes, SniNames, Option<Arc<str>>) {
        const MOST_TOLD: usize = 4;
        let mut faults = Vec::new();
        let routes = self.list("routes", &mut faults, |value| {
            value.as_object().ok_or_else(|| "is not an object".to_owned())?;
            Route::deserialize(value).map_err(|e| e.to_string())
        });
        let (routes, surplus) = Routes::new(routes);
        faults.extend(surplus.iter().map(|why| format!("routes: {why}")));
        let names = self.list("sni", &mut faults, |value| {
            let text = value.as_str().ok_or_else(|| "is not a string".to_owned())?;
            text.parse::<HostPattern>().map_err(|e| e.to_string())
        });
        let (sni, surplus) = SniNames::new(names);
        faults.extend(surplus.iter().map(|why| format!("sni: {why}")));
        if faults.len() > MOST_TOLD {
            let more = faults.split_off(MOST_TOLD).len();
            faults.push(format!("and {more} more"));
        }
        (routes, sni, (!faults.is_empty()).then(|| faults.join("; ").into()))
    }

    /// What of a list can be read; the rest goes to `faults`.
    fn list<T>(
        &self,
        field: &'static str,
        faults: &mut Vec<String>,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Vec<T> {
        const MOST_CHARACTERS: usize = 300;
        let Some(value) = self.get(field) else { return Vec::new() };
        let Some(list) = value.as_array() else {
            faults.push(format!("{field}: is not a list"));
            return Vec::new();
        };
        let fault =
            |n: usize, why: String| format!("{field}[{n}]: {}", why.chars().take(MOST_CHARACTERS).collect::<String>());
        let one = |(n, value)| read(value).map_err(|why| faults.push(fault(n, why))).ok();
        list.iter().enumerate().filter_map(one).collect()
    }

    /// As in Synapse only a string counts; anything else is passed over.
    fn options(&self) -> Result<Option<Arc<str>>, DecodeError> {
        const FIELD: &str = "haproxy_server_options";
        match self.get(FIELD).and_then(Value::as_str) {
            None | Some("") => Ok(None),
            Some(text) if text.chars().any(char::is_control) => Err(bad(FIELD, "has a control character")),
            Some(text) => Ok(Some(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::any_route;
    use proptest::prelude::*;

    fn id() -> BackendId {
        "abc".parse().unwrap()
    }

    fn read(value: &str) -> Backend {
        match decode(&id(), value.as_bytes()).unwrap() {
            Decoded::Backend(backend) => *backend,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_known_writer_is_read() {
        assert_eq!(read("10.0.0.1:8080").address(), "10.0.0.1:8080"); // docker-register
        assert_eq!(read("[fe80::1]:80").address(), "[fe80::1]:80"); // Registrator
        let nerve =
            read(r#"{"host":"h1","port":"80","name":"i-1","weight":"7","labels":{"az":"x","n":1},"extra":[1]}"#);
        assert_eq!((nerve.address().as_str(), nerve.weight.unwrap().get()), ("h1:80", 7));
        assert_eq!(nerve.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["az=x", "n=1"]);
        let portless = decode(&id(), b"h1").unwrap();
        assert_eq!(portless, Decoded::Portless("h1".parse().unwrap()));
    }

    #[test]
    fn a_bad_value_names_its_field() {
        for (value, why) in [
            ("", "port is missing"),
            ("a b:1", "host"),
            ("h:0", "port"),
            ("h:70000", "port"),
            ("{", "not JSON"),
            (r#"{"port":1}"#, "host is missing"),
            (r#"{"host":"h"}"#, "port is missing"),
            (r#"{"host":"h","port":0}"#, "port: 0"),
            (r#"{"host":"h\n","port":1}"#, "host:"),
            (r#"{"host":"h","port":1,"name":"a b"}"#, "name:"),
            (r#"{"host":"h","port":1,"weight":257}"#, "weight:"),
            (r#"{"host":"h","port":1,"weight":-1}"#, "weight:"),
            (r#"{"host":"h","port":1,"status":"dead"}"#, "status:"),
            (r#"{"host":"h","port":1,"labels":{"a":"\n"}}"#, "labels:"),
            (r#"{"host":"h","port":1,"haproxy_server_options":"check\nserver x"}"#, "haproxy_server_options:"),
        ] {
            let error = decode(&id(), value.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{value}: {error}");
        }
        assert!(decode(&id(), &[b'x'; MAX_VALUE_BYTES + 1]).is_err());
        assert!(decode(&id(), b"\xff:80").is_err());
    }

    #[test]
    fn the_value_written_has_a_stable_key_order() {
        let mut backend = Backend::new(id(), "::1".parse().unwrap(), Port::new(80).unwrap());
        backend.name = Some("web-1".into());
        assert_eq!(
            encode(&backend, ValueFormat::Json),
            r#"{"id":"abc","host":"::1","port":80,"name":"web-1","transport":"tcp","status":"up"}"#
        );
        assert_eq!(encode(&backend, ValueFormat::Plain), "[::1]:80");
    }

    #[test]
    fn a_bad_route_is_left_out_alone_and_named() {
        let good = r#"{"host":"b.example","path":"/v2/","sticky":true,"strip_prefix":null,"weight":"whatever"}"#;
        let bad = [
            r#"{"host":"a b"}"#,
            r#"{"path":"/x"}"#,
            r#"{"host":"a.example","path":"x"}"#,
            r#"{"host":"a.example","priority":"high"}"#,
            r#"["a.example"]"#,
            good,
        ];
        for bad in bad {
            let backend = read(&format!(r#"{{"host":"h","port":1,"routes":[{good},{bad}]}}"#));
            assert_eq!(backend.routes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["b.example/v2 (sticky)"]);
            assert!(backend.left_out.as_deref().unwrap().starts_with("routes"), "{:?}", backend.left_out);
        }
        let backend = read(&format!(r#"{{"host":"h","port":1,"routes":[{}]}}"#, vec!["1"; 3000].join(",")));
        let told = backend.left_out.unwrap();
        assert!(told.ends_with("routes[3]: is not an object; and 2996 more"), "{told}");
        let none = read(r#"{"host":"h","port":1,"routes":"a.example"}"#);
        assert_eq!(none.left_out.as_deref(), Some("routes: is not a list"));
        assert_eq!(read(r#"{"host":"h","port":1,"routes":null}"#).left_out, None);
        let names = read(r#"{"host":"h","port":1,"sni":["DB.example",7,"a b","10.0.0.1"]}"#);
        assert_eq!(names.sni.iter().map(ToString::to_string).collect::<Vec<_>>(), ["db.example"]);
        let told = names.left_out.unwrap();
        assert!(told.starts_with("sni[1]: is not a string; sni[2]: host \"a b\" is not"), "{told}");
    }

    prop_compose! {
        fn any_backend()(port in 1u16.., weight in prop::option::of(0u32..=256), name in prop::option::of("[a-z]{1,9}"),
            labels in prop::collection::btree_map("[a-z]{1,5}", "\\PC{0,8}", 0..4), udp in any::<bool>(), status in 0..3usize,
            mode in prop::option::of(any::<bool>()), service_port in prop::option::of(1u16..),
            routes in prop::collection::vec(any_route(), 0..5), sni in prop::collection::vec(any_route(), 0..3)) -> Backend {
            Backend {
                routes: Routes::new(routes).0,
                sni: SniNames::new(sni.into_iter().map(|route| route.host)).0,
                name: name.map(Into::into),
                weight: weight.map(|w| w.try_into().unwrap()),
                labels: Arc::new(labels),
                transport: if udp { crate::Transport::Udp } else { crate::Transport::Tcp },
                mode: mode.map(|m| if m { crate::Mode::Http } else { crate::Mode::Tcp }),
                service_port: service_port.and_then(Port::new),
                status: [Status::Up, Status::Draining, Status::Down][status],
                ..Backend::new(id(), "10.1.2.3".parse().unwrap(), port.try_into().unwrap())
            }
        }
    }

    proptest! {
        #[test]
        fn json_is_read_back_as_it_was_written(backend in any_backend()) {
            let value = encode(&backend, ValueFormat::Json);
            prop_assert_eq!(decode(&id(), value.as_bytes()), Ok(Decoded::Backend(Box::new(backend))));
        }

        #[test]
        fn no_value_panics(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&id(), &value);
        }
    }
}
