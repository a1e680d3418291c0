//! The nginx generator on a real nginx: HTTP and plain TCP, reloads, and a config that nginx refuses.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use discover::generators::Generator;
use discover::generators::nginx::Nginx;
use discover::generators::output::OutputError;
use discover::reconcile::{Desired, Policies};
use discover::synapse::load::load_with;
use discover::synapse::registration;
use model::ServiceMap;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{eventually, free_port, get, http_server};

/// NGINX_BIN, else the one on PATH or in /usr/sbin.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).chain(["/usr/sbin".into()]).map(|dir| dir.join("nginx"));
    let found = std::env::var_os("NGINX_BIN").map(PathBuf::from).into_iter().chain(on_path).find(|p| p.is_file());
    found.expect("no nginx: run deploy/setup.sh, or set NGINX_BIN")
}

/// nginx with all of its files in one directory; ended by its own pid file.
struct World {
    dir: tempfile::TempDir,
    web: u16,
    raw: u16,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), web: free_port(), raw: free_port() }
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn config(&self, line: &str) -> Value {
        let nginx = format!("{} -p {}", program().display(), self.dir.path().display());
        let conf = self.at("nginx.conf");
        let mut main = vec![
            format!("pid {}", self.at("pid")),
            format!("error_log {}", self.at("error.log")),
            "worker_processes 1".to_owned(),
        ];
        if nix::unistd::geteuid().is_root() {
            main.push("user root".to_owned()); // its temporary directories are ours
        }
        let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
        if Path::new(module).exists() {
            main.insert(0, format!("load_module {module}"));
        }
        let temp = |what: &str| format!("{what}_temp_path {}", self.at(what));
        let mut http: Vec<String> = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temp).into();
        http.push("access_log off".to_owned());
        let base = json!({"method": "base"});
        json!({
            "nginx": {
                "contexts": {"main": main, "events": ["worker_connections 64"], "http": http, "stream": []},
                "config_file_path": conf, "listen_address": "127.0.0.1", "restart_interval": 0,
                "check_command": format!("{nginx} -t -c {{candidate}}"),
                "start_command": format!("{nginx} -c {conf}"), "reload_command": format!("{nginx} -c {conf} -s reload"),
            },
            "services": {
                "web": {"discovery": base, "use_previous_backends": false, "nginx": {"port": self.web, "server": [line]}},
                "raw": {"discovery": base, "nginx": {"mode": "tcp", "port": self.raw, "server": ["proxy_connect_timeout 1s"]}},
            },
        })
    }

    fn nginx(&self, line: &str) -> (Nginx, Policies) {
        let path = self.dir.path().join("synapse.json");
        std::fs::write(&path, self.config(line).to_string()).unwrap();
        let config = load_with(&path, &|_| None).unwrap().config;
        (Nginx::new(&config).unwrap(), Policies::new(&config))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.at("error.log")).unwrap_or_default());
        }
        if let Ok(pid) = std::fs::read_to_string(self.at("pid")) {
            let _ = kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGTERM);
        }
    }
}

/// The last byte of the first thing that comes back: nobody closes a connection of plain TCP for us.
async fn over_tcp(port: u16) -> Option<u8> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.ok()?;
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).await.ok()?;
    answer[..length].last().copied()
}

/// One turn in which both services have these backends.
async fn turn(nginx: &mut Nginx, policies: &mut Policies, backends: &[SocketAddr]) -> Result<(), OutputError> {
    let read = |to: &SocketAddr| {
        let registration = json!({"host": to.ip().to_string(), "port": to.port()});
        Arc::new(registration::read(registration.as_object().unwrap(), None).unwrap())
    };
    let answer = |name: &str| (name.parse().unwrap(), Arc::new(backends.iter().map(read).collect()));
    let services: ServiceMap = ["web", "raw"].map(answer).into();
    let mut desired = Desired { services, ..Desired::default() };
    policies.apply_to(&mut desired, &Default::default(), tokio::time::Instant::now());
    let plan = nginx.plan(&desired, tokio::time::Instant::now());
    nginx.apply(plan).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_routes_http_and_tcp_follows_changes_and_keeps_its_last_good_config() {
    let world = World::new();
    let (a, b) = (http_server("a", Default::default()).await, http_server("b", Default::default()).await);
    let (mut nginx, mut policies) = world.nginx("server_tokens off");
    turn(&mut nginx, &mut policies, &[a]).await.unwrap();
    eventually("a answers over HTTP", async || get(world.web).await == "a").await;
    eventually("a answers over plain TCP", async || over_tcp(world.raw).await == Some(b'a')).await;
    let pid = std::fs::read_to_string(world.at("pid")).unwrap();

    turn(&mut nginx, &mut policies, &[b]).await.unwrap();
    eventually("b answers after a reload", async || {
        get(world.web).await == "b" && over_tcp(world.raw).await == Some(b'b')
    })
    .await;
    assert_eq!(std::fs::read_to_string(world.at("pid")).unwrap(), pid, "reloaded, not started again");

    // A restart of discover changes nothing and reloads nothing.
    let log = || std::fs::read_to_string(world.at("error.log")).unwrap();
    let before = log();
    let (mut nginx, mut policies) = world.nginx("server_tokens off");
    turn(&mut nginx, &mut policies, &[b]).await.unwrap();
    assert_eq!(log(), before);

    // What nginx refuses never becomes its config.
    let good = std::fs::read_to_string(world.at("nginx.conf")).unwrap();
    let (mut bad, mut policies_of_bad) = world.nginx("quux on");
    let refused = turn(&mut bad, &mut policies_of_bad, &[a]).await.unwrap_err().to_string();
    assert!(refused.contains("check_command") && refused.contains("unknown directive \"quux\""), "{refused}");
    assert_eq!(std::fs::read_to_string(world.at("nginx.conf")).unwrap(), good);
    // A worker from before the reload may still accept on a busy machine.
    eventually("b still answers", async || get(world.web).await == "b").await;

    turn(&mut nginx, &mut policies, &[]).await.unwrap();
    eventually("an empty HTTP service says so", async || get(world.web).await.contains("503")).await;
}
