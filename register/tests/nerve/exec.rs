//! `register exec` and `register put`: one service, held while a command runs.

use super::*;

/// `<key> <status> <address>` of every backend of `web`.
async fn backends(host: &Host) -> Vec<String> {
    let one = |e: registry::store::Entry| {
        let value: Value = serde_json::from_slice(&e.value).unwrap();
        format!("{} {} {}", e.key, value["status"].as_str().unwrap(), value["host"].as_str().unwrap())
    };
    host.store.list("/backends/web/").await.unwrap().entries.into_iter().map(one).collect()
}

async fn becomes(host: &Host, agent: &Agent, expected: &[String]) {
    let start = Instant::now();
    while backends(host).await != expected {
        assert!(start.elapsed() < DEADLINE, "no {expected:?}; {:?}; log:\n{}", backends(host).await, agent.log());
        sleep(Duration::from_millis(5)).await;
    }
}

fn exec(host: &Host, args: &[&str], script: &str) -> Command {
    let all = [&["--log-format", "text", "exec", "--service", "web"], args, &["--", "sh", "-c", script]].concat();
    let mut command = host.command(&all);
    command.env("ETCD_HOST", host.etcd.endpoint().to_string()).env("REGISTER_CHECK_INTERVAL", "50ms");
    command.env("FILE", host.dir.path().join("said"));
    command
}

const SERVES: &str =
    r#"trap 'exit 7' TERM; trap 'echo usr1 >> "$FILE"' USR1; echo ready >> "$FILE"; while :; do sleep 0.05; done"#;

#[tokio::test]
async fn exec_registers_while_healthy_passes_signals_on_drains_and_ends_with_the_programs_status() {
    let host = Host::new();
    let (listener, port) = listen();
    let said = || std::fs::read_to_string(host.dir.path().join("said")).unwrap_or_default();
    let mut command = exec(&host, &["--drain-wait", "300ms", "--ttl", "3s", "--weight", "7"], SERVES);
    let mut agent = host.spawn(command.env("HOST", "127.0.0.1").env("PORT", port.to_string()));
    let line = |status: &str| format!("/backends/web/127.0.0.1:{port} {status} 127.0.0.1");
    becomes(&host, &agent, &[line("up")]).await;
    drop(listener);
    becomes(&host, &agent, &[]).await;
    let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    becomes(&host, &agent, &[line("up")]).await;
    let start = Instant::now();
    while said() != "ready\n" {
        assert!(start.elapsed() < DEADLINE, "{}", agent.log());
        sleep(Duration::from_millis(10)).await;
    }
    agent.signal(Signal::SIGUSR1);
    while said() != "ready\nusr1\n" {
        assert!(start.elapsed() < DEADLINE, "{:?} {}", said(), agent.log());
        sleep(Duration::from_millis(10)).await;
    }
    agent.signal(Signal::SIGTERM);
    becomes(&host, &agent, &[line("draining")]).await;
    assert_eq!(agent.end().await.code(), Some(7), "{}", agent.log());
    assert_eq!(backends(&host).await, [] as [String; 0], "deregistered at its end, not by its lease");
}

#[tokio::test]
async fn exec_takes_a_url_starts_again_when_asked_and_needs_no_registry_to_run() {
    let host = Host::new();
    let (_listener, port) = listen();
    let args = ["--restart", "on-failure", "--check", "none"];
    let mut command = exec(&host, &args, "echo x >> \"$FILE\"; sleep 0.3; exit 3");
    let mut agent = host.spawn(command.env("DISCOVERABLE_URL", format!("http://10.9.8.7:{port}/path")));
    becomes(&host, &agent, &[format!("/backends/web/10.9.8.7:{port} up 10.9.8.7")]).await;
    agent.says("starting it again").await;
    let lines = || std::fs::read_to_string(host.dir.path().join("said")).unwrap_or_default().lines().count();
    let start = Instant::now();
    while lines() < 2 {
        assert!(start.elapsed() < DEADLINE, "{}", agent.log());
        sleep(Duration::from_millis(10)).await;
    }
    agent.signal(Signal::SIGTERM);
    let code = agent.end().await.code();
    assert!(matches!(code, Some(3 | 143)), "{code:?}: it ended by itself, or by the signal");

    // Nobody answers at this port: the program runs all the same, and its status is passed on.
    let nobody = format!("127.0.0.1:{}", testing::free_port());
    let mut command = exec(&host, &["--check", "none", "--port", "1"], "exit 5");
    let mut agent = host.spawn(command.env("ETCD_HOST", nobody));
    assert_eq!(agent.end().await.code(), Some(5));
    let missing = host.output(&["exec", "--service", "web", "--port", "1", "--", "/no/such/program"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("starting /no/such/program"));
}

#[tokio::test]
async fn put_registers_while_its_check_passes() {
    let host = Host::new();
    let (listener, port) = listen();
    let address = format!("127.0.0.1:{port}");
    let args = ["--log-format", "text", "put", "web", &address, "--check", "tcp", "--check-interval", "50ms"];
    let mut command = host.command(&args);
    let mut agent = host.spawn(command.env("ETCD_HOST", host.etcd.endpoint().to_string()));
    let up = [format!("/backends/web/{address} up 127.0.0.1")];
    becomes(&host, &agent, &up).await;
    drop(listener);
    becomes(&host, &agent, &[]).await;
    let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    becomes(&host, &agent, &up).await;
    agent.signal(Signal::SIGTERM);
    assert!(agent.end().await.success());
    assert_eq!(backends(&host).await, [] as [String; 0]);
}
