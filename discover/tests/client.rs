//! `discover ls`, `watch`, `wait` and `exec` as programs, over a real etcd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use registry::store::etcd::EtcdStore;
use registry::store::{Op, Store as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use testing::etcd::Etcd;
use testing::free_port;

const DEADLINE: Duration = Duration::from_secs(60);

struct Lab {
    etcd: Etcd,
    store: EtcdStore,
    dir: TempDir,
}

/// A running command. Dropping it kills it.
struct Running(Child, BufReader<ChildStdout>);

impl Lab {
    fn new() -> Self {
        agent::tls::install_provider();
        let etcd = Etcd::start();
        Self { store: etcd.store(), etcd, dir: TempDir::new().unwrap() }
    }

    async fn put(&self, key: &str, value: &str) -> i64 {
        let op = Op::put(format!("/backends/{key}"), value.as_bytes(), None);
        self.store.put_all(vec![op]).await.unwrap().unwrap().revision.0
    }

    async fn delete(&self, key: &str) -> i64 {
        self.store.put_all(vec![Op::delete(format!("/backends/{key}"))]).await.unwrap().unwrap().revision.0
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_discover"));
        command.args(args).env("ETCD_HOST", self.etcd.endpoint().to_string()).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    fn start(&self, args: &[&str]) -> Running {
        let mut child = self.command(args).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Running(child, out)
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).stderr(Stdio::piped()).output().unwrap()
    }

    /// A file that goes with the test: programs that run as long as it is there leave nobody behind.
    fn alive(&self) -> String {
        let path = self.dir.path().join("alive");
        std::fs::write(&path, "").unwrap();
        path.display().to_string()
    }
}

impl Running {
    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.1.read_line(&mut line).unwrap() > 0, "it ended: {:?}", self.0.try_wait());
        line.trim_end().to_owned()
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    /// Its exit code; it must have closed its output before.
    fn code(&mut self) -> Option<i32> {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn watch_prints_a_line_for_each_change_and_goes_on_after_any_revision() {
    let lab = Lab::new();
    let first = lab.put("web/a", "h1:80").await;
    let mut watching = lab.start(&["watch"]);
    let state = watching.json();
    assert_eq!((&state["revision"], state["services"]["web"][0]["host"].as_str()), (&json!(first), Some("h1")));
    let second = lab.put("web/b", r#"{"host":"h2","port":80,"status":"draining"}"#).await;
    let added = watching.json();
    assert_eq!(
        (added["revision"].as_i64(), &added["live"], &added["service"]),
        (Some(second), &json!(1), &json!("web"))
    );
    let third = lab.delete("web/a").await;
    assert_eq!(watching.json()["removed"][0]["id"], "a");
    lab.put("db/x", "h3:5432").await;

    // The same lines again for whoever was away.
    let mut resumed = lab.start(&["watch", "web", "--from", &first.to_string()]);
    assert_eq!(resumed.json(), added);
    assert_eq!(resumed.json()["revision"], third);

    // What the registry has forgotten cannot be told one by one.
    let now = lab.put("web/c", "h4:80").await;
    lab.etcd.operator().await.compact(now, None).await.unwrap();
    let whole = lab.start(&["watch", "web", "--from", &first.to_string()]).json();
    assert_eq!((&whole["reset"], &whole["revision"]), (&json!("compacted"), &json!(now)));
    assert_eq!(whole["services"]["web"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn watch_ends_when_nobody_reads_any_more() {
    let lab = Lab::new();
    let mut watching = lab.start(&["watch"]);
    watching.line();
    let Running(child, out) = &mut watching;
    drop(std::mem::replace(
        out,
        BufReader::new(Command::new("true").stdout(Stdio::piped()).spawn().unwrap().stdout.unwrap()),
    ));
    let until = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "it hangs, although nothing changes and nobody reads");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_reader_that_has_gone_ends_a_listing_quietly() {
    let lab = Lab::new();
    lab.put("web/a", "h1:80").await;
    for args in [["ls", "--json"].as_slice(), &["ls"], &["ls", "web"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = lab.command(args).stdout(writer).output().unwrap();
        assert_eq!((ended.status.code(), stderr(&ended).as_str()), (Some(0), ""), "{args:?}");
    }
}

#[tokio::test]
async fn wait_ends_with_0_once_enough_backends_take_clients_and_with_1_if_not_in_time() {
    let lab = Lab::new();
    lab.put("web/a", "h1:80").await;
    lab.put("web/b", r#"{"host":"h2","port":80,"status":"draining"}"#).await;
    assert_eq!(lab.output(&["wait", "web"]).status.code(), Some(0));
    let late = lab.output(&["wait", "web", "--count", "2", "--timeout", "300ms"]);
    assert_eq!(late.status.code(), Some(1));
    assert!(stderr(&late).contains("web has 1 of 2"), "{}", stderr(&late));
    let mut waiting = lab.start(&["wait", "web", "--count", "2"]);
    lab.put("web/c", "h3:80").await;
    assert_eq!(waiting.code(), Some(0));
    let nobody = format!("127.0.0.1:{}", free_port());
    let silent = lab.output(&["wait", "web", "--timeout", "300ms", "--etcd-host", &nobody]);
    assert!(silent.status.code() == Some(1) && stderr(&silent).contains(&nobody), "{}", stderr(&silent));
}

/// An agent's admin server that answers every question so.
fn agent_that_says(answers: &'static [&'static str]) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let (mut stream, mut head) = (stream.unwrap(), [0; 4096]);
            let _ = stream.read(&mut head); // who hangs up asks nothing
            let body = answers[n.min(answers.len() - 1)];
            let code = if body.contains("error") { "404 Not Found" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {code}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn wait_and_ls_believe_what_the_agents_haproxy_sees() {
    let lab = Lab::new();
    lab.put("web/a", "h1:80").await;
    let wait = |agent: &str, more: &[&str]| {
        let flags = [&["wait", "web", "--timeout", "700ms", "--admin", agent], more].concat();
        lab.output(&flags)
    };
    let down = agent_that_says(&[r#"{"seen_by":"HAProxy","up":0}"#]);
    let late = wait(&down, &[]);
    assert_eq!(late.status.code(), Some(1));
    assert!(stderr(&late).contains("0 of 1 that can take a request"), "{}", stderr(&late));
    let unknown = wait(&agent_that_says(&[r#"{"error":"no service"}"#]), &[]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("does not route the service"), "{}", stderr(&unknown));
    let later = agent_that_says(&[r#"{"seen_by":"HAProxy","up":0}"#, r#"{"seen_by":"HAProxy","up":1}"#]);
    assert_eq!(wait(&later, &[]).status.code(), Some(0), "it is asked again");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    assert_eq!(wait(&nobody, &[]).status.code(), Some(1), "the agent that was named does not answer");
    let alone = lab.command(&["wait", "web", "--registered"]).env("DISCOVER_ADMIN", &down[7..]).output().unwrap();
    assert_eq!(alone.status.code(), Some(0));
    let seen = agent_that_says(&[r#"{"seen_by":"HAProxy","services":{"web":[{"id":"a","state":"down"}]}}"#]);
    let listed = lab.output(&["ls", "--json", "--admin", &seen]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed["seen_by"], &listed["services"]["web"][0]["state"]), (&json!("HAProxy"), &json!("down")));
    let table = String::from_utf8(lab.output(&["ls", "--admin", &seen]).stdout).unwrap();
    assert!(table.contains("up      down") && table.contains("STATE what is seen by HAProxy"), "{table}");
}

#[tokio::test]
async fn exec_waits_for_its_services_and_tells_where_they_are() {
    let lab = Lab::new();
    let script = "echo $MY_DB_HOST $MY_DB_PORT $WEB_HOST; exit 7";
    let mut program = lab.start(&["exec", "--services", "my-db", "--", "sh", "-c", script]);
    lab.put("web/a", "h1:80").await;
    lab.put("my-db/a", "10.0.0.7:5432").await;
    assert_eq!(program.line(), "10.0.0.7 5432");
    assert_eq!(program.code(), Some(7));
    let late = lab.output(&["exec", "--services", "my-db,none", "--timeout", "300ms", "--", "true"]);
    assert!(late.status.code() == Some(1) && stderr(&late).contains("none has 0 of 1"), "{}", stderr(&late));
    // Without --services: all that is there, but nothing that is set already.
    let all = lab.command(&["exec", "--", "sh", "-c", "echo $MY_DB_HOST $WEB_HOST"]).env("WEB_HOST", "mine").output();
    assert_eq!(String::from_utf8(all.unwrap().stdout).unwrap(), "10.0.0.7 mine\n");
    assert_eq!(lab.output(&["exec", "--", "/nowhere"]).status.code(), Some(1));
}

#[tokio::test]
async fn exec_passes_signals_on_and_ends_as_the_program_does() {
    let lab = Lab::new();
    let alive = lab.alive();
    let script = format!(
        "trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM; echo ready; while [ -e {alive} ]; do sleep 0.05; done"
    );
    let mut program = lab.start(&["exec", "--", "sh", "-c", &script]);
    assert_eq!(program.line(), "ready");
    program.send(Signal::SIGUSR1);
    assert_eq!(program.line(), "usr1");
    program.send(Signal::SIGTERM);
    assert_eq!(program.line(), "term");
    assert_eq!(program.code(), Some(3));
    let killed = lab.output(&["exec", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.status.code(), Some(128 + 9));
}

#[tokio::test]
async fn exec_restarts_the_program_or_tells_it_when_its_services_move() {
    let lab = Lab::new();
    lab.put("web/a", "h1:80").await;
    let alive = lab.alive();
    let script = format!("echo at $WEB_HOST; trap 'echo told' HUP; while [ -e {alive} ]; do sleep 0.05; done");
    let on_change =
        |what| ["exec", "--settle", "50ms", "--on-change", what, "--services", "web", "--", "sh", "-c", &script];
    let mut told = lab.start(&on_change("SIGHUP"));
    let mut restarted = lab.start(&on_change("restart"));
    assert_eq!((told.line(), restarted.line()), ("at h1".to_owned(), "at h1".to_owned()));
    // One more is no move, and nor is the loss of the last one; the move itself is.
    lab.put("web/b", "h2:80").await;
    lab.delete("web/b").await;
    lab.delete("web/a").await;
    lab.put("web/c", "h3:80").await;
    assert_eq!((told.line(), restarted.line()), ("told".to_owned(), "at h3".to_owned()));
    for mut running in [told, restarted] {
        running.send(Signal::SIGTERM);
        let mut rest = String::new();
        running.1.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), running.code()), ("", Some(128 + 15)));
    }
    let stubborn = format!("trap '' TERM; echo run >> {alive}; echo up; while [ -e {alive} ]; do sleep 0.05; done");
    let grace = ["exec", "--settle", "10ms", "--grace", "100ms", "--on-change", "restart", "--", "sh", "-c", &stubborn];
    let mut killed = lab.start(&grace);
    assert_eq!(killed.line(), "up");
    lab.put("web/d", "h4:80").await;
    lab.delete("web/c").await;
    assert_eq!(killed.line(), "up");
    assert_eq!(std::fs::read_to_string(&alive).unwrap(), "run\nrun\n");
    std::fs::remove_file(&alive).unwrap();
    assert_eq!(killed.code(), Some(0));
}

#[tokio::test]
async fn ls_shows_the_state_that_watch_begins_with() {
    let lab = Lab::new();
    lab.put("web/a", "h1:80").await;
    lab.put("web/bad", "?").await;
    let listed: Value = serde_json::from_slice(&lab.output(&["ls", "--json"]).stdout).unwrap();
    let told = lab.start(&["watch"]).json();
    assert_eq!((&listed["services"], &listed["revision"]), (&told["services"], &told["revision"]));
    assert!(listed["quarantined"]["/backends/web/bad"].is_string());
    let docker = lab.output(&["watch", "--docker", "--from", "7"]);
    assert!(docker.status.code() == Some(64) && stderr(&docker).contains("no revisions"), "{}", stderr(&docker));
}
