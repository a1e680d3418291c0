//! Both agents with the least rights and every kind of secret: they do their work, and show none of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::agents::binary;
use e2e::process::Process;
use e2e::{Etcd, Lab, Result, free_port, in_lab, wait};
use etcd_client::{Client, GetOptions, Permission};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(60);
/// All secrets begin so.
const SECRET: &str = "s3cret";
const TOKEN: &str = "s3cret-token-of-the-admin-server";

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// One GET with the token, over plain HTTP; the whole answer.
async fn get(at: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// A program with its environment; `status` is asked as the image's HEALTHCHECK does, by that alone.
struct Agent {
    process: Process,
    program: PathBuf,
    environment: Vec<(String, String)>,
}

impl Agent {
    fn start(lab: &Lab, program: &str, name: &str, args: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let program = binary(program)?;
        let process = Process::spawn(lab, name, &program, args, environment)?;
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Ok(Self { process, program, environment })
    }

    fn status(&self) -> (bool, String) {
        let environment = self.environment.iter().map(|(k, v)| (k, v));
        let output =
            Command::new(&self.program).args(["status", "--json"]).env_clear().envs(environment).output().unwrap();
        (
            output.status.success(),
            [output.stdout, output.stderr].map(|o| String::from_utf8_lossy(&o).into_owned()).concat(),
        )
    }

    /// All that a stranger on this host could see of it, and what its logs say.
    fn seen(&self) -> String {
        let line = fs::read(format!("/proc/{}/cmdline", self.process.pid())).unwrap();
        [self.process.log(), self.status().1, String::from_utf8_lossy(&line).into_owned()].concat()
    }
}

/// A program, its arguments, and its environment.
type Case<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)]);

fn none_shown(who: &str, text: &str) {
    let shown = text.lines().find(|line| line.contains(SECRET));
    assert_eq!(shown, None, "{who} shows a secret");
}

/// Nerve's config with passwords in checks, headers and ZooKeeper's authentication; nobody is there to be asked.
fn nerve() -> Value {
    json!({"instance_id": "i1", "services": {"web": {
        "host": "127.0.0.1", "port": 1, "check_interval": 0.1,
        "reporter_type": "zookeeper", "zk_hosts": ["127.0.0.1:1"], "zk_path": "/x", "zk_auth": "digest:me:s3cret-zk",
        "checks": [
            {"type": "redis", "password": "s3cret-redis"},
            {"type": "rabbitmq", "username": "me", "password": "s3cret-amqp"},
            {"type": "http", "uri": "/", "headers": {"Authorization": "Bearer s3cret-header"}},
        ],
    }}})
}

fn synapse(dir: &Path) -> Value {
    let service =
        |discovery: Value| json!({"discovery": discovery, "backend_port_override": 1, "haproxy": {"disabled": true}});
    json!({
        "file_output": {"output_directory": dir},
        "services": {
            "m": service(json!({"method": "marathon", "marathon_api_url": "http://me:s3cret-marathon@127.0.0.1:1", "application_name": "m"})),
            "n": service(json!({"method": "marathon", "marathon_api_url": "http://127.0.0.1:1", "application_name": "m",
                "marathon_authorization": "token=s3cret-authorization"})),
            "z": service(json!({"method": "zookeeper", "hosts": ["127.0.0.1:1"], "path": "/x", "zk_auth": "digest:me:s3cret-zk"})),
            "a": service(json!({"method": "ec2tag", "tag_name": "t", "tag_value": "v", "aws_region": "r",
                "aws_access_key_id": "id", "aws_secret_access_key": "s3cret-aws", "aws_endpoint_url": "http://127.0.0.1:1"})),
        },
    })
}

async fn keys(client: &mut Client) -> Vec<String> {
    let found = client.get("/", Some(GetOptions::new().with_prefix())).await.unwrap();
    found.kvs().iter().map(|kv| kv.key_str().unwrap().to_owned()).collect()
}

#[test]
fn the_least_roles_suffice_and_no_secret_is_shown() -> Result<()> {
    in_lab(async |lab| {
        let etcd = Etcd::start_tls();
        let host = vec![
            Permission::read("/backends/").with_prefix(),
            Permission::read_write("/backends/@h1/").with_prefix(),
            Permission::read_write("/registrars/h1"),
        ];
        let reader = vec![Permission::read("/backends/").with_prefix(), Permission::read("/registrars/").with_prefix()];
        let root = etcd.demand_users(&[("h1", "s3cret-etcd-1", host), ("reader", "s3cret-etcd-2", reader)]).await;

        let dir = lab.subdir("secrets")?;
        let certs = ["ca.pem", "client.pem", "client.key"].map(|name| etcd.certs().path(name).display().to_string());
        let admin = ["server.pem", "server.key"].map(|name| etcd.certs().path(name).display().to_string());
        let (token, endpoint) = (file(&dir, "token", TOKEN), etcd.endpoint().to_string());
        let password = file(&dir, "password", "s3cret-etcd-1\n");
        let tls = [
            ("ETCD_HOST", &*endpoint),
            ("ETCD_CA_FILE", &certs[0]),
            ("ETCD_CERT_FILE", &certs[1]),
            ("ETCD_KEY_FILE", &certs[2]),
        ];
        let at = |name: &str| dir.join(name).display().to_string();
        let ports = [free_port(), free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));

        let control = at("register.sock");
        let own = [
            ("ETCD_USER", "h1"),
            ("ETCD_PASSWORD_FILE", &password),
            ("NODE_NAME", "h1"),
            ("HOST_IP", "127.0.0.1"),
            ("REGISTER_ALLOW_LOOPBACK", "true"),
            ("DOCKER_HOST", "http://me:s3cret-docker@127.0.0.1:1"),
            ("REGISTER_CONTROL", &control),
            ("REGISTER_ADMIN", &ports[0]),
            ("ADMIN_TOKEN_FILE", &token),
            ("ADMIN_CERT_FILE", &admin[0]),
            ("ADMIN_KEY_FILE", &admin[1]),
            ("REGISTER_LOG", "debug"),
            ("REGISTER_LAYOUT", "host"),
        ];
        let nerve = file(&dir, "nerve.json", &nerve().to_string());
        let own = [&tls[..], &own].concat();
        let register = Agent::start(lab, "register", "register", &["run", "-c", &nerve], &own)?;
        // One that waits for a Docker which is not there; it has no status yet.
        let waiting = Agent::start(lab, "register", "waiting", &["run", "--admin", "off"], &own)?;
        let service = free_port().to_string();
        let put =
            Agent::start(lab, "register", "put", &["put", "web", "127.0.0.1:9", "--service-port", &service], &own)?;

        let (cfg, runs, control) = (at("discover"), at("run"), at("discover.sock"));
        let files = [
            "run",
            "--haproxy",
            "files",
            "--dir",
            &cfg,
            "--run-dir",
            &runs,
            "--stats-port",
            "off",
            "--listen",
            "127.0.0.1",
        ];
        let own = [
            ("ETCD_USER", "reader"),
            ("ETCD_PASSWORD", "s3cret-etcd-2"),
            ("DISCOVER_ADMIN", &ports[1]),
            ("DISCOVER_CONTROL", &control),
            ("DISCOVER_ALLOW_LOOPBACK", "true"),
            ("ADMIN_TOKEN_FILE", &token),
            ("DISCOVER_LOG", "debug"),
        ];
        let discover = Agent::start(lab, "discover", "discover", &files, &[&tls[..], &own].concat())?;
        let (config, control) = (file(&dir, "synapse.json", &synapse(&dir).to_string()), at("configured.sock"));
        let own = [
            ("DISCOVER_ADMIN", &*ports[2]),
            ("DISCOVER_CONTROL", &control),
            ("ADMIN_TOKEN_FILE", &token),
            ("DISCOVER_LOG", "debug"),
        ];
        let configured = Agent::start(lab, "discover", "configured", &["run", "-c", &config], &own)?;

        // They do their work with these roles.
        wait::until_true("the host's backend", PATIENCE, async || {
            let keys = keys(&mut root.clone()).await;
            keys.iter().any(|key| key.starts_with("/backends/@h1/web/"))
        })
        .await?;
        wait::until_true("the backend in haproxy.cfg", PATIENCE, async || {
            fs::read_to_string(dir.join("discover/haproxy.cfg")).is_ok_and(|text| text.contains("127.0.0.1:9"))
        })
        .await?;
        let mut reader = etcd.operator_as(Some(("reader", "s3cret-etcd-2"))).await;
        let denied = reader.put("/backends/web/x", "10.0.0.1:80", None).await.unwrap_err().to_string();
        assert!(denied.contains("permission denied"), "{denied}");

        // Each says something of all of its sources and checks, and no secret.
        let named = ["\"m\"", "\"n\"", "\"z\"", "\"a\""];
        wait::until_true("failures of all sources", PATIENCE, async || {
            let (ok, text) = configured.status();
            ok && named.iter().all(|name| text.contains(name))
        })
        .await?;
        wait::until_true("a failure of Docker and of the service", PATIENCE, async || {
            let (ok, text) = register.status();
            ok && text.contains("\"web\"") && waiting.process.log().contains("Docker does not answer")
        })
        .await?;
        for (who, agent) in [
            ("register", &register),
            ("waiting", &waiting),
            ("put", &put),
            ("discover", &discover),
            ("discover -c", &configured),
        ] {
            let seen = agent.seen();
            assert!(seen.len() > 500, "{who} says something: {seen}");
            none_shown(who, &seen);
        }
        for at in [&ports[1], &ports[2]] {
            for path in ["/", "/status", "/metrics", "/ready"] {
                let text = get(at.parse().unwrap(), path).await.unwrap();
                assert!(text.starts_with("HTTP/1.1 "), "{text}");
                none_shown(path, &text);
            }
        }
        none_shown("haproxy.cfg", &fs::read_to_string(dir.join("discover/haproxy.cfg")).unwrap());
        Ok(())
    })
}

#[test]
fn a_secret_in_a_wrong_setting_is_not_quoted() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let wrong = json!({"file_output": {"output_directory": dir.path()}, "services": {
        "m": {"discovery": {"method": "marathon", "marathon_api_url": "ftp://me:s3cret-marathon@h", "application_name": "m"}},
        "z": {"discovery": {"method": "zookeeper", "hosts": ["h"], "path": "/x", "zk_auth": "s3cret-zk"}},
    }});
    let wrong = file(dir.path(), "synapse.json", &wrong.to_string());
    let short = file(dir.path(), "token", "s3cret");
    let cases: [Case; 5] = [
        ("register", &["plan"], &[("DOCKER_HOST", "ftp://me:s3cret@h")]),
        ("register", &["ls", "--etcd-host", "http://me:s3cret@h"], &[]),
        ("register", &["status", "--admin", "http://me:s3cret@h:1"], &[]),
        ("discover", &["check", "-c", &wrong], &[]),
        ("discover", &["status"], &[("ADMIN_TOKEN_FILE", &short)]),
    ];
    for (program, args, environment) in cases {
        let output = Command::new(binary(program)?).args(args).envs(environment.iter().copied()).output().unwrap();
        let text = [output.stdout, output.stderr].map(|o| String::from_utf8_lossy(&o).into_owned()).concat();
        assert!(!text.is_empty(), "{program} {args:?} says what is wrong");
        none_shown(&format!("{program} {args:?}"), &text);
    }
    Ok(())
}
