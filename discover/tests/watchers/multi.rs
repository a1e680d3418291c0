//! `method: multi` and its resolvers, over files: what a file's watcher does when it fails is known from its own tests.

use std::path::PathBuf;

use discover::watchers::About;
use discover::watchers::group::{FIRST_WITHIN, Resolution, Seen};
use discover::watchers::multi::{Ask, RESOLVERS};
use tokio::time::{Instant, advance};

use super::*;

/// A service whose watchers read one file each.
pub struct Files {
    dir: tempfile::TempDir,
    pub names: Vec<&'static str>,
}

impl Files {
    pub fn new(names: &[&'static str]) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), names: names.to_vec() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.json"))
    }

    pub fn write(&self, name: &str, backends: &Value) {
        let new = self.dir.path().join(format!(".{name}"));
        std::fs::write(&new, backends.to_string()).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    /// Its file is none any more, until it is written again.
    fn spoil(&self, name: &str) {
        self.write(name, &json!(7));
    }

    pub fn discovery(&self, resolver: Value) -> Value {
        let watcher = |name: &&str| ((*name).to_owned(), json!({"method": "file", "path": self.path(name)}));
        let watchers: serde_json::Map<String, Value> = self.names.iter().map(watcher).collect();
        json!({"method": "multi", "watchers": watchers, "resolver": resolver})
    }
}

#[tokio::test]
async fn multi_union_has_what_any_watcher_has() {
    let files = Files::new(&["old", "new"]);
    files.write("old", &json!([{"host": "10.0.0.1", "port": 80, "name": "nerve"}, {"host": "10.0.0.2", "port": 80}]));
    files
        .write("new", &json!([{"host": "10.0.0.1", "port": 80, "name": "register"}, {"host": "10.0.0.3", "port": 80}]));
    let mut context = context();
    let watcher = method(files.discovery(json!({"method": "union"}))).watcher(&mut context);
    let shown: Vec<String> = context.shown().iter().map(|source| source.name.to_string()).collect();
    assert_eq!(shown, ["web/old", "web/new"], "each one's standing and age is shown");
    let mut watching = Running::boxed(watcher);
    let snapshot = watching.until_web(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]).await;
    let pool = snapshot.services["web"].backends();
    assert_eq!(
        (pool.len(), pool[0].name.as_deref()),
        (3, Some("nerve")),
        "of two at one address the earlier watcher's"
    );
    // One that fails keeps what it said, and the other goes on.
    files.spoil("old");
    files.write("new", &json!(["10.0.0.4:80"]));
    watching.until_web(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.4:80"]).await;
    assert_eq!(watching.inlet.borrow().standing(), "synced", "healthy if any is");
    files.spoil("new");
    watching.until_seen("stale", |seen| seen.error().is_some_and(|e| e.starts_with("watcher old: "))).await;
    files.write("old", &json!([]));
    watching.until_web(&["10.0.0.4:80"]).await;
    watching.end().await;
}

#[tokio::test]
async fn multi_watchers_have_keys_and_filters_of_their_own() {
    let files = Files::new(&["a", "b"]);
    for (name, host) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
        files.write(name, &json!([{"targets": [format!("{host}:80")], "labels": {"az": "x"}}, format!("{host}:81")]));
    }
    let mut discovery = files.discovery(json!({"method": "union"}));
    discovery["watchers"]["a"]["label_filters"] = json!({"label": "az", "value": "x", "condition": "equals"});
    let mut watching = Running::of(discovery.clone());
    watching.until_web(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.2:81"]).await;
    watching.end().await;
    discovery["watchers"]["b"]["check_interval"] = json!("soon");
    let error = refused(discovery);
    assert!(error.contains("services.web.discovery.watchers.b.check_interval: "), "{error}");
}

#[tokio::test]
async fn discovery_multi_adds_watchers_to_the_primary_one() {
    let files = Files::new(&["primary", "second"]);
    files.write("primary", &json!(["10.0.0.1:80"]));
    files.write("second", &json!(["10.0.0.2:80"]));
    let all = files.discovery(json!({"method": "union"}));
    let service = json!({
        "discovery": all["watchers"]["primary"],
        "discovery_multi": {"watchers": {"second": all["watchers"]["second"]}, "resolver": {"method": "union"}},
    });
    let mut watching = Running::boxed(try_method(service).unwrap().watcher(&mut context()));
    watching.until_web(&["10.0.0.1:80", "10.0.0.2:80"]).await;
    watching.end().await;
}

#[test]
fn multi_names_what_is_wrong() {
    let files = Files::new(&["a", "b"]);
    for (resolver, why) in [
        (json!({}), "resolver.method: \"\" is not known; known are base, union, sequential, fallback, s3_toggle"),
        (
            json!({"method": "sequential", "sequential_order": ["a"]}),
            "resolver.sequential_order: must name each of these watchers once: a, b",
        ),
        (json!({"method": "fallback", "fallback_order": ["a", "a"]}), "resolver.fallback_order: must name each"),
        (json!({"method": "s3_toggle", "s3_url": "http://x"}), "resolver.s3_url: \"http://x\" is not s3://BUCKET/KEY"),
        (json!({"method": "s3_toggle", "s3_url": "s3://b/k"}), "resolver.s3_polling_interval_seconds: is required"),
    ] {
        let error = refused(files.discovery(resolver.clone()));
        assert!(error.contains(&format!("services.web.discovery.{why}")), "{resolver}: {error}");
    }
    let error = refused(json!({"method": "multi", "resolver": {"method": "union"}}));
    assert!(error.contains("discovery.watchers: is required"), "{error}");
    let error =
        refused(json!({"method": "multi", "resolver": {"method": "union"}, "watchers": {"a": {"method": "file"}}}));
    assert!(error.contains("discovery.watchers.a.path: is required"), "{error}");
}

fn ask(keys: Value, seen: &[Seen], started: Instant) -> Option<(Vec<String>, &'static str)> {
    let names: Vec<Arc<str>> = vec!["a".into(), "b".into()];
    let about = About { service: "web".parse().unwrap(), port: None, source: "web".into() };
    let keys = keys.as_object().unwrap().clone();
    let word = keys["method"].as_str().unwrap();
    let (_, make) = RESOLVERS.iter().find(|(known, _)| *known == word).unwrap();
    let mut resolver = make(&Ask { keys: &keys, names: &names, about: &about }).unwrap();
    match resolver.resolve(seen, started, Instant::now()) {
        Resolution::Wait { .. } => None,
        Resolution::Tell { snapshot, standing } => {
            Some((web(&snapshot), if format!("{standing:?}") == "Synced" { "synced" } else { "stale" }))
        }
    }
}

/// What is known of watcher `name`: `None` is silence; a backend's last byte, 0 being none at all.
fn seen(name: &str, host: Option<u8>, stale: Option<Duration>) -> Seen {
    let snapshot = host.map(|host| {
        let backend = |host: u8| {
            let map = json!({"host": format!("10.0.0.{host}"), "port": 80});
            Arc::new(discover::synapse::registration::read(map.as_object().unwrap(), None).unwrap())
        };
        let pool = Arc::new((host > 0).then(|| backend(host)).into_iter().collect());
        Arc::new(Snapshot { services: [("web".parse().unwrap(), pool)].into(), ..Snapshot::default() })
    });
    let observation = match (snapshot, stale) {
        (None, None) => Observation::Pending { error: None },
        (None, Some(_)) => Observation::Pending { error: Some("refused".into()) },
        (Some(snapshot), None) => Observation::Synced { snapshot },
        (Some(snapshot), Some(ago)) => {
            Observation::Stale { snapshot, since: Instant::now() - ago, error: "cut".into() }
        }
    };
    Seen { name: name.into(), observation }
}

const SHORT: Option<Duration> = Some(Duration::from_secs(3));
const LONG: Option<Duration> = Some(Duration::from_secs(60));

#[tokio::test(start_paused = true)]
async fn multi_sequential_passes_on_when_a_watcher_fails() {
    advance(Duration::from_secs(600)).await;
    let started = Instant::now();
    let order = json!({"method": "sequential", "sequential_order": ["b", "a"]});
    let ask = |a: Seen, b: Seen| ask(order.clone(), &[a, b], started);
    let of = |host: u8, standing| Some((vec![format!("10.0.0.{host}:80")], standing));
    assert_eq!(ask(seen("a", Some(1), None), seen("b", Some(2), None)), of(2, "synced"));
    assert_eq!(ask(seen("a", Some(1), None), seen("b", Some(0), None)), of(1, "synced"), "it has none");
    assert_eq!(ask(seen("a", Some(1), None), seen("b", Some(2), SHORT)), of(2, "stale"), "not for a moment's failure");
    assert_eq!(ask(seen("a", Some(1), None), seen("b", Some(2), LONG)), of(1, "synced"));
    assert_eq!(ask(seen("a", Some(0), None), seen("b", Some(2), LONG)), of(2, "stale"), "stale beats empty");
    assert_eq!(ask(seen("a", Some(1), None), seen("b", None, None)), None, "the preferred one may still answer");
    assert_eq!(ask(seen("a", Some(1), None), seen("b", None, SHORT)), of(1, "synced"), "it has said why not");
    assert_eq!(ask(seen("a", None, None), seen("b", None, SHORT)), None);
    let half = || ask(seen("a", Some(0), None), seen("b", None, SHORT));
    assert_eq!(half(), None, "while one has not answered nobody says that there is none");
    advance(FIRST_WITHIN).await;
    assert_eq!(half(), Some((vec![], "synced")));
    assert_eq!(ask(seen("a", Some(1), None), seen("b", None, None)), of(1, "synced"), "long enough");
}

#[tokio::test(start_paused = true)]
async fn multi_fallback_passes_on_only_when_a_watcher_has_no_backend() {
    advance(Duration::from_secs(600)).await;
    let started = Instant::now();
    let ask = |keys: Value, a: Seen, b: Seen| ask(keys, &[a, b], started);
    let plain = || json!({"method": "fallback"});
    let of = |host: u8, standing| Some((vec![format!("10.0.0.{host}:80")], standing));
    assert_eq!(ask(plain(), seen("a", Some(1), None), seen("b", Some(2), None)), of(1, "synced"));
    assert_eq!(ask(plain(), seen("a", Some(1), LONG), seen("b", Some(2), None)), of(1, "stale"), "though it fails");
    assert_eq!(ask(plain(), seen("a", Some(0), None), seen("b", Some(2), None)), of(2, "synced"));
    assert_eq!(ask(plain(), seen("a", Some(0), None), seen("b", Some(0), None)), Some((vec![], "synced")));
    let reversed = json!({"method": "fallback", "fallback_order": ["b", "a"]});
    assert_eq!(ask(reversed, seen("a", Some(1), None), seen("b", Some(2), None)), of(2, "synced"));
    let base = json!({"method": "base"});
    assert_eq!(ask(base, seen("a", Some(1), None), seen("b", Some(2), None)), Some((vec![], "synced")));
}
