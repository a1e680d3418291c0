use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

use super::*;
use crate::haproxy::ops::SectionName;
use crate::haproxy::socket::{Deadlines, Endpoint};

/// Answers as 3.4.3 does, for which there is no binary here.
fn answer(line: &str) -> &'static str {
    match line {
        "add backend api from http" => "New backend registered.\n",
        "publish backend api" => "Backend published.\n",
        "unpublish backend api" => "Backend unpublished.\n",
        "del server api/s" => "Server deleted.\n",
        "del backend api" => {
            "Server api/s is going DOWN for maintenance. 0 active and 0 backup servers left.\nbackend 'api' has no server available!\nServer deleted.\nBackend deleted.\n"
        }
        "del backend busy" => "Only a backend without server can be deleted.\n",
        _ if line.starts_with("add server api/s ") => "New server registered.\n",
        _ => "",
    }
}

#[tokio::test]
async fn a_section_of_3_4_lives_its_whole_life_over_one_session() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            write.write_all(format!("{}\n> ", answer(&line)).as_bytes()).await.unwrap();
        }
    });
    let mut api = Runtime::new(RuntimeSocket::new(Endpoint::Unix(path), Deadlines::default()));
    let section = |name: &str| SectionName::new(name).unwrap();
    let server = || ServerRef::new("api", "s").unwrap();
    let params = ServerParams::parse("check init-state down").unwrap();
    let ops = [
        Op::AddSection { name: section("api"), defaults: section("http") },
        Op::AddServer(server(), "127.0.0.1:80".parse().unwrap(), params),
        Op::Ready(server()),
        Op::PublishSection(section("api")),
        Op::UnpublishSection(section("api")),
        Op::Maint(server()),
        Op::DelServer(server()),
        Op::DelSection(section("api")),
        Op::DelSection(section("busy")),
    ];
    let results = api.apply(&ops).await;
    let (last, rest) = results.split_last().unwrap();
    assert!(rest.iter().all(Result::is_ok), "{rest:?}");
    assert_eq!(last.as_ref().unwrap_err().refusal(), Some(RefusalKind::Busy));
}
