//! `discover supervise` with a real HAProxy and real children.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy excuses only functions marked as tests"
)]

mod support;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use discover::haproxy::process::check::CHECK_TIMEOUT;
use discover::haproxy::process::launch::{Output, alive};
use discover::supervise::{Options, SuperviseError, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Lab, eventually, free_port, get, http_server, programs};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A supervisor reaps every stranger's zombie of its process, so no two of these tests may share the process at one time.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Supervised {
    cancel: CancellationToken,
    task: JoinHandle<Result<(), SuperviseError>>,
}

fn supervise(options: Options) -> Supervised {
    let cancel = CancellationToken::new();
    Supervised { task: tokio::spawn(run(options, cancel.clone())), cancel }
}

impl Supervised {
    async fn stop(self) {
        self.cancel.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.task).await.unwrap().unwrap().unwrap();
    }
}

fn shell(script: &str) -> Option<Vec<std::ffi::OsString>> {
    Some(["/bin/sh", "-c", script].map(Into::into).to_vec())
}

fn beside_an_agent(lab: &Lab, script: &str) -> Options {
    let (launch, grace) = (lab.launch.clone(), Duration::from_secs(3));
    Options {
        launch,
        file: None,
        agent: shell(script),
        grace,
        reload_interval: Duration::ZERO,
        check_timeout: CHECK_TIMEOUT,
    }
}

/// HAProxy reads the supervisor's copy; the watched file is elsewhere.
fn with_file(lab: &Lab, file: PathBuf) -> Options {
    let mut launch = lab.launch.clone();
    launch.config = lab.dir.path().join("copy.cfg");
    let (grace, reload_interval) = (Duration::from_secs(3), Duration::ZERO);
    Options { launch, file: Some(file), agent: None, grace, reload_interval, check_timeout: CHECK_TIMEOUT }
}

/// A config that answers `text` on `port`.
fn answering(port: u16, text: &str) -> String {
    format!(
        "frontend f\n    bind 127.0.0.1:{port}\n    http-request return status 200 content-type text/plain string {text}\n"
    )
}

/// The master and the current worker. Right after a start or a reload of 2.6 the master executes itself and answers nobody for a moment.
async fn processes(lab: &Lab) -> (i32, i32) {
    let mut found = None;
    eventually("the master answers", async || {
        found = lab.launch.master().show_proc().await.ok().and_then(|p| Some((p.master.pid, p.current_worker()?)));
        found.is_some()
    })
    .await;
    found.unwrap()
}

async fn answers(port: u16, text: &str) {
    eventually(text, async || get(port).await == text).await;
}

#[tokio::test]
async fn a_crashing_agent_is_started_again_and_haproxy_goes_on() {
    let _alone = ALONE.lock().await;
    for program in programs() {
        let port = free_port();
        let lab = Lab::new(&program, &answering(port, "one"));
        let runs = lab.dir.path().join("runs");
        let script = format!("echo $DISCOVER_HAPROXY_MASTER >> {0}; sleep 0.1; kill -9 $$", runs.display());
        let supervised = supervise(beside_an_agent(&lab, &script));
        answers(port, "one").await;
        let before = processes(&lab).await;
        let count = || std::fs::read_to_string(&runs).unwrap_or_default().lines().count();
        let now = count();
        eventually("it was started again and again", async || count() >= now + 2).await;
        assert_eq!(processes(&lab).await, before, "neither a new master nor a reload");
        let told = std::fs::read_to_string(&runs).unwrap();
        assert!(told.starts_with(&lab.launch.master_socket.display().to_string()), "{told}");
        supervised.stop().await;
        assert!(!alive(before.0));
    }
}

#[tokio::test]
async fn a_dead_haproxy_is_started_again() {
    let _alone = ALONE.lock().await;
    for program in programs() {
        let port = free_port();
        let lab = Lab::new(&program, &answering(port, "one"));
        let supervised = supervise(beside_an_agent(&lab, "exec sleep 1000"));
        answers(port, "one").await;
        let (pid, serving) = processes(&lab).await;
        kill(Pid::from_raw(serving), Signal::SIGKILL).unwrap();
        eventually("another master", async || processes(&lab).await.0 != pid).await;
        answers(port, "one").await;
        supervised.stop().await;
    }
}

#[tokio::test]
async fn the_agent_is_stopped_before_haproxy() {
    let _alone = ALONE.lock().await;
    let port = free_port();
    let lab = Lab::new(&programs()[0], &answering(port, "one"));
    let (up, seen) = (lab.dir.path().join("up"), lab.dir.path().join("seen"));
    // At its end the agent writes down whether HAProxy is still there.
    let script = format!(
        "trap 'test -S {} && kill -0 $(cat {1}) && echo haproxy-alive > {2}; exit 0' TERM; touch {0}.ready; while :; do sleep 0.05; done",
        lab.launch.master_socket.display(),
        up.display(),
        seen.display()
    );
    let supervised = supervise(beside_an_agent(&lab, &script));
    answers(port, "one").await;
    let pid = processes(&lab).await.0;
    std::fs::write(&up, pid.to_string()).unwrap();
    let ready = PathBuf::from(format!("{}.ready", lab.launch.master_socket.display()));
    eventually("the agent listens", async || ready.exists()).await;
    supervised.stop().await;
    assert_eq!(std::fs::read_to_string(&seen).unwrap().trim(), "haproxy-alive");
    assert!(!alive(pid));
}

#[tokio::test]
async fn orphans_are_reaped_and_own_children_are_not() {
    let _alone = ALONE.lock().await;
    let port = free_port();
    let lab = Lab::new(&programs()[0], &answering(port, "one"));
    let orphan = lab.dir.path().join("orphan");
    let script =
        format!("(sh -c 'echo $$ > {0}.tmp; mv {0}.tmp {0}; exec sleep 0.3' &); exec sleep 1000", orphan.display());
    let supervised = supervise(beside_an_agent(&lab, &script));
    eventually("the orphan runs", async || orphan.exists()).await;
    let pid: i32 = std::fs::read_to_string(&orphan).unwrap().trim().parse().unwrap();
    // A zombie would still have its id.
    eventually("the orphan is reaped", async || !alive(pid)).await;
    answers(port, "one").await;
    supervised.stop().await;
}

#[tokio::test]
async fn without_a_config_haproxy_waits_for_the_agent_to_write_it() {
    let _alone = ALONE.lock().await;
    let port = free_port();
    let lab = Lab::new(&programs()[0], &answering(port, "late"));
    let later = lab.dir.path().join("later.cfg");
    std::fs::rename(&lab.launch.config, &later).unwrap();
    let script = format!("sleep 0.5; mv {} {}; exec sleep 1000", later.display(), lab.launch.config.display());
    let supervised = supervise(beside_an_agent(&lab, &script));
    answers(port, "late").await;
    supervised.stop().await;
}

/// Writes what a lab's config would be to another file.
fn put(lab: &Lab, body: &str, at: &Path) {
    lab.write(body);
    std::fs::write(at, std::fs::read(&lab.launch.config).unwrap()).unwrap();
}

#[tokio::test]
async fn a_watched_file_is_loaded_however_it_is_replaced_and_a_bad_one_is_refused() {
    let _alone = ALONE.lock().await;
    for program in programs() {
        let port = free_port();
        let lab = Lab::new(&program, "");
        let dir = lab.dir.path();
        // A ConfigMap: the file is a link through a directory link that is swapped.
        for name in ["..1", "..2"] {
            std::fs::create_dir(dir.join(name)).unwrap();
        }
        symlink("..1", dir.join("..data")).unwrap();
        symlink("..data/cfg", dir.join("cfg")).unwrap();
        put(&lab, &answering(port, "one"), &dir.join("..1/cfg"));
        put(&lab, &answering(port, "two"), &dir.join("..2/cfg"));
        let supervised = supervise(with_file(&lab, dir.join("cfg")));
        answers(port, "one").await;
        let pid = processes(&lab).await.0;

        symlink("..2", dir.join("..tmp")).unwrap();
        std::fs::rename(dir.join("..tmp"), dir.join("..data")).unwrap();
        answers(port, "two").await;
        put(&lab, &answering(port, "three"), &dir.join("..2/cfg")); // in place
        answers(port, "three").await;
        put(&lab, &answering(port, "four"), &dir.join("new"));
        std::fs::rename(dir.join("new"), dir.join("cfg")).unwrap(); // the link itself is replaced
        answers(port, "four").await;

        let serving = processes(&lab).await;
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let conflict = format!("{}frontend g\n    bind {}\n", answering(port, "bad"), taken.local_addr().unwrap());
        for bad in ["no-such-keyword\n".to_owned(), conflict] {
            put(&lab, &bad, &dir.join("cfg"));
            // Time to notice and to refuse; the assertion holds at every moment, so a slow machine can only make it weaker.
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert_eq!(get(port).await, "four", "not one request fails meanwhile");
            }
            assert_eq!(processes(&lab).await, serving, "no reload was tried");
        }
        std::fs::remove_file(dir.join("cfg")).unwrap();
        assert_eq!(get(port).await, "four");
        // HAProxy that has to start again finds the last good config, not the bad one.
        kill(Pid::from_raw(serving.1), Signal::SIGKILL).unwrap();
        eventually("another master", async || processes(&lab).await.0 != pid).await;
        answers(port, "four").await;
        put(&lab, &answering(port, "five"), &dir.join("cfg"));
        answers(port, "five").await;
        supervised.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_haproxy_refuses_is_left_out_of_a_watched_file_alone() {
    let _alone = ALONE.lock().await;
    for program in programs() {
        let port = free_port();
        let lab = Lab::new(&program, "");
        let file = lab.dir.path().join("cfg");
        let (a, b) = (http_server("a", Duration::ZERO).await, http_server("b", Duration::ZERO).await);
        let web = |words: [&str; 2]| {
            let servers = format!("    server a {a} {}\n    server b {b} {}\n", words[0], words[1]);
            format!("listen web\n    bind 127.0.0.1:{port}\n    mode http\n{servers}")
        };
        put(&lab, &web(["no-such-word 7", ""]), &file);
        let supervised = supervise(with_file(&lab, file.clone()));
        answers(port, "b").await;
        put(&lab, &web(["", "weight 9 no-such-word"]), &file);
        answers(port, "a").await;
        for _ in 0..4 {
            assert_eq!(get(port).await, "a", "the other one is left out");
        }
        // Where all are refused it is no registration's fault: nothing changes.
        let serving = processes(&lab).await;
        put(&lab, &web(["no-such-word", "no-such-word"]), &file);
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(100)).await; // the assertion holds at every moment
            assert_eq!(get(port).await, "a");
        }
        assert_eq!(processes(&lab).await, serving, "no reload was tried");
        put(&lab, &web(["disabled", ""]), &file);
        answers(port, "b").await;
        supervised.stop().await;
    }
}

#[tokio::test]
async fn a_new_supervisor_with_a_bad_file_starts_the_last_good_config() {
    let _alone = ALONE.lock().await;
    let port = free_port();
    let lab = Lab::new(&programs()[0], "");
    let file = lab.dir.path().join("cfg");
    put(&lab, &answering(port, "good"), &file);
    let supervised = supervise(with_file(&lab, file.clone()));
    answers(port, "good").await;
    supervised.stop().await;
    put(&lab, "no-such-keyword\n", &file);
    let supervised = supervise(with_file(&lab, file.clone()));
    answers(port, "good").await;
    put(&lab, &answering(port, "mended"), &file);
    answers(port, "mended").await;
    supervised.stop().await;
}

#[tokio::test]
async fn a_haproxy_that_is_there_already_is_adopted() {
    let _alone = ALONE.lock().await;
    let port = free_port();
    let mut lab = Lab::start(&programs()[0], &answering(port, "one")).await;
    let pid = lab.running.take().unwrap().master;
    let (before, options) = (processes(&lab).await, beside_an_agent(&lab, "exec sleep 1000"));
    assert!(matches!(options.launch.output, Output::File(_)));
    let up = lab.dir.path().join("up");
    let script = format!("touch {}; exec sleep 1000", up.display());
    let supervised = supervise(Options { agent: shell(&script), ..options });
    eventually("the agent runs", async || up.exists()).await;
    answers(port, "one").await;
    assert_eq!(processes(&lab).await, before);
    assert_eq!(pid, before.0);
    supervised.stop().await;
    assert!(!alive(pid));
}

/// Whoever writes the mounted file may do so as often as they like.
#[tokio::test]
async fn a_file_that_changes_all_the_time_is_loaded_once_in_a_while() {
    let _alone = ALONE.lock().await;
    for program in programs() {
        let port = free_port();
        let lab = Lab::new(&program, "");
        let file = lab.dir.path().join("watched.cfg");
        let write = |n: usize| {
            lab.write(&answering(port, &format!("v{n}")));
            std::fs::rename(&lab.launch.config, &file).unwrap();
        };
        write(0);
        let reload_interval = Duration::from_secs(3);
        let supervised = supervise(Options { reload_interval, ..with_file(&lab, file.clone()) });
        answers(port, "v0").await;
        let (began, mut workers) = (tokio::time::Instant::now(), std::collections::BTreeSet::new());
        for n in 1..=20 {
            write(n);
            workers.insert(processes(&lab).await.1);
            tokio::time::sleep(Duration::from_millis(100)).await; // not a guess: so often it is written
        }
        answers(port, "v20").await;
        workers.insert(processes(&lab).await.1);
        let most = began.elapsed().as_secs() / 3 + 2;
        assert!(workers.len() as u64 <= most, "HAProxy {}: workers {workers:?}", lab.version);
        supervised.stop().await;
    }
}
