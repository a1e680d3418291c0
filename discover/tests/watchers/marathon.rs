//! `method: marathon`, against a server of the tests' own that answers as Marathon's API is documented.

use testing::gate::{Gate, Way};
use testing::marathon::{Marathon, task};
use testing::watch_contract::{Breakage, Rig, keeps_the_contract};
use tokio::time::Instant;

use super::*;

fn discovery(url: &str, more: Value) -> Value {
    let mut all = json!({"method": "marathon", "marathon_api_url": url, "application_name": "/group/web"});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

struct MarathonRig {
    marathon: Marathon,
    gate: Gate,
    url: String,
    named: Named,
}

impl MarathonRig {
    fn tell(&self) {
        let tasks = self.named.at.iter().map(|((service, name), address)| {
            let (host, port) = address.rsplit_once(':').unwrap();
            task(&format!("{service}.{name}"), host, port.parse().unwrap())
        });
        self.marathon.set("/group/web", tasks.collect(), false);
    }
}

impl Rig for MarathonRig {
    type Watcher = Boxed;

    fn watcher(&self) -> Boxed {
        Boxed(method(discovery(&self.url, json!({"check_interval": 0.5}))).watcher(&mut context()))
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        self.named.put(backends, |n| format!("10.0.{}.{}:31000", n / 250, n % 250 + 1));
        self.tell();
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.named.remove(service, name);
        self.tell();
    }

    async fn break_off(&mut self, how: Breakage) {
        self.gate.set(if how == Breakage::Fail { Way::Closed } else { Way::Silent });
    }

    async fn mend(&mut self) {
        self.gate.set(Way::Open);
    }

    fn history(&self) -> &History {
        &self.named.history
    }

    fn quiet(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[tokio::test]
async fn marathon_keeps_the_contract() {
    let marathon = Marathon::start().await;
    let (gate, address) = Gate::tcp(([127, 0, 0, 1], marathon.port()).into()).await;
    let rig = MarathonRig { marathon, gate, url: format!("http://{address}"), named: Named::default() };
    rig.tell();
    let mut rig = rig;
    keeps_the_contract(&mut rig).await;
}

#[tokio::test]
async fn marathon_lists_the_started_tasks_of_an_application() {
    let marathon = Marathon::start().await;
    let mut two = task("two", "10.0.0.2", 31002);
    two["ports"] = json!([31002, 32002]);
    let mut staged = task("staged", "10.0.0.3", 31003);
    staged["startedAt"] = Value::Null;
    marathon.set("/group/web", vec![task("one", "10.0.0.1", 31001), two, staged], false);
    let mut first = Running::of(discovery(&marathon.url(), json!({})));
    let snapshot = first.until_web(&["10.0.0.1:31001", "10.0.0.2:31002"]).await;
    assert_eq!(snapshot.services["web"].backends()[0].name.as_deref(), Some("10.0.0.1"), "as Synapse: the host");
    let mut second = Running::of(discovery(&marathon.url(), json!({"port_index": 1})));
    let snapshot = second.until_web(&["10.0.0.2:32002"]).await;
    assert_eq!(left_out(&snapshot), ["web: one: has no port of index 1"]);
    let mut none = Running::of(discovery(&marathon.url(), json!({"application_name": "nothing"})));
    none.until("an answer: there is none", |s| s.services["web"].is_empty()).await;
    let mut elsewhere = Running::of(discovery(&marathon.url(), json!({"marathon_api_path": "/mesos/%{app}"})));
    marathon.set("/mesos/group/web", vec![task("else", "10.0.0.9", 31009)], true);
    elsewhere.until_web(&["10.0.0.9:31009"]).await;
    for watching in [first, second, none, elsewhere] {
        watching.end().await;
    }
}

#[tokio::test]
async fn marathon_events_come_before_the_period_and_one_stream_serves_all() {
    let marathon = Marathon::start().await;
    marathon.set("/group/web", vec![], true);
    let mut shared = context();
    let slow = discovery(&marathon.url(), json!({"check_interval": 600}));
    let mut watching: Vec<Running> =
        (0..3).map(|_| Running::boxed(method(slow.clone()).watcher(&mut shared))).collect();
    drop(shared);
    for one in &mut watching {
        one.until("an answer", |_| true).await;
    }
    // Each looks once more when the stream begins. An open stream alone does not say that they have: such a look could come later.
    let settled = async {
        while marathon.asked("/tasks") < 6 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, settled).await.unwrap();
    let began = Instant::now();
    marathon.set("/group/web", vec![task("one", "10.0.0.1", 31001)], false);
    for one in &mut watching {
        one.until_web(&["10.0.0.1:31001"]).await;
    }
    assert!(began.elapsed() < Duration::from_secs(10), "the period is ten minutes");
    assert_eq!((marathon.streams(), marathon.asked("/v2/events"), marathon.asked("/tasks")), (1, 1, 9));
    // Of another application nothing is asked.
    marathon.set("/other", vec![], false);
    marathon.set("/group/web", vec![], false);
    for one in &mut watching {
        one.until_web(&[]).await;
    }
    assert_eq!(marathon.asked("/tasks"), 12);
    for one in watching {
        one.end().await;
    }
    let closed = async {
        while marathon.streams() > 0 {
            marathon.set("/other", vec![], false); // a closed one is noticed by sending
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, closed).await.expect("the stream outlives its watchers");
}

#[tokio::test]
async fn marathon_has_several_urls_and_either_authentication() {
    let (first, second) = (Marathon::start().await, Marathon::start().await);
    for marathon in [&first, &second] {
        marathon.set("/group/web", vec![task("one", "10.0.0.1", 31001)], true);
    }
    first.break_down(true);
    let urls = json!([first.url(), second.url()]);
    let mut watching = Running::of(discovery("", json!({"marathon_api_url": urls, "check_interval": 0.1})));
    watching.until_web(&["10.0.0.1:31001"]).await;
    first.break_down(false);
    second.break_down(true);
    first.set("/group/web", vec![task("two", "10.0.0.2", 31002)], true);
    watching.until_web(&["10.0.0.2:31002"]).await;
    watching.end().await;
    // "user:secret", in base 64.
    first.ask_for("Basic dXNlcjpzZWNyZXQ=");
    let with_user = format!("http://user:secret@127.0.0.1:{}", first.port());
    let mut watching = Running::of(discovery(&with_user, json!({})));
    watching.until_web(&["10.0.0.2:31002"]).await;
    watching.end().await;
    first.ask_for("token=abc");
    let mut watching = Running::of(discovery(&with_user, json!({})));
    let seen = watching.until_seen("refused", |seen| seen.error().is_some()).await;
    assert!(seen.error().unwrap().contains("401") && !seen.error().unwrap().contains("secret"), "{seen:?}");
    watching.end().await;
    let plain = first.url().replace("http://", ""); // HOST:PORT does, as Synapse has it
    let mut watching = Running::of(discovery(&plain, json!({"marathon_authorization": "token=abc"})));
    watching.until_web(&["10.0.0.2:31002"]).await;
    watching.end().await;
    for (more, why) in [
        (json!({"marathon_api_url": null}), "marathon_api_url: is required"),
        (json!({"marathon_api_url": "ftp://host:80"}), "marathon_api_url: \"ftp://host:80\""),
        (json!({"application_name": "a b"}), "application_name: \"a b\" is no application's id"),
        (json!({"application_name": null}), "application_name: is required"),
    ] {
        let error = refused(discovery("http://h", more));
        assert!(error.contains(why), "{error}");
    }
}
