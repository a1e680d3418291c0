use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncBufReadExt;
use tokio::net::UnixListener;

use super::*;

/// What a scripted HAProxy does with one line.
enum Then {
    Say(&'static str),
    /// Says this without a prompt and hangs up.
    Cut(&'static str),
    /// Never answers.
    Hang,
}

/// A Unix socket that greets like HAProxy and then follows the script; counts its connections.
fn scripted(dir: &std::path::Path, script: fn(&str) -> Then) -> (RuntimeSocket, Arc<AtomicUsize>) {
    let path = dir.join("s.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let mut lines = tokio::io::BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let then =
                        if line == "prompt" || line.starts_with("set timeout") { Then::Say("") } else { script(&line) };
                    match then {
                        Then::Say(text) => write.write_all(format!("{text}\n> ").as_bytes()).await.unwrap(),
                        Then::Cut(text) => return write.write_all(text.as_bytes()).await.unwrap(),
                        Then::Hang => std::future::pending().await,
                    }
                }
            });
        }
    });
    let deadlines = Deadlines { connect: Duration::from_secs(5), reply: Duration::from_millis(300) };
    (RuntimeSocket::new(Endpoint::Unix(path), deadlines), connections)
}

fn show(what: &str) -> Command {
    Command::new(["show", what]).unwrap()
}

#[tokio::test]
async fn each_command_gets_its_own_reply_over_one_session() {
    let dir = tempfile::tempdir().unwrap();
    let (mut socket, connections) = scripted(dir.path(), |line| match line {
        "show a" => Then::Say("one\ntwo\n"),
        "show b" => Then::Say(""),
        _ => Then::Say("Unknown command"),
    });
    let replies = socket.run_all(&[show("a"), show("b"), show("c"), show("a")]).await;
    let texts: Vec<String> = replies.into_iter().map(|r| r.unwrap().text().to_owned()).collect();
    assert_eq!(texts, ["one\ntwo", "", "Unknown command", "one\ntwo"]);
    socket.run(&show("b")).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    socket.reopen();
    socket.run(&show("b")).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_session_closed_in_the_middle_of_a_reply_is_an_unknown_outcome_and_nothing_is_sent_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (mut socket, connections) = scripted(dir.path(), |line| match line {
        "show good" => Then::Say("good"),
        _ => Then::Cut("half a re"),
    });
    let replies = socket.run_all(&[show("good"), show("bad"), show("good")]).await;
    assert_eq!(replies.len(), 3);
    assert_eq!(replies[0].as_ref().unwrap().text(), "good");
    for broken in &replies[1..] {
        assert!(matches!(broken, Err(SocketError::Broken { .. })), "{broken:?}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1, "not repeated by itself");
    assert_eq!(socket.run(&show("good")).await.unwrap().text(), "good");
}

#[tokio::test]
async fn commands_of_later_chunks_are_told_apart_as_never_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (mut socket, _) = scripted(dir.path(), |_| Then::Cut(""));
    let long = "x".repeat(CHUNK - 100);
    let replies = socket.run_all(&[show(&long), show(&long), show(&long)]).await;
    assert!(matches!(replies[0], Err(SocketError::Broken { .. })));
    assert!(replies[1..].iter().all(|r| matches!(r, Err(SocketError::NotSent { .. }))));
}

#[tokio::test]
async fn a_hanging_haproxy_costs_no_more_than_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let (mut socket, _) = scripted(dir.path(), |_| Then::Hang);
    let start = Instant::now();
    match socket.run(&show("info")).await {
        Err(SocketError::Broken { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::TimedOut),
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_session_that_was_closed_while_idle_is_replaced_without_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (mut socket, connections) = scripted(dir.path(), |line| match line {
        "show last" => Then::Cut("done\n> "),
        _ => Then::Say("ok"),
    });
    assert_eq!(socket.run(&show("last")).await.unwrap().text(), "done");
    // The end of file is there once the runtime has seen it; a readable socket is what the probe asks for.
    if let Some(Session { stream: Either::Left(unix), .. }) = &socket.session {
        unix.readable().await.unwrap();
    }
    assert_eq!(socket.run(&show("next")).await.unwrap().text(), "ok");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_missing_and_a_stale_socket_are_errors_that_say_that_nothing_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gone.sock");
    for stale in [false, true] {
        if stale {
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        }
        let mut socket = RuntimeSocket::new(Endpoint::Unix(path.clone()), Deadlines::default());
        let replies = socket.run_all(&[show("a"), show("b")]).await;
        assert!(matches!(replies[0], Err(SocketError::Connect { .. })), "stale: {stale}");
        assert!(matches!(replies[1], Err(SocketError::NotSent { .. })), "stale: {stale}");
        let shot = one_shot(socket.endpoint(), Prefix::None, &show("a"), Deadlines::default()).await;
        assert!(!matches!(shot, Err(SocketError::Broken { .. })));
    }
}

#[test]
fn the_prompts_of_a_payload_are_no_part_of_the_reply() {
    let payload = Command::new(["add", "map", "/m"]).unwrap().with_payload([["k", "v"]]).unwrap();
    assert_eq!(without_payload_prompts(&payload, "+ + + ".into()), "");
    assert_eq!(without_payload_prompts(&payload, "+ + Unknown map".into()), "Unknown map");
    assert_eq!(without_payload_prompts(&show("a"), "+ x".into()), "+ x");
}
