//! One service's object → what is checked and published.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use agent::config::Report;
use model::{Host, MAX_VALUE_BYTES, Port};
use serde_json::{Map, Value};

use super::check;
use super::number::{port, whole};
use super::types::{CheckConf, Limit, Service};
use crate::nerve::reporters::{AnyTarget, Payload, Reading};

/// Reads the service `name`; its object was held against the table. `None`: it cannot be published, and why was
/// reported.
pub(super) fn read(name: &str, fields: &Map<String, Value>, instance: &str, report: &mut Report) -> Option<Service> {
    let path = format!("services.{name}");
    let before = report.errors.len();
    let mut error = |key: &str, why: String| report.error(&format!("{path}.{key}"), why);
    let host_text = fields.get("host").and_then(Value::as_str);
    let host: Option<Host> = match host_text.map(str::parse::<Host>) {
        Some(Ok(host)) => Some(host),
        Some(Err(e)) => {
            error("host", e.to_string());
            None
        }
        None => {
            error("host", "is required".to_owned());
            None
        }
    };
    let port_value = fields.get("port");
    if port_value.is_none() {
        error("port", "is required".to_owned());
    }
    if fields.get("labels").is_some_and(|labels| !labels.is_object()) {
        error("labels", "is not an object".to_owned());
    }
    let interval = fields.get("check_interval").and_then(Value::as_f64).unwrap_or(0.5);
    let interval = Duration::try_from_secs_f64(interval).ok().filter(|i| (10..=86_400_000).contains(&i.as_millis()));
    if interval.is_none() {
        error("check_interval", "is not between 0.01 and 86400 seconds".to_owned());
    }
    let limit = limit(fields.get("rate_limiting"));
    if limit.burst < 1.0 {
        error("rate_limiting.max_burst", "is below 1: nothing could ever be reported".to_owned());
    }
    let weight = fields.get("weight").and_then(whole);
    if weight.is_some_and(|w| w > 256) {
        report.warn(&format!("{path}.weight"), "is above 256, which no HAProxy takes: discover leaves the backend out");
    }
    // What is wrong with the checks is to be told, whatever is wrong here.
    let place = (host.clone().unwrap_or(Host::Ip(Ipv4Addr::LOCALHOST.into())), port(port_value).unwrap_or(Port::MIN));
    let mut checks = Vec::new();
    for (n, item) in fields.get("checks").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let Some(object) = item.as_object() else { continue };
        checks.extend(check::read(object, (&place.0, place.1), &format!("{path}.checks[{n}]"), report));
    }
    if fields.get("check_mocked").and_then(Value::as_bool) == Some(true) {
        checks = Vec::<CheckConf>::new();
    }
    let targets = targets(fields, &path, report);
    let payload = payload(fields, instance, weight);
    if payload.len() > MAX_VALUE_BYTES {
        let why = format!(
            "would be {} bytes long in the registry; no reader takes more than {MAX_VALUE_BYTES}",
            payload.len()
        );
        report.error(&path, why);
    }
    if report.errors.len() > before {
        return None;
    }
    let (host, port) = (host?, port(port_value)?);
    Some(Service {
        name: name.into(),
        address: host.with_port(port),
        payload,
        interval: interval?,
        checks,
        first_result: fields.get("nerve_first_result").and_then(Value::as_bool).unwrap_or(false),
        limit,
        targets,
    })
}

/// Nerve's object, its keys in Nerve's order.
fn payload(fields: &Map<String, Value>, instance: &str, weight: Option<u64>) -> Payload {
    let mut object = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(key.to_owned(), value);
        }
    };
    put("host", fields.get("host").cloned());
    put("port", fields.get("port").cloned());
    put("name", Some(instance.into()));
    put("weight", weight.map(Value::from));
    put("haproxy_server_options", fields.get("haproxy_server_options").cloned());
    put("labels", fields.get("labels").cloned());
    Arc::from(Value::Object(object).to_string())
}

fn limit(value: Option<&Value>) -> Limit {
    let Some(value) = value else { return Limit::default() };
    let number = |key: &str| value[key].as_f64().unwrap_or(f64::INFINITY);
    Limit {
        shadow: value["shadow_mode"].as_bool().unwrap_or(true),
        average: number("average_rate"),
        burst: number("max_burst"),
    }
}

/// Every reporter: of each entry of `reporters`, or of the service itself, one for each word of `reporter_type`.
fn targets(fields: &Map<String, Value>, path: &str, report: &mut Report) -> Vec<AnyTarget> {
    let mut targets = Vec::new();
    let mut of = |fields: &Map<String, Value>, path: &str| {
        let words: Vec<String> = match fields.get("reporter_type").and_then(Value::as_array) {
            Some(words) => words.iter().filter_map(|w| w.as_str().map(str::to_owned)).collect(),
            None => vec!["zookeeper".to_owned()],
        };
        for word in words {
            let reading = Reading { fields, path, report };
            targets.extend(AnyTarget::read(&word, reading));
        }
    };
    match fields.get("reporters").and_then(Value::as_array) {
        None => of(fields, path),
        Some(entries) => {
            for (n, entry) in entries.iter().enumerate() {
                let mut laid_over = fields.clone();
                laid_over.extend(entry.as_object().cloned().unwrap_or_default());
                of(&laid_over, &format!("{path}.reporters[{n}]"));
            }
        }
    }
    targets.sort();
    targets.dedup();
    targets
}
