//! Checks against the real programs: Redis and RabbitMQ of Debian's packages on loopback, and commands in a container of
//! the Docker daemon of this host.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::telemetry::Chain;
use containers::checks::{AmqpProbe, AnyCheck, Check, ExecProbe, Outcome, RedisProbe};
use containers::docker::{Docker, Endpoint};
use model::desired::Secret;
use tempfile::TempDir;
use testing::free_port;

const WAIT: Duration = Duration::from_secs(10);

/// A process that ends with the test, and its group with it.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, package: &str) -> Self {
        use std::os::unix::process::CommandExt as _;
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let started = quiet.spawn();
        Self(started.unwrap_or_else(|e| panic!("{:?}: {e} (apt-get install {package})", command.get_program())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

async fn verdict(check: AnyCheck) -> Result<(), String> {
    match check.attempt(WAIT).await {
        Outcome::Pass => Ok(()),
        Outcome::Fail(e) | Outcome::Unreachable(e) => Err(Chain(&e).to_string()),
    }
}

/// Waits until `check` passes.
async fn passes(check: AnyCheck, within: Duration) {
    let start = Instant::now();
    while let Err(why) = verdict(check.clone()).await {
        assert!(start.elapsed() < within, "{why}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn redis_with_and_without_its_password() {
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let directory = TempDir::new().unwrap();
    let port = address.port().to_string();
    let args = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--requirepass", "s3cret"];
    let mut command = Command::new("redis-server");
    let server = Server::start(command.args(args).current_dir(&directory), "redis-server");
    let redis = |password: Option<&str>| {
        AnyCheck::Redis(RedisProbe::new(address, password.map(|p| Secret(p.to_owned())).as_ref()))
    };
    passes(redis(None), WAIT).await;
    assert_eq!(verdict(redis(Some("s3cret"))).await, Ok(()));
    assert!(verdict(redis(Some("wrong"))).await.unwrap_err().contains("WRONGPASS"));
    drop(server);
    assert!(verdict(redis(None)).await.is_err());
}

#[tokio::test]
async fn rabbitmq_with_and_without_a_login() {
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let directory = TempDir::new().unwrap();
    let own = |name: &str| directory.path().join(name);
    std::fs::write(own("rabbitmq.conf"), "loopback_users = none\n").unwrap();
    std::fs::write(own("plugins"), "[].\n").unwrap();
    // The server itself: the package's wrapper wants to become another user.
    let program = std::fs::read_dir("/usr/lib/rabbitmq/lib").expect("apt-get install rabbitmq-server");
    let program = program.map(|e| e.unwrap().path().join("sbin/rabbitmq-server")).find(|p| p.exists()).unwrap();
    // One of our own, as the one that the server would start outlives it.
    let names = free_port().to_string();
    let epmd = ["-address", "127.0.0.1", "-port", &names];
    let _names = Server::start(Command::new("epmd").args(epmd), "rabbitmq-server");
    let mut command = Command::new(program);
    let node = format!("checks-{}@localhost", std::process::id());
    command.env("RABBITMQ_NODENAME", node).env("HOME", directory.path());
    command.env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1").env("RABBITMQ_NODE_PORT", address.port().to_string());
    command.env("RABBITMQ_DIST_PORT", free_port().to_string()).env("ERL_EPMD_PORT", &names);
    command.env("ERL_EPMD_ADDRESS", "127.0.0.1");
    command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
    for (variable, path) in [
        ("RABBITMQ_MNESIA_BASE", "data"),
        ("RABBITMQ_LOG_BASE", "log"),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins"),
        ("RABBITMQ_PID_FILE", "pid"),
    ] {
        command.env(variable, own(path));
    }
    let _server = Server::start(&mut command, "rabbitmq-server");
    let rabbitmq = |login: Option<(&str, &str)>, vhost: &str| {
        let password = login.map(|(_, password)| Secret(password.to_owned()));
        AnyCheck::Amqp(AmqpProbe::new(address, login.map(|(user, _)| user), password.as_ref(), vhost))
    };
    passes(rabbitmq(None, "/"), Duration::from_secs(90)).await;
    passes(rabbitmq(Some(("guest", "guest")), "/"), WAIT * 3).await;
    let refused = verdict(rabbitmq(Some(("guest", "wrong")), "/")).await.unwrap_err();
    assert!(refused.contains("ACCESS_REFUSED"), "{refused}");
    let unknown = verdict(rabbitmq(Some(("guest", "guest")), "no-such")).await.unwrap_err();
    assert!(unknown.contains("no-such"), "{unknown}");
}

struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", &self.0]).output();
    }
}

#[tokio::test]
async fn a_command_in_a_container() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/base-image.sh");
    let image = Command::new("bash").arg(base).output().unwrap();
    assert!(image.status.success(), "{}", String::from_utf8_lossy(&image.stderr));
    let image = String::from_utf8(image.stdout).unwrap().trim().to_owned();
    let name = format!("dr-exec-{}", std::process::id());
    let run = Command::new("docker").args(["run", "-d", "--name", &name, &image, "sleep", "60"]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let container = Container(name);
    let id: model::desired::ContainerId = String::from_utf8(run.stdout).unwrap().trim().parse().unwrap();
    let docker = Docker::new(&Endpoint::from_env(|name| std::env::var(name).ok()).unwrap()).unwrap();
    let exec = |command: &str| {
        let command = ["sh", "-c", command].map(str::to_owned);
        AnyCheck::Exec(ExecProbe::new(docker.clone(), id.clone(), &command))
    };
    assert_eq!(verdict(exec("test -d /etc")).await, Ok(()));
    let failed = verdict(exec("echo not well; exit 3")).await.unwrap_err();
    assert_eq!(failed, r#"the command ended with status 3: "not well""#);

    // One that hangs: while it does no other is started, and what it ends with counts.
    let slow = exec("echo x >> /tmp/runs; sleep 2");
    for _ in 0..3 {
        let Outcome::Fail(error) = slow.attempt(Duration::from_millis(100)).await else {
            panic!("it cannot have ended")
        };
        assert_eq!(error.to_string(), "no answer within 100ms");
    }
    assert_eq!(verdict(slow).await, Ok(()));
    assert_eq!(verdict(exec("test $(wc -l < /tmp/runs) = 1")).await, Ok(()));
    drop(container);
    assert!(verdict(exec("true")).await.is_err());
}
