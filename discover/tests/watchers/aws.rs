//! `method: ec2tag` and the resolver `s3_toggle`, against moto's server: a real EC2 and S3 API on loopback.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use testing::aws::{AwsApi, page};
use testing::free_port;
use testing::gate::{Gate, Way};
use testing::watch_contract::{Breakage, Order, Rig, keeps_the_contract};

use super::*;

/// moto's server; ended when it is dropped.
struct Moto {
    child: Child,
    port: u16,
}

impl Moto {
    async fn start() -> Self {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/moto.sh");
        let made = Command::new("bash").arg(&lab).output().unwrap();
        assert!(made.status.success(), "deploy/moto.sh: {}", String::from_utf8_lossy(&made.stderr));
        let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab/moto/bin/moto_server");
        let port = free_port();
        let mut command = Command::new(server);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moto = Self { child, port };
        let up = async {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(60), up).await.expect("moto's server does not come up");
        moto
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A request as any client of AWS makes it; moto does not check signatures, but reads region and service from them.
    fn ask(&self, service: &str, method: &str, path: &str, body: &str) -> String {
        let kind = if service == "s3" { "text/plain" } else { "application/x-www-form-urlencoded" };
        let region = if service == "s3" { "us-east-1" } else { "eu-west-1" }; // a bucket's region needs no naming there
        let scope = format!("Credential=test/20260101/{region}/{service}/aws4_request");
        let client = testing::http_once(
            self.port,
            &format!(
                "{method} /{path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: AWS4-HMAC-SHA256 {scope}, \
                 SignedHeaders=host, Signature=0\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                self.port,
                body.len()
            ),
        );
        assert!(client.starts_with("HTTP/1.1 2"), "{method} {path} {body}: {client}");
        client
    }

    fn run_instances(&self, count: usize, tag: &str) -> Vec<(String, String)> {
        let body = format!(
            "Action=RunInstances&Version=2016-11-15&ImageId=ami-12c6146b&MinCount={count}&MaxCount={count}\
             &TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=role&TagSpecification.1.Tag.1.Value={tag}"
        );
        let answer = self.ask("ec2", "POST", "", &body);
        let all = |name: &str| -> Vec<String> {
            let (open, close) = (format!("<{name}>"), format!("</{name}>"));
            answer.split(&open).skip(1).filter_map(|part| part.split(&close).next()).map(str::to_owned).collect()
        };
        let mut addresses = all("privateIpAddress");
        addresses.dedup(); // each is named again with its interface
        all("instanceId").into_iter().zip(addresses).collect()
    }

    fn terminate(&self, id: &str) {
        self.ask("ec2", "POST", "", &format!("Action=TerminateInstances&Version=2016-11-15&InstanceId.1={id}"));
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn service(url: &str, more: Value) -> Value {
    let mut discovery = json!({
        "method": "ec2tag", "tag_name": "role", "tag_value": "web", "aws_region": "eu-west-1", "aws_endpoint_url": url,
        "aws_access_key_id": "test", "aws_secret_access_key": "test", "check_interval": 0.3,
    });
    discovery.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"discovery": discovery, "backend_port_override": 8080})
}

struct Ec2Rig {
    moto: Moto,
    gate: Gate,
    url: String,
    history: History,
    at: BTreeMap<(String, String), (String, String)>,
}

impl Ec2Rig {
    fn note(&mut self) {
        let all = self.at.values().map(|(_, address)| format!("{address}:8080")).collect();
        self.history.record(|pools| drop(pools.insert("web".to_owned(), all)));
    }

    fn stop(&mut self, service: &str, name: &str) {
        let Some((id, _)) = self.at.remove(&(service.to_owned(), name.to_owned())) else { return };
        self.note();
        self.moto.terminate(&id);
    }
}

impl Rig for Ec2Rig {
    type Watcher = Boxed;

    fn watcher(&self) -> Boxed {
        Boxed(try_method(service(&self.url, json!({}))).unwrap().watcher(&mut context()))
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        for (service, name) in backends {
            self.stop(service, name);
        }
        // They run before anybody can note them: by another tag at first.
        let started = self.moto.run_instances(backends.len(), "new");
        let pairs = backends.iter().map(|(s, n)| ((*s).to_owned(), (*n).to_owned()));
        let ids: Vec<String> = started.iter().map(|(id, _)| id.clone()).collect();
        self.at.extend(pairs.zip(started));
        self.note();
        let resources: String = ids.iter().enumerate().map(|(n, id)| format!("&ResourceId.{}={id}", n + 1)).collect();
        self.moto.ask(
            "ec2",
            "POST",
            "",
            &format!("Action=CreateTags&Version=2016-11-15{resources}&Tag.1.Key=role&Tag.1.Value=web"),
        );
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.stop(service, name);
    }

    async fn break_off(&mut self, how: Breakage) {
        self.gate.set(if how == Breakage::Fail { Way::Closed } else { Way::Silent });
    }

    async fn mend(&mut self) {
        self.gate.set(Way::Open);
    }

    fn history(&self) -> &History {
        &self.history
    }

    fn order(&self) -> Order {
        Order::EachBackend // a change of several instances is several changes
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(40)
    }

    fn quiet(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[tokio::test]
async fn ec2tag_keeps_the_contract() {
    let moto = Moto::start().await;
    let (gate, address) = Gate::tcp(([127, 0, 0, 1], moto.port).into()).await;
    let url = format!("http://{address}");
    keeps_the_contract(&mut Ec2Rig { moto, gate, url, history: History::default(), at: BTreeMap::new() }).await;
}

#[tokio::test]
async fn ec2tag_finds_running_instances_by_their_tag() {
    let moto = Moto::start().await;
    let web_ones = moto.run_instances(2, "web");
    moto.run_instances(1, "other");
    let stopped = moto.run_instances(1, "web");
    moto.ask("ec2", "POST", "", &format!("Action=StopInstances&Version=2016-11-15&InstanceId.1={}", stopped[0].0));
    let mut watching = Running::boxed(try_method(service(&moto.url(), json!({}))).unwrap().watcher(&mut context()));
    let snapshot = watching.until("both", |s| web(s).len() == 2).await;
    let mut want: Vec<String> = web_ones.iter().map(|(_, address)| format!("{address}:8080")).collect();
    want.sort();
    assert_eq!(web(&snapshot), want);
    let name = snapshot.services["web"].backends()[0].name.clone().unwrap();
    assert!(name.starts_with("ip-10-"), "the private DNS name: {name}");
    watching.end().await;
    for (discovery, why) in [
        (json!({"tag_name": null}), "tag_name: is required"),
        (json!({"aws_region": "eu west"}), "aws_region: \"eu west\" is no region"),
        (json!({"aws_endpoint_url": "nonsense"}), "aws_endpoint_url: \"nonsense\""),
    ] {
        let error = try_method(service(&moto.url(), discovery)).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let mut portless = service(&moto.url(), json!({}));
    portless.as_object_mut().unwrap().remove("backend_port_override");
    assert!(try_method(portless).unwrap_err().contains("backend_port_override"));
}

#[test]
fn ec2tag_credentials_come_from_the_config_or_the_standard_chain() {
    // Without both the chain is asked when it runs; see aws_chain.rs.
    for chain in
        [json!({"aws_secret_access_key": null}), json!({"aws_secret_access_key": null, "aws_access_key_id": null})]
    {
        try_method(service("http://127.0.0.1:1", chain)).unwrap();
    }
}

/// A watcher of the scripted EC2, and it.
async fn asking(answers: Vec<(u16, String)>, more: Value) -> (AwsApi, Running) {
    let api = AwsApi::start().await;
    api.answer(answers);
    let watching = Running::boxed(try_method(service(&api.url(), more)).unwrap().watcher(&mut context()));
    (api, watching)
}

#[tokio::test]
async fn ec2tag_takes_every_page_or_none_and_leaves_out_what_has_no_address() {
    let pages = vec![page(&["10.0.0.1"], "two"), page(&["10.0.0.2", ""], "three"), page(&["10.0.0.3"], "")];
    let (api, mut watching) = asking(pages, json!({"check_interval": 600})).await;
    let snapshot = watching.until_web(&["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]).await;
    assert_eq!(left_out(&snapshot), ["web: i-: has no private address"]);
    let asked = api.asked();
    assert!(asked[0].uri.contains("Filter.1.Name=tag%3Arole") && asked[2].uri.contains("NextToken=three"), "{asked:?}");
    watching.end().await;
    // The same page for ever; and an answer that is none after a page that is.
    for (answers, why) in [
        (vec![page(&["10.0.0.1"], "again")], "the same page comes again"),
        (vec![page(&["10.0.0.1"], "two"), (200, "<html/>".to_owned())], "lists no instances"),
    ] {
        let (_api, mut watching) = asking(answers, json!({})).await;
        let seen = watching.until_seen("an error", |seen| seen.error().is_some()).await;
        assert!(seen.snapshot().is_none() && seen.error().unwrap().contains(why), "{seen:?}");
        watching.end().await;
    }
}

#[tokio::test]
async fn ec2tag_gives_up_on_thousands_of_pages_and_keeps_what_it_knew() {
    let (api, mut watching) = asking(vec![page(&["10.0.0.1"], "")], json!({})).await;
    watching.until_web(&["10.0.0.1:8080"]).await;
    let endless = (0..3_000).map(|n| page(&["10.0.0.2"], &format!("page-{n}")));
    api.answer(endless.collect());
    let seen = watching.until_seen("an error", |seen| seen.error().is_some()).await;
    assert!(seen.error().unwrap().contains("more than 200 pages of instances"), "{seen:?}");
    assert_eq!(web(seen.snapshot().unwrap()), ["10.0.0.1:8080"], "stale beats partial");
    // A thousand instances in one answer are no trouble.
    let many: Vec<String> = (0..1_000).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect();
    api.run(&many);
    watching.until("all of them", |s| web(s).len() == 1_000).await;
    watching.end().await;
}

#[tokio::test]
async fn ec2tag_holds_off_when_it_is_throttled() {
    let refusal = "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Slow down.</Message></Error></Errors></Response>";
    let answers = vec![(503, refusal.to_owned()), page(&["10.0.0.1"], "")];
    let (api, mut watching) = asking(answers, json!({"check_interval": 1.5})).await;
    let seen = watching.until_seen("an error", |seen| seen.error().is_some()).await;
    assert!(seen.error().unwrap().contains("RequestLimitExceeded"), "{seen:?}");
    watching.until_web(&["10.0.0.1:8080"]).await;
    let gap = api.asked().windows(2).map(|two| two[1].at - two[0].at).next().unwrap();
    assert!(gap >= Duration::from_millis(1500), "asked again too soon: {gap:?}");
    watching.end().await;
}

#[tokio::test]
async fn multi_s3_toggle_draws_a_watcher_when_the_weights_change() {
    let moto = Moto::start().await;
    moto.ask("s3", "PUT", "toggles", "");
    let dir = tempfile::tempdir().unwrap();
    let mut watchers = serde_json::Map::new();
    for (name, address) in [("zk", "10.0.0.1:80"), ("etcd", "10.0.0.2:80"), ("primary", "10.0.0.3:80")] {
        let path = dir.path().join(format!("{name}.json"));
        std::fs::File::create(&path).unwrap().write_all(json!([address]).to_string().as_bytes()).unwrap();
        watchers.insert(name.to_owned(), json!({"method": "file", "path": path}));
    }
    let resolver = json!({
        "method": "s3_toggle", "s3_url": "s3://toggles/web/weights.yaml", "s3_polling_interval_seconds": 0.2, "aws_region": "us-east-1",
        "aws_endpoint_url": moto.url(), "aws_access_key_id": "test", "aws_secret_access_key": "test",
    });
    let mut watching = Running::of(json!({"method": "multi", "watchers": watchers, "resolver": resolver}));
    watching.until_web(&["10.0.0.3:80"]).await; // no object yet: `primary`
    let put = |text: &str| moto.ask("s3", "PUT", "toggles/web/weights.yaml", text);
    put("zk: 100\netcd: 0\n");
    watching.until_web(&["10.0.0.1:80"]).await;
    put("zk: 0\netcd: 1\n");
    watching.until_web(&["10.0.0.2:80"]).await;
    put("etcd: much\n");
    moto.ask("s3", "DELETE", "toggles/web/weights.yaml", "");
    put("zk: 0\netcd: 1\nprimary: 0\n"); // other weights, one possible draw
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(web(watching.inlet.borrow().snapshot().unwrap()), ["10.0.0.2:80"], "the last draw stays");
    watching.end().await;
}
