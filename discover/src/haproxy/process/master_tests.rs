use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

/// A master that gives these answers to `show proc`, one after the other (the last one for ever), and this one to `reload`; `None` hangs up.
fn scripted(dir: &Path, reload: &'static str, procs: &[Option<&'static str>]) -> MasterCli {
    let path = dir.join("m.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let procs = Arc::new(Mutex::new((0, procs.to_vec())));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = String::new();
            // As 3.0 does, it answers when our side is closed.
            stream.read_to_string(&mut asked).await.unwrap();
            if asked.starts_with("reload") && reload == SILENCE {
                tokio::spawn(async move {
                    let _held = stream;
                    std::future::pending::<()>().await
                });
                continue;
            }
            let answer = if asked.starts_with("reload") {
                Some(reload)
            } else {
                let mut procs = procs.lock().unwrap();
                let answer = procs.1[procs.0.min(procs.1.len() - 1)];
                procs.0 += 1;
                answer
            };
            let _ = stream.write_all(answer.unwrap_or("").as_bytes()).await;
        }
    });
    MasterCli::new(path).with_reload_deadline(Duration::from_millis(500))
}

/// No answer to `reload`, and no end of the connection.
const SILENCE: &str = "silence";

const BEFORE: &str = "1 master 0 [failed: 0] 0d 2.6.12\n# workers\n7 worker 0 0d 2.6.12\n";
const LOADED: &str =
    "1 master 1 [failed: 0] 0d 2.6.12\n# workers\n9 worker 0 0d 2.6.12\n# old workers\n7 worker 1 0d 2.6.12\n";
const FAILED: &str = "1 master 1 [failed: 1] 0d 2.6.12\n# workers\n7 worker 1 0d 2.6.12\n";
/// How 3.2 and 3.4 show the same.
const FAILED_QUIRK: &str = "1 master 1 [failed: 1] 0d 3.2.0\n# workers\n# old workers\n7 worker 1 0d 3.2.0\n";

#[tokio::test]
async fn without_an_answer_show_proc_tells_the_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let master = scripted(dir.path(), "", &[Some(BEFORE), None, Some(BEFORE), Some("garbage"), Some(LOADED)]);
    assert_eq!(master.reload().await.unwrap(), ReloadOutcome::Loaded { worker: 9, log: String::new() });
}

/// A 3.0 that executes the 2.6 that was put in its place.
#[tokio::test]
async fn an_older_master_in_the_place_of_the_one_that_was_asked_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let before = "1 master 0 [failed: 0] 0d 3.0.11\n# workers\n7 worker 0 0d 3.0.11\n";
    let master = scripted(dir.path(), SILENCE, &[Some(before), Some(before), Some(LOADED)]);
    let master = master.with_reload_deadline(Duration::from_secs(60));
    assert_eq!(master.reload().await.unwrap(), ReloadOutcome::Loaded { worker: 9, log: String::new() });
}

#[tokio::test]
async fn without_an_answer_a_raised_counter_is_a_failure() {
    for failed in [FAILED, FAILED_QUIRK] {
        let dir = tempfile::tempdir().unwrap();
        let master = scripted(dir.path(), "", &[Some(BEFORE), None, Some(failed)]);
        assert!(matches!(master.reload().await.unwrap(), ReloadOutcome::Failed { .. }));
        assert_eq!(master.show_proc().await.unwrap().current_worker(), Some(7), "it lives");
    }
}

#[tokio::test]
async fn an_answer_is_believed_and_its_log_kept() {
    let dir = tempfile::tempdir().unwrap();
    let master =
        scripted(dir.path(), "Success=0\n--\n[ALERT] unknown keyword 'bogus'\n\n", &[Some(BEFORE), Some(FAILED)]);
    assert_eq!(master.reload().await.unwrap(), ReloadOutcome::Failed { log: "[ALERT] unknown keyword 'bogus'".into() });
    let dir = tempfile::tempdir().unwrap();
    let master = scripted(dir.path(), "Success=1\n--\n[NOTICE] fine\n\n", &[Some(BEFORE), Some(LOADED)]);
    assert_eq!(master.reload().await.unwrap(), ReloadOutcome::Loaded { worker: 9, log: "[NOTICE] fine".into() });
}

#[tokio::test]
async fn neither_a_worker_nor_a_failure_ends_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let master = scripted(dir.path(), "", &[Some(BEFORE)]);
    assert!(matches!(master.reload().await, Err(MasterError::NoOutcome(_))));
}

#[tokio::test]
async fn a_master_that_may_not_reload_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let master = scripted(dir.path(), "Permission denied\n", &[Some(BEFORE)]);
    assert!(matches!(master.reload().await, Err(MasterError::Refused(text)) if text == "Permission denied"));
}

#[tokio::test]
async fn a_master_that_is_gone_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let master = MasterCli::new(dir.path().join("none.sock"));
    assert!(matches!(master.reload().await, Err(MasterError::Socket(SocketError::Connect { .. }))));
}
