//! The container source against the Docker daemon of this host.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent::watch::{self, Inlet, Observation, Watcher};
use containers::docker::{Containers, Docker, DockerSource, Endpoint, Event, EventKind, Options, Scope};
use model::desired::{self, Health, Settings};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Containers of this test, removed with it.
struct Mine {
    image: String,
    prefix: String,
    names: Vec<String>,
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Mine {
    fn new(test: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/base-image.sh");
        let output = Command::new("bash").arg(script).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let image = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        Self { image, prefix: format!("dr-{test}-{}", std::process::id()), names: Vec::new() }
    }

    fn run(&mut self, options: &[&str], command: &[&str]) -> String {
        let name = format!("{}-{}", self.prefix, self.names.len());
        self.names.push(name.clone());
        docker(&[&["run", "-d", "--name", &name], options, &[&self.image], command].concat());
        name
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("docker").args(["rm", "-f", name]).output();
        }
    }
}

struct Lab {
    docker: Docker,
    inlet: Inlet<Containers>,
    events: mpsc::Receiver<Event>,
    cancel: CancellationToken,
}

impl Lab {
    async fn start() -> Self {
        let endpoint = Endpoint::from_env(|name| std::env::var(name).ok()).unwrap();
        let docker = Docker::new(&endpoint).unwrap();
        let (out, mut inlet) = watch::channel();
        let (sender, events) = mpsc::channel(4096);
        let cancel = CancellationToken::new();
        let source = DockerSource::new(docker.clone(), Options::default()).with_events(sender);
        tokio::spawn(source.run(out, cancel.clone()));
        let synced = inlet.wait_for(|o| matches!(o, Observation::Synced { .. }));
        tokio::time::timeout(Duration::from_secs(10), synced).await.unwrap().unwrap();
        Self { docker, inlet, events, cancel }
    }

    async fn until(&mut self, what: &str, so: impl Fn(&Containers) -> bool) {
        let wait = self.inlet.wait_for(|o| o.snapshot().is_some_and(|s| so(s)));
        assert!(tokio::time::timeout(Duration::from_secs(30), wait).await.is_ok(), "not seen within 30 s: {what}");
    }

    /// The next event of this kind.
    async fn event(&mut self, id: &str, wanted: impl Fn(EventKind) -> bool) -> Event {
        let wait = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if event.container.as_str() == id && wanted(event.kind) {
                    return event;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn has(snapshot: &Containers, name: &str) -> bool {
    snapshot.running.values().any(|c| c.name == name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_containers_life_is_seen_as_it_happens() {
    let mut mine = Mine::new("life");
    let mut lab = Lab::start().await;
    let name = mine.run(
        &[
            "-p",
            "127.0.0.1::80",
            "-p",
            "53/udp",
            "--label",
            "register.80.service=front",
            "-e",
            "A=b=c",
            "--stop-timeout",
            "3",
        ],
        &["sh", "-c", "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.1; done"],
    );
    lab.until("the container", |s| has(s, &name)).await;
    let snapshot = lab.inlet.borrow().snapshot().unwrap().clone();
    let container = snapshot.running.values().find(|c| c.name == name).unwrap().clone();
    assert_eq!((container.env["A"].as_str(), container.stop_timeout.as_secs()), ("b=c", 3));
    assert!(container.pid.is_some() && container.health.is_none());
    let id = container.id.as_str().to_owned();

    let settings =
        Settings { host_ip: Some("192.0.2.1".parse().unwrap()), allow_loopback: true, ..Settings::default() };
    let decisions = desired::decide(&[(container.id.clone(), container.clone())].into(), &settings);
    let shown: Vec<String> = decisions.iter().map(ToString::to_string).collect();
    assert_eq!(decisions.len(), 2, "{shown:#?}");
    let published = docker(&["port", &name, "80/tcp"]);
    let front = decisions[1].candidate().unwrap();
    assert_eq!((front.service.as_str(), front.backend.address()), ("front", published));
    assert!(front.dial.unwrap().to_string().ends_with(":80"));

    docker(&["pause", &name]);
    lab.until("the pause", |s| s.running.values().any(|c| c.name == name && c.state == desired::State::Paused)).await;
    docker(&["unpause", &name]);
    docker(&["rename", &name, &format!("{name}-new")]);
    mine.names.push(format!("{name}-new"));
    lab.until("the rename", |s| has(s, &format!("{name}-new"))).await;

    let stopping = tokio::task::spawn_blocking({
        let id = id.clone();
        move || docker(&["stop", &id])
    });
    lab.event(&id, |kind| kind == EventKind::Kill { signal: Some(15) }).await;
    let killed = Instant::now();
    assert!(
        has(lab.inlet.borrow().snapshot().unwrap(), &format!("{name}-new")),
        "it still runs when the signal is told"
    );
    lab.until("the end", |s| !has(s, &format!("{name}-new"))).await;
    println!("kill was told {:?} before the container was gone", killed.elapsed());
    assert!(killed.elapsed() > Duration::from_millis(500), "the grace period lies in between");
    stopping.await.unwrap();

    let stopped = lab.docker.inspect(&container.id).await.unwrap().unwrap();
    assert_eq!(stopped.state, desired::State::Exited);
    assert!(lab.docker.list(Scope::All).await.unwrap().iter().any(|c| c.id == id));
    docker(&["start", &id]);
    lab.until("the next run", |s| has(s, &format!("{name}-new"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthcheck_and_networks_are_followed_and_exec_tells_its_status() {
    let mut mine = Mine::new("health");
    let mut lab = Lab::start().await;
    let name = mine.run(
        &["--health-cmd", "test -e /tmp/ok", "--health-interval", "300ms", "--health-retries", "1"],
        &["sleep", "300"],
    );
    let health = |s: &Containers| s.running.values().find(|c| c.name == name).and_then(|c| c.health);
    lab.until("unhealthy", |s| health(s) == Some(Health::Unhealthy)).await;
    let id = lab.inlet.borrow().snapshot().unwrap().running.values().find(|c| c.name == name).unwrap().id.clone();
    let command = |text: &str| ["sh", "-c", text].map(str::to_owned);
    let patience = Duration::from_secs(5);
    let (status, output) = lab.docker.exec(&id, &command("touch /tmp/ok; echo done; exit 3"), patience).await.unwrap();
    assert_eq!((status, String::from_utf8_lossy(&output).contains("done")), (3, true));
    lab.until("healthy", |s| health(s) == Some(Health::Healthy)).await;

    let network = format!("{name}-net");
    docker(&["network", "create", &network]);
    let joined = std::panic::AssertUnwindSafe(async {
        docker(&["network", "connect", &network, &name]);
        lab.until("the network", |s| s.running.values().any(|c| c.name == name && c.networks.contains_key(&network)))
            .await;
        docker(&["network", "disconnect", &network, &name]);
        lab.until("its end", |s| s.running.values().any(|c| c.name == name && !c.networks.contains_key(&network)))
            .await;
    });
    let outcome = futures_util::FutureExt::catch_unwind(joined).await;
    let _ = Command::new("docker").args(["network", "disconnect", "-f", &network, &name]).output();
    docker(&["network", "rm", &network]);
    outcome.unwrap();
}

/// Prints how long after the daemon's time of a start event the picture has the container, and what an inspection costs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_is_in_the_picture_after_little_more_than_an_inspection() {
    let mut mine = Mine::new("speed");
    let mut lab = Lab::start().await;
    let name = mine.run(&["-p", "127.0.0.1::80"], &["sleep", "300"]);
    lab.until("the container", |s| has(s, &name)).await;
    let id = lab.inlet.borrow().snapshot().unwrap().running.values().find(|c| c.name == name).unwrap().id.clone();
    let (mut times, mut inspections) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        docker(&["kill", &name]);
        lab.until("the end", |s| !has(s, &name)).await;
        while lab.events.try_recv().is_ok() {} // the start of the run before is still in it
        let starting = tokio::task::spawn_blocking({
            let name = name.clone();
            move || docker(&["start", &name])
        });
        let told = lab.event(id.as_str(), |kind| kind == EventKind::Start).await;
        lab.until("the start", |s| has(s, &name)).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        times.push(now.saturating_sub(Duration::from_nanos(told.time_nanos.try_into().unwrap())));
        starting.await.unwrap();
        let began = Instant::now();
        lab.docker.inspect(&id).await.unwrap().unwrap();
        inspections.push(began.elapsed());
    }
    times.sort();
    inspections.sort();
    println!(
        "start event to picture: p50 {:?}, worst {:?}; one inspection: p50 {:?}",
        times[5], times[9], inspections[5]
    );
    assert!(times[5] < Duration::from_millis(100), "{times:?}");
}
