use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

use super::*;
use crate::haproxy::api::ops::{SectionName, ServerParams};
use crate::haproxy::api::socket::{Deadlines, Endpoint};

/// Answers as 3.4.3 and 3.4.7 do, in their own words: for machines that have neither.
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
        "unpublish backend busy" => "Backend unpublished.\n",
        "publish backend busy" => "Backend published.\n",
        "unpublish backend gone" | "del backend gone" => "No such backend.\n",
        "unpublish backend fixed" => "Backend unpublished.\n",
        "publish backend fixed" => "Backend published.\n",
        "del backend fixed" => {
            "This proxy cannot be removed at runtime due to other configuration elements pointing to it.\n"
        }
        "add backend api from nothing" => "Cannot find default proxy 'nothing'.\n",
        "show stat -1 2 -1" => {
            "# pxname,svname,status,type\nedge:1,BACKEND,DOWN,1\nedge:7,BACKEND,UP (UNPUB),1\nedge:none,BACKEND,UP,1\n"
        }
        _ if line.starts_with("add server api/s ") => "New server registered.\n",
        _ => "",
    }
}

/// A scripted 3.4, and what was said to it.
fn scripted(dir: &std::path::Path) -> (Runtime, Arc<Mutex<Vec<String>>>) {
    let path = dir.join("s.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = said.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            write.write_all(format!("{}\n> ", answer(&line)).as_bytes()).await.unwrap();
            heard.lock().unwrap().push(line);
        }
    });
    (Runtime::new(RuntimeSocket::new(Endpoint::Unix(path), Deadlines::default())), said)
}

#[tokio::test]
async fn a_section_of_3_4_lives_its_whole_life_over_one_session() {
    let dir = tempfile::tempdir().unwrap();
    let (mut api, _) = scripted(dir.path());
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

#[tokio::test]
async fn a_section_of_3_4_that_cannot_be_deleted_takes_traffic_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let (mut api, said) = scripted(dir.path());
    let section = |name: &str| SectionName::new(name).unwrap();
    assert_eq!(api.del_section(&section("api")).await.unwrap(), DelOutcome::Deleted);
    assert_eq!(api.del_section(&section("gone")).await.unwrap(), DelOutcome::NotFound);
    assert_eq!(api.del_section(&section("busy")).await.unwrap(), DelOutcome::Busy);
    let DelOutcome::Refused(refusal) = api.del_section(&section("fixed")).await.unwrap() else { panic!() };
    assert_eq!(refusal.kind, RefusalKind::Referenced);
    let published: Vec<String> = said.lock().unwrap().iter().filter(|l| l.starts_with("publish")).cloned().collect();
    assert_eq!(published, ["publish backend busy", "publish backend fixed"]);
    let names: Vec<String> = api.published().await.unwrap().into_iter().collect();
    assert_eq!(names, ["edge:1", "edge:none"], "one that is not published takes no traffic");
    let add = Op::AddSection { name: section("api"), defaults: section("nothing") };
    assert_eq!(api.run(add).await.unwrap_err().refusal(), Some(RefusalKind::NotFound));
}
