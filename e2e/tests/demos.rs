//! The demos as `make demo` and `make demo-edge` start them, on ports and under names of the tests' own.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use e2e::agents::binary;
use e2e::scene::free_ports;
use e2e::{Context, Lab, Result, in_lab, wait};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// For eight containers to come or to go on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// The ports that deploy/demo.sh can be told.
const PORTS: [&str; 9] =
    ["SERVICE", "EDGE", "ETCD", "ETCD_PEER", "STATS", "REGISTER", "DISCOVER", "CLIENT", "MEMCACHED"];

/// One demo, under a name of its own. It sees no container but its own, and goes with this.
struct Demo<'a> {
    lab: &'a Lab,
    name: String,
    which: &'static str,
    environment: Vec<(String, String)>,
}

/// A part of it under way, in a process group of its own, as a shell starts it.
struct Run {
    child: Child,
    log: PathBuf,
}

impl<'a> Demo<'a> {
    fn new(lab: &'a Lab, which: &'static str) -> Result<Self> {
        let name = format!("e2e-demo{which}-{}", std::process::id());
        let ports = free_ports(PORTS.len())?;
        let ports = PORTS.iter().zip(ports).map(|(name, port)| (format!("DEMO_{name}_PORT"), port.to_string()));
        let others = [("DEMO_PROJECT", name.clone()), ("DEMO_BIN", binary("demo")?.to_string_lossy().into_owned())];
        let environment = others.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(ports).collect();
        Ok(Self { lab, name, which, environment })
    }

    fn start(&self, word: &str, log: &str) -> Result<Run> {
        let log = self.lab.dir().join(format!("{log}.log"));
        let output = File::create(&log).during("making a log")?;
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo.sh"));
        command.arg(word).arg(self.which).envs(self.environment.iter().cloned()).process_group(0);
        command.stdin(Stdio::null()).stderr(output.try_clone().during("making a log")?).stdout(output);
        Ok(Run { child: command.spawn().during("running deploy/demo.sh")?, log })
    }

    async fn done(&self, word: &str) -> Result<String> {
        let mut run = self.start(word, word)?;
        let status = run.ended().await?;
        assert!(status.success(), "{word}: {status}\n{}", run.said());
        Ok(run.said())
    }

    /// What Docker has of the project: containers, networks, volumes.
    fn left(&self) -> Vec<String> {
        let filter = format!("label=com.docker.compose.project={}", self.name);
        let ls = |what: &[&str]| {
            let output = Command::new("docker").args(what).args(["-q", "--filter", &filter]).output();
            let lines = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            lines.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        [ls(&["ps", "-a"]), ls(&["network", "ls"]), ls(&["volume", "ls"])].concat()
    }
}

impl Drop for Demo<'_> {
    fn drop(&mut self) {
        if !self.left().is_empty()
            && let Ok(mut run) = self.start("down", "end")
        {
            let _ = run.child.wait();
        }
    }
}

impl Run {
    fn said(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    async fn says(&self, words: &str) -> Result<()> {
        let waited = wait::until_true(words, PATIENCE, async || self.said().contains(words)).await;
        waited.during(self.said())
    }

    async fn ended(&mut self) -> Result<ExitStatus> {
        let ended = wait::until("its end", PATIENCE, async || self.child.try_wait().ok().flatten()).await;
        ended.during(self.said())
    }

    /// What Ctrl-C does: everything that the terminal started hears of it.
    fn interrupt(&self) -> Result<()> {
        let group = i32::try_from(self.child.id()).during("a process id")?;
        killpg(Pid::from_raw(group), Signal::SIGINT).during("interrupting the demo")
    }
}

#[test]
fn the_demo_shows_what_it_promises_and_goes() -> Result<()> {
    in_lab(async |lab| {
        let demo = Demo::new(lab, "")?;
        demo.done("up").await?;
        let shown = demo.done("show").await?;
        for act in ["requests failed", "whoami.local", "shop.local", "All of this goes on running"] {
            assert!(shown.contains(act), "{act}:\n{shown}");
        }
        demo.done("down").await?;
        assert_eq!(demo.left(), Vec::<String>::new());
        Ok(())
    })
}

#[test]
fn an_interrupted_demo_leaves_nothing_whether_it_comes_up_or_is_shown() -> Result<()> {
    in_lab(async |lab| {
        let demo = Demo::new(lab, "edge")?;
        let mut up = demo.start("up", "up")?;
        wait::until_true("something of the demo", PATIENCE, async || !demo.left().is_empty()).await?;
        up.interrupt()?;
        assert!(!up.ended().await?.success());
        assert!(up.said().contains("not up; removing"), "{}", up.said());
        assert_eq!(demo.left(), Vec::<String>::new(), "{}", up.said());

        demo.done("up").await?;
        let mut show = demo.start("show", "show")?;
        show.says("edge → ").await?; // a chain through all three tiers
        show.says("under load").await?;
        show.interrupt()?;
        assert_eq!(show.ended().await?.code(), Some(130), "{}", show.said());
        assert_eq!(demo.left(), Vec::<String>::new(), "{}", show.said());
        Ok(())
    })
}
