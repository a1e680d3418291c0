//! docs/install.md as it stands there, on machines with systemd: the packages, and three hosts set up by packages and by images.
//! The machines are containers on a network of the test's own, and their containers are this machine's.

#![allow(clippy::expect_used, clippy::panic, reason = "what helps a test may fail it")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use e2e::agents::binary;
use e2e::given;

const PAGE: &str = include_str!("../../docs/install.md");
const IMAGE: &str = "docker-register-demo/host";
const WHOAMI: &str = "docker-register-demo/whoami";
/// For one command on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Lists all files of a machine but those that packages are allowed to leave: logs, caches, apt's and dpkg's own.
const FILES: &str = "find / -xdev -path /proc -prune -o -path /var/log -prune -o -path /var/lib/dpkg -prune -o -path /var/cache -prune \
    -o -path /root -prune -o -path /var/lib/apt -prune -o -print | sort";
/// The page's hosts.
const ADDRESSES: [&str; 3] = ["10.1.0.11", "10.1.0.12", "10.1.0.13"];

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn ok(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.trim().to_owned()
}

fn docker(args: &[&str]) -> String {
    ok(Command::new("docker").args(args))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

/// The directory of the packages: E2E_PACKAGES, such as target/dist after `make dist`, else of the programs beside the tests, which deploy/test.sh makes.
fn packages() -> PathBuf {
    let dir = given::or("E2E_PACKAGES", binary("register").expect("it was built").with_file_name("packages"));
    let dir = fs::canonicalize(&dir).unwrap_or(dir);
    assert!(dir.exists(), "no packages: run deploy/packages.sh dev {}", dir.display());
    dir
}

/// Machines of one test; they and all that was started for them go with this.
struct Machines {
    name: String,
    dir: tempfile::TempDir,
}

impl Machines {
    fn new(test: &str) -> Self {
        let name = format!("e2e-packages-{test}-{}", std::process::id());
        docker(&["network", "create", &name]);
        Self { name, dir: tempfile::tempdir().expect("a directory") }
    }

    fn full(&self, machine: &str) -> String {
        format!("{}-{machine}", self.name)
    }

    /// Starts a machine with this test's packages in /root/dist, Docker's socket, and a group for it.
    fn start(&self, machine: &str) {
        let shared = self.dir.path().join(machine);
        fs::create_dir_all(&shared).expect("a directory");
        let dist = format!("{}:/root/dist:ro", packages().display());
        let shared = format!("{}:/etc/docker-register", shared.display());
        let full = self.full(machine);
        docker(&[
            "run",
            "-d",
            "--name",
            &full,
            "--hostname",
            machine,
            "--network",
            &self.name,
            "--cap-add",
            "SYS_ADMIN",
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "apparmor=unconfined",
            "--tmpfs",
            "/run",
            "--tmpfs",
            "/tmp",
            "-v",
            "/sys/fs/cgroup:/sys/fs/cgroup",
            "-v",
            "/var/run/docker.sock:/var/run/docker.sock",
            "-v",
            &dist,
            "-v",
            &shared,
            IMAGE,
        ]);
        self.until("systemd", machine, || {
            let state = self.try_on(machine, "systemctl is-system-running");
            ["running", "degraded"].contains(&String::from_utf8_lossy(&state.stdout).trim()).then_some(())
        });
        self.on(machine, "groupadd -g $(stat -c %g /var/run/docker.sock) docker 2>/dev/null || groupmod -n docker $(stat -c %G /var/run/docker.sock)");
    }

    /// What the containers of a host are known by: no address stands in it, since the page's are replaced.
    fn mark(&self, host: &str) -> String {
        format!("{}-{}", self.name, host.rsplit('.').next().unwrap_or_default())
    }

    fn address(&self, machine: &str) -> String {
        docker(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &self.full(machine)])
    }

    /// A command's end on a machine.
    fn try_on(&self, machine: &str, command: &str) -> Output {
        run(Command::new("docker").args(["exec", &self.full(machine), "bash", "-ec", command]))
    }

    fn on(&self, machine: &str, command: &str) -> String {
        let output = self.try_on(machine, command);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success(),
            "{machine}: {command}: {}\n{out}\n{err}\n{}",
            output.status,
            self.journal(machine)
        );
        out.trim().to_owned()
    }

    fn journal(&self, machine: &str) -> String {
        let output = self.try_on(machine, "journalctl -n 40 --no-pager -u register -u discover -u etcd");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn until<T>(&self, what: &str, machine: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(found) = found() {
                return found;
            }
            std::thread::sleep(Duration::from_millis(100)); // between two looks, until the deadline
        }
        panic!("{machine}: {what} did not happen:\n{}", self.journal(machine));
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        // A machine is asked first, so that systemd removes its control groups.
        for filter in [
            format!("name=^{}-10", self.name),
            format!("name=^{}-", self.name),
            format!("label=e2e.packages={}", self.name),
        ] {
            let mine = run(Command::new("docker").args(["ps", "-aq", "--filter", &filter]));
            for id in String::from_utf8_lossy(&mine.stdout).split_whitespace() {
                run(Command::new("docker").args(["stop", "--time", "10", id]));
                run(Command::new("docker").args(["rm", "-fv", id]));
            }
        }
        run(Command::new("docker").args(["network", "rm", &self.name]));
    }
}

/// Installed, configured, upgraded and purged: HAProxy outlives the upgrade, and nothing outlives the purge.
#[test]
fn the_packages_install_upgrade_and_leave_nothing() {
    let machines = Machines::new("life");
    machines.start("one");
    let before = machines.on("one", &format!("{FILES} > /root/before; wc -l < /root/before"));
    assert!(before.parse::<u32>().is_ok_and(|lines| lines > 1000), "{before}");

    let said = machines.on("one", "apt-get install -y /root/dist/docker-*.deb 2>&1");
    assert!(said.contains("Set ETCD_HOST in /etc/default/register"), "it says what to do next: {said}");
    assert_eq!(machines.on("one", "systemctl is-enabled register discover || true"), "disabled\ndisabled");
    let page = "dpkg-deb --fsys-tarfile /root/dist/docker-register_*.deb | tar -xO ./usr/share/man/man1/register-run.1.gz | zcat";
    assert!(machines.on("one", page).contains(r"etcd\-host"), "there is a manual page for each command");
    machines.on("one", "register --version && discover --version");

    machines.on(
        "one",
        "systemctl start etcd
         echo ETCD_HOST=127.0.0.1 >> /etc/default/discover; echo DISCOVER_ALLOW_LOOPBACK=true >> /etc/default/discover
         printf 'ETCD_HOST=127.0.0.1\\nHOST_IP=127.0.0.1\\nREGISTER_ALLOW_LOOPBACK=true\\nREGISTER_FILTER=label=e2e.nobody\\n' >> /etc/default/register
         systemctl enable --now register discover",
    );
    machines.on("one", "discover status --ready --wait 60s && register status --ready --wait 60s");
    let exposure = |unit: &str| {
        let text = machines.on("one", &format!("systemd-analyze security --no-pager {unit} | tail -1"));
        let number = text.split_whitespace().find_map(|word| word.parse::<f32>().ok());
        number.unwrap_or_else(|| panic!("{text}"))
    };
    for unit in ["register", "discover"] {
        assert!(exposure(unit) <= 3.0, "{unit}: {}", exposure(unit));
    }

    let haproxy = || machines.on("one", "pgrep -o -x haproxy");
    let agent = || machines.on("one", "systemctl show -p MainPID --value discover");
    let (master, old) = (haproxy(), agent());
    // Another version, by its number alone.
    machines.on(
        "one",
        "cd /tmp && dpkg-deb -R /root/dist/docker-discover_*.deb new && sed -i 's/^Version: .*/Version: 99.0.0/' new/DEBIAN/control
         dpkg-deb -Znone -b new new.deb && apt-get install -y ./new.deb && rm -r new new.deb",
    );
    machines.on("one", "discover status --ready --wait 60s");
    assert_ne!(agent(), old, "the new agent runs");
    assert_eq!(haproxy(), master, "HAProxy goes on over an upgrade");
    assert!(machines.on("one", "cat /etc/default/discover").contains("ETCD_HOST=127.0.0.1"), "settings are kept");

    machines.on("one", "apt-get purge -y docker-register docker-discover && systemctl stop etcd");
    machines.until("the end of HAProxy", "one", || {
        (!machines.try_on("one", "pgrep -x haproxy").status.success()).then_some(())
    });
    let left = machines.on(
        "one",
        &format!(
            "{FILES} | comm -13 /root/before - | grep -v -e /var/lib/etcd -e /var/lib/systemd -e ^/tmp -e ^/run || true"
        ),
    );
    assert_eq!(left, "", "purged");
}

/// A block of the page's commands: the hosts it is for, and the way it is for, if only one.
struct Block {
    hosts: Vec<&'static str>,
    way: Option<&'static str>,
    commands: String,
}

/// The blocks that a comment `<!-- on HOST… [by WAY] -->` marks, in their order.
fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = PAGE.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(mark) = line.strip_prefix("<!-- on ").and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        let (hosts, way) = mark.split_once(" by ").map_or((mark, None), |(hosts, way)| (hosts, Some(way)));
        let mut commands = String::new();
        while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with("    ")) {
            commands.push_str(line.strip_prefix("    ").unwrap_or_default());
            commands.push('\n');
        }
        blocks.push(Block { hosts: hosts.split(' ').collect(), way, commands: commands.trim().to_owned() });
    }
    blocks
}

/// Does a block's lines for one host. What is the network's work or Docker's is this machine's; the rest is done there.
fn perform(machines: &Machines, host: &'static str, block: &Block, real: &dyn Fn(&str) -> String) {
    let mut there = String::new();
    let flush = |there: &mut String| {
        if !there.trim().is_empty() {
            machines.on(host, &real(&format!("me={host}\n{}", std::mem::take(there))));
        }
    };
    for line in block.commands.lines() {
        if line.starts_with("me=") {
            // Each part of the block has it.
        } else if let Some(rest) = line.strip_prefix("scp -pr /etc/docker-register ") {
            flush(&mut there);
            let to = rest.split(':').next().expect("HOST:DIR");
            let (from, to) = (machines.dir.path().join(host), machines.dir.path().join(to));
            ok(Command::new("cp").args(["-a", &format!("{}/.", from.display()), &to.display().to_string()]));
        } else if line.starts_with("docker ") {
            flush(&mut there);
            containers(machines, host, line);
        } else {
            // Only containers of this test are registered, by their own addresses: the machines share one Docker, and its name.
            if line == "END" && there.contains("HOST_IP=") {
                let mark = machines.mark(host);
                there.push_str(&format!(
                    "NODE_NAME={mark}\nREGISTER_FILTER=label=e2e.packages.on={mark}\nREGISTER_INTERNAL=true\nREGISTER_NETWORK={}\n",
                    machines.name
                ));
            }
            there.push_str(line);
            there.push('\n');
        }
    }
    flush(&mut there);
}

/// A line that starts with `docker`, done by this machine's Docker as if it were the host's own.
fn containers(machines: &Machines, host: &str, line: &str) {
    if line.starts_with("docker load") {
        // The images are here.
    } else if let Some(rest) = line.strip_prefix("docker compose -f /root/roles/") {
        let role = rest.split(' ').next().expect("a file");
        compose(machines, host, role);
    } else {
        let run = line.strip_prefix("docker run -d -p 80 ").expect("the page's only other line");
        let run = run.replace("traefik/whoami", WHOAMI);
        let labels = [format!("e2e.packages.on={}", machines.mark(host)), format!("e2e.packages={}", machines.name)];
        let mut command = Command::new("docker");
        command.args(["run", "-d", "--network", &machines.name, "--label", &labels[0], "--label", &labels[1]]);
        ok(command.args(run.split(' ')));
    }
}

/// Brings a role's file up on a host: its network is the machine's, its files are the machine's.
fn compose(machines: &Machines, host: &str, role: &str) {
    let full = machines.full(host);
    let dir = machines.dir.path().join(format!("roles-{host}"));
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("agent.env"), machines.on(host, "cat /root/roles/agent.env")).expect("a file");
    let text = fs::read_to_string(script("roles").join(role)).expect("the role");
    assert!(text.contains("network_mode: host"), "{role}");
    let labels = format!("network_mode: \"container:{full}\"\n    labels: {{e2e.packages: \"{}\"}}", machines.name);
    fs::write(dir.join(role), text.replace("network_mode: host", &labels)).expect("a file");
    let tls = machines.dir.path().join(host).join("tls");
    let plugin = run(Command::new("docker").args(["compose", "version"])).status.success();
    let mut command = Command::new(if plugin { "docker" } else { "docker-compose" });
    command.args(plugin.then_some("compose")).args(["-p", &full.replace('.', "_"), "-f"]).arg(dir.join(role));
    ok(command.args(["up", "-d"]).env("TLS_DIR", tls).stdin(Stdio::null()));
}

fn walk(way: &'static str) {
    let machines = Machines::new(way);
    for host in ADDRESSES {
        machines.start(host);
        ok(Command::new("docker").args(["exec", &machines.full(host), "mkdir", "-p", "/root/roles"]));
    }
    let addresses = ADDRESSES.map(|host| (host, machines.address(host)));
    let real = |text: &str| addresses.iter().fold(text.to_owned(), |text, (page, own)| text.replace(page, own));
    let blocks = blocks();
    assert!(blocks.len() >= 7, "{} blocks", blocks.len());
    let began = Instant::now();
    for block in &blocks {
        // etcd is the packages' in both.
        let etcd = block.commands.contains("/etc/default/etcd");
        if block.way.is_none_or(|only| only == way) || etcd {
            for host in &block.hosts {
                perform(&machines, host, block, &real);
            }
        }
    }
    let mut said = std::io::stderr().lock();
    writeln!(said, "three hosts by {way}: {:?}", began.elapsed()).expect("standard error");

    // Both containers answer, by turns, and one that stops is missed by nobody.
    let ask = || machines.on("10.1.0.13", "curl -s --retry 10 --retry-all-errors http://127.0.0.1:8000/ | head -1");
    let names = machines.until("both answer", "10.1.0.13", || {
        let names: std::collections::BTreeSet<String> = (0..6).map(|_| ask()).collect();
        (names.len() == 2).then_some(names)
    });
    let one = names.iter().next().expect("two");
    let id = one.rsplit(' ').next().expect("a name");
    docker(&["stop", "--time", "5", id]);
    for _ in 0..20 {
        assert_ne!(&ask(), one, "nobody gets to the stopped one");
    }
}

#[test]
fn three_hosts_by_packages() {
    walk("packages");
}

#[test]
fn three_hosts_by_images() {
    walk("images");
}
