//! The images as people run them: `docker run` lines of the README, on a network of the test's own.

#![allow(clippy::expect_used, clippy::panic, reason = "what helps a test may fail it")]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Removes everything with the test's name, whatever happens.
struct Stage {
    name: String,
}

fn docker(args: &[&str]) -> Output {
    Command::new("docker").args(args).output().expect("docker can be run")
}

fn ok(args: &[&str]) -> String {
    let output = docker(args);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "docker {}: {err}", args.join(" "));
    out.trim().to_owned()
}

/// The processes of a container: their ids on this host, and their command lines. The images have no shell to ask in.
fn processes(container: &str) -> Vec<(i32, String)> {
    let listed = ok(&["top", container, "-eo", "pid,args"]);
    let rows = listed.lines().skip(1).filter_map(|row| row.trim().split_once(' '));
    rows.filter_map(|(pid, args)| Some((pid.parse().ok()?, args.trim().to_owned()))).collect()
}

/// A process as the kernel tells it.
fn status_of(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

impl Stage {
    fn new(test: &str) -> Self {
        let stage = Self { name: format!("e2e-images-{test}-{}", std::process::id()) };
        let images = ["docker-register", "docker-discover"];
        let demo = ["etcd", "whoami", "publisher"].map(|image| format!("docker-register-demo/{image}"));
        for image in images.into_iter().chain(demo.iter().map(String::as_str)) {
            assert!(docker(&["image", "inspect", image]).status.success(), "no image {image}: run `make images`");
        }
        ok(&["network", "create", &stage.name]);
        stage
    }

    /// Runs a container of the stage: on its network, under its own name there.
    fn run(&self, name: &str, args: &[&str]) -> String {
        let full = format!("{}-{name}", self.name);
        let fixed = ["run", "-d", "--name", &full, "--network", &self.name, "--network-alias", name];
        ok(&[&fixed[..], args].concat())
    }

    /// etcd, which the others find by its name.
    fn etcd(&self) {
        self.run(
            "etcd",
            &[
                "docker-register-demo/etcd",
                "--listen-client-urls=http://0.0.0.0:2379",
                "--advertise-client-urls=http://etcd:2379",
            ],
        );
    }

    fn logs(&self, name: &str) -> String {
        let output = docker(&["logs", "--tail", "20", &format!("{}-{name}", self.name)]);
        [output.stdout, output.stderr].map(|o| String::from_utf8_lossy(&o).into_owned()).concat()
    }

    fn until<T>(&self, what: &str, culprit: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(found) = found() {
                return found;
            }
            std::thread::sleep(Duration::from_millis(50)); // between two looks, until the deadline
        }
        panic!("{what} did not happen; {culprit} says:\n{}", self.logs(culprit));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let mine = docker(&["ps", "-aq", "--filter", &format!("name=^{}-", self.name)]);
        for id in String::from_utf8_lossy(&mine.stdout).split_whitespace() {
            docker(&["rm", "-fv", id]);
        }
        docker(&["network", "rm", &self.name]);
    }
}

/// One request over loopback; the first line of the answer's body.
fn answer(address: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: whoami\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.lines().next().unwrap_or_default().to_owned())
}

#[test]
fn the_images_register_and_route_with_the_least_privileges() {
    let stage = Stage::new("all");
    let mine = format!("label=e2e.images={}", stage.name);
    let label = format!("e2e.images={}", stage.name);
    stage.etcd();
    // As jwilder's README has it, with addresses of the test's own network.
    let (filter, network) = (format!("REGISTER_FILTER={mine}"), format!("REGISTER_NETWORK={}", stage.name));
    stage.run(
        "register",
        &[
            "-e",
            "HOST_IP=127.0.0.1",
            "-e",
            "ETCD_HOST=etcd",
            "-v",
            "/var/run/docker.sock:/var/run/docker.sock",
            "-e",
            "REGISTER_ALLOW_LOOPBACK=true",
            "-e",
            "REGISTER_INTERNAL=true",
            "-e",
            &filter,
            "-e",
            &network,
            "docker-register",
        ],
    );
    let discover = stage.run(
        "discover",
        &[
            "-e",
            "ETCD_HOST=etcd",
            "--cap-drop",
            "ALL",
            "--cap-add",
            "NET_BIND_SERVICE",
            "--cap-add",
            "SETUID",
            "--cap-add",
            "SETGID",
            "--cap-add",
            "KILL",
            "--security-opt",
            "no-new-privileges",
            "--read-only",
            "--tmpfs",
            "/run/discover:mode=755",
            "--tmpfs",
            "/var/lib/discover:mode=755",
            "--tmpfs",
            "/tmp",
            "-p",
            "127.0.0.1::8000",
            "docker-discover",
        ],
    );
    let whoami = stage.run(
        "whoami",
        &[
            "--label",
            &label,
            "--label",
            "register.service=whoami",
            "--label",
            "register.80.service-port=8000",
            "--label",
            "register.80.mode=http",
            "docker-register-demo/whoami",
        ],
    );
    let address = ok(&["port", &discover, "8000"]);
    let address = address.lines().next().expect("a published port").to_owned();
    let name = stage.until("a request through HAProxy", "discover", || answer(&address));
    assert_eq!(name, whoami[..12], "whoami answers with its host name");

    ok(&["exec", &format!("{}-register", stage.name), "register", "status"]);
    ok(&["exec", &format!("{}-discover", stage.name), "discover", "status"]);
    let register: Vec<String> =
        processes(&format!("{}-register", stage.name)).iter().map(|(pid, _)| status_of(*pid)).collect();
    let has_dropped_root = |status: &String| status.lines().any(|l| l.starts_with("Uid:") && !l.contains("\t0\t"));
    assert!(!register.is_empty() && register.iter().all(has_dropped_root), "register has dropped root: {register:?}");

    // The agent crashes; HAProxy goes on, and supervise starts the agent again.
    let agents: Vec<i32> = processes(&discover)
        .into_iter()
        .filter(|(_, args)| args.contains("discover run"))
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(agents.len(), 1, "{:?}", processes(&discover));
    kill(Pid::from_raw(agents[0]), Signal::SIGKILL).expect("the agent can be killed");
    for _ in 0..20 {
        assert!(answer(&address).is_some(), "HAProxy serves without its agent");
    }
    let began = Instant::now();
    ok(&["stop", "--time", "20", &discover]);
    assert!(began.elapsed() < Duration::from_secs(19), "PID 1 obeys SIGTERM");
}

#[test]
fn a_publisher_registers_itself_drains_and_ends_with_its_programs_status() {
    let stage = Stage::new("publisher");
    stage.etcd();
    let discover = stage.run("discover", &["-e", "ETCD_HOST=etcd", "-p", "127.0.0.1::8000", "docker-discover"]);
    let args = [
        "-e",
        "ETCD_HOST=etcd",
        "-e",
        "REGISTER_SERVICE_PORT=8000",
        "-e",
        "REGISTER_DRAIN_WAIT=500ms",
        "docker-register-demo/publisher",
    ];
    let publisher = stage.run("publisher", &args);
    let address = ok(&["port", &discover, "8000"]);
    let address = address.lines().next().expect("a published port").to_owned();
    let name = stage.until("a request through HAProxy", "publisher", || answer(&address));
    assert_eq!(name, publisher[..12], "the program in the publisher answers with its host name");
    ok(&["stop", "--time", "20", &publisher]);
    let status = ok(&["inspect", "-f", "{{.State.ExitCode}}", &publisher]);
    assert_eq!(status, "0", "{}", stage.logs("publisher"));
    let logs = stage.logs("publisher");
    assert!(logs.contains("Draining."), "{logs}");
    let listed = || ok(&["exec", &discover, "discover", "ls", "--json"]);
    stage.until("the end of its registration", "publisher", || (!listed().contains(&publisher[..12])).then_some(()));
}

/// An image is what it must hold and no more: nobody who breaks in finds a shell.
#[test]
fn the_images_hold_neither_a_shell_nor_a_package_manager() {
    let stage = Stage::new("bare");
    for image in ["docker-register", "docker-discover"] {
        for program in ["sh", "bash", "apt-get", "dpkg", "perl"] {
            let run = docker(&["run", "--rm", "--network", &stage.name, "--entrypoint", program, image]);
            assert!(!run.status.success(), "{image} has {program}");
        }
        let certificates = ok(&["create", "--name", &format!("{}-{image}", stage.name), image]);
        let bundle = docker(&["cp", &format!("{certificates}:/etc/ssl/certs/ca-certificates.crt"), "-"]);
        assert!(bundle.stdout.len() > 100_000, "{image} knows the public authorities");
    }
}

/// As docs/security.md has it: no root, no capability, nothing writable but its own directories; ports from 1024 on.
#[test]
fn discover_and_haproxy_run_as_one_user_that_never_was_root() {
    let stage = Stage::new("nonroot");
    stage.etcd();
    let discover = stage.run(
        "discover",
        &[
            "-e",
            "ETCD_HOST=etcd",
            "--user",
            "65534:65534",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--read-only",
            "--tmpfs",
            "/run/discover:uid=65534,gid=65534",
            "--tmpfs",
            "/var/lib/discover:uid=65534,gid=65534",
            "--tmpfs",
            "/tmp",
            "-p",
            "127.0.0.1::8000",
            "docker-discover",
        ],
    );
    let args = ["--user", "nobody", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"];
    let publisher = [
        "-e",
        "ETCD_HOST=etcd",
        "-e",
        "REGISTER_SERVICE_PORT=8000",
        "--tmpfs",
        "/tmp",
        "docker-register-demo/publisher",
    ];
    stage.run("publisher", &[&args[..], &publisher].concat());
    let address = ok(&["port", &discover, "8000"]);
    let address = address.lines().next().expect("a published port").to_owned();
    stage.until("a request through HAProxy", "discover", || answer(&address));
    let told = |line: &&str| ["Uid:", "CapEff:", "NoNewPrivs:"].iter().any(|key| line.starts_with(key));
    let of = |(pid, _): (i32, String)| {
        status_of(pid).lines().filter(told).map(|line| format!("{line}\n")).collect::<String>()
    };
    let users: String = processes(&discover).into_iter().map(of).collect();
    assert!(users.contains("NoNewPrivs:\t1") && users.lines().count() >= 9, "{users}");
    for line in users.lines() {
        let rest = line.split_once(':').map_or("", |(_, rest)| rest.trim());
        let wrong = match line.split(':').next() {
            Some("Uid") => rest.split_whitespace().any(|id| id == "0"),
            Some("CapEff") => rest.chars().any(|c| c != '0'),
            _ => rest != "1",
        };
        assert!(!wrong, "{users}");
    }
    ok(&["exec", &discover, "discover", "status"]);
}
