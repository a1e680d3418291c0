//! `register` against an etcd with TLS, client certificates, users and roles, as docs/security.md has it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, GetOptions, Permission};
use tempfile::TempDir;
use testing::etcd::Etcd;
use tokio::time::sleep;

const DEADLINE: Duration = Duration::from_secs(30);

/// One host with an etcd of its own; its agent registers made-up addresses with `put` and `run`.
struct Host {
    etcd: Etcd,
    dir: TempDir,
}

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Host {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_register"));
        command.args(args).stdin(Stdio::null()).env("ETCD_HOST", self.etcd.endpoint().to_string());
        command.env("HOST_IP", "127.0.0.1").env("NODE_NAME", "h1").env("REGISTER_ALLOW_LOOPBACK", "true");
        command.env("REGISTER_CONTROL", self.dir.path().join("control.sock"));
        let certs = self.etcd.certs();
        command.env("ETCD_CA_FILE", certs.path("ca.pem"));
        command.env("ETCD_CERT_FILE", certs.path("client.pem")).env("ETCD_KEY_FILE", certs.path("client.key"));
        command
    }

    fn spawn(&self, command: &mut Command, name: &str) -> Agent {
        let log = std::fs::File::create(self.dir.path().join(name)).unwrap();
        Agent(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    async fn keys(&self, client: &mut Client) -> Vec<String> {
        let found = client.get("/", Some(GetOptions::new().with_prefix())).await.unwrap();
        found.kvs().iter().map(|kv| kv.key_str().unwrap().to_owned()).collect()
    }

    async fn until(&self, client: &mut Client, log: &str, so: impl Fn(&[String]) -> bool) {
        let start = Instant::now();
        loop {
            let keys = self.keys(client).await;
            if so(&keys) {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{keys:?}; log:\n{}", self.log(log));
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What docs/security.md grants the agent of `node`.
fn confined(node: &str) -> Vec<Permission> {
    let own = [format!("/registrars/{node}"), format!("/metadata/{node}")];
    let mut all = vec![
        Permission::read("/backends/").with_prefix(),
        Permission::read_write(format!("/backends/@{node}/")).with_prefix(),
    ];
    all.extend(own.map(Permission::read_write));
    all
}

fn failed(output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(words), "{words:?} is not in {said}");
}

#[tokio::test]
async fn tls_and_a_role_that_is_confined_to_one_host_suffice() {
    agent::tls::install_provider();
    let host = Host { etcd: Etcd::start_tls(), dir: TempDir::new().unwrap() };
    let mut root = host.etcd.demand_users(&[("agent", "s3cret", confined("h1"))]).await;

    // The agent: its registrar's key, its metadata; and `put` beside it: a backend of its own host.
    let as_agent = |args: &[&str]| {
        let mut command = host.command(args);
        command.env("ETCD_USER", "agent").env("ETCD_PASSWORD", "s3cret");
        command
    };
    let run = [
        "run",
        "--layout",
        "host",
        "--admin",
        "off",
        "--filter",
        "name=no-such-container",
        "--metadata-interval",
        "5s",
    ];
    let _agent = host.spawn(&mut as_agent(&run), "run");
    host.until(&mut root, "run", |keys| keys == ["/metadata/h1", "/registrars/h1"]).await;
    let put = host.spawn(&mut as_agent(&["put", "web", "10.0.0.5:80", "--layout", "host"]), "put");
    host.until(&mut root, "put", |keys| keys.iter().any(|key| key.starts_with("/backends/@h1/web/"))).await;
    drop(put);

    // Elsewhere it may not write, and says so.
    for args in
        [&["put", "web", "10.0.0.5:80"][..], &["put", "web", "10.0.0.5:80", "--layout", "host", "--node-name", "h2"]]
    {
        failed(&as_agent(args).output().unwrap(), "ermission denied");
    }
    let listed = as_agent(&["ls"]).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));

    // Wrong credentials and an unknown authority are final errors with a name, not waits.
    let mut wrong = host.command(&["ls"]);
    failed(&wrong.env("ETCD_USER", "agent").env("ETCD_PASSWORD", "wrong").output().unwrap(), "uthentication failed");
    let other = TempDir::new().unwrap();
    testing::certs::Certs::make(other.path());
    let mut stranger = as_agent(&["ls"]);
    let output = stranger.env("ETCD_CA_FILE", Path::join(other.path(), "ca.pem")).output().unwrap();
    assert!(!output.status.success());
}
