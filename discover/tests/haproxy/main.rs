//! The I/O layer against every HAProxy that this machine has. Each trap of HAProxy's that was measured has a test that names it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy excuses only functions marked as tests"
)]

mod processes;
#[path = "../support/mod.rs"]
mod support;
mod words;

use std::net::SocketAddr;
use std::time::Duration;

use discover::haproxy::api::command::Command;
use discover::haproxy::api::ops::{Op, RefusalKind, SectionName, ServerParams, ServerRef};
use discover::haproxy::api::runtime::DelOutcome;
use discover::haproxy::api::socket::{Deadlines, Endpoint, Prefix, one_shot};
use discover::haproxy::api::tables::{OperState, ServerState};
use discover::haproxy::api::version::Capabilities;
use discover::haproxy::process::check::{self, CheckError};
use discover::haproxy::process::launch::{self as process, ProcessError, adopt};
use discover::haproxy::process::master::{MasterCli, ReloadOutcome};
use discover::haproxy::process::ports::{BindReason, bindable};
use support::{Lab, drain, eventually, free_port, get, http_server, making, programs, stat};

const EMPTY: &str = "backend b\n    balance roundrobin\n";

fn server(name: &str) -> ServerRef {
    ServerRef::new("b", name).unwrap()
}

fn params(text: &str) -> ServerParams {
    ServerParams::parse(text).unwrap()
}

fn add(name: &str, at: SocketAddr, words: &str) -> Op {
    Op::AddServer(server(name), at, params(words))
}

fn somewhere() -> SocketAddr {
    "127.0.0.1:1".parse().unwrap()
}

fn named<'a>(states: &'a [ServerState], name: &str) -> &'a ServerState {
    states.iter().find(|s| s.name == name).unwrap()
}

#[tokio::test]
async fn a_server_goes_through_its_whole_life_at_run_time() {
    for program in programs() {
        let (port, backend) = (free_port(), http_server("one", Duration::ZERO).await);
        let lab =
            Lab::start(&program, &format!("frontend f\n    bind 127.0.0.1:{port}\n    default_backend b\n{EMPTY}"))
                .await;
        let mut api = lab.runtime();
        assert_eq!(api.info().await.unwrap().version, lab.version);
        assert!(api.published().await.unwrap().contains("b"));

        api.run(add("s", backend, "weight 7 check inter 100ms")).await.unwrap();
        let states = api.servers_state(Some("b")).await.unwrap();
        let s = named(&states, "s");
        assert_eq!((s.addr, s.port, s.weight), (Some(backend.ip()), backend.port(), 7));
        assert!(s.admin.forced_maintenance(), "a new server starts in maintenance");
        assert!(s.check.0 & 0x02 != 0 && !s.check.enabled(), "and with its checks off");
        for op in [Op::EnableHealth(server("s")), Op::Ready(server("s"))] {
            api.run(op).await.unwrap();
        }
        assert_eq!(get(port).await, "one");
        let states = api.servers_state(None).await.unwrap();
        assert!(named(&states, "s").check.enabled() && !named(&states, "s").admin.in_maintenance());

        api.run(Op::SetWeight(server("s"), 200)).await.unwrap();
        drain(&mut api, "b/s").await;
        let states = api.servers_state(None).await.unwrap();
        assert!(named(&states, "s").admin.draining() && named(&states, "s").weight == 200);
        api.run(Op::Ready(server("s"))).await.unwrap();

        let other = http_server("two", Duration::ZERO).await;
        for _ in 0..2 {
            api.run(Op::SetAddr(server("s"), other)).await.unwrap(); // the second time nothing changes
        }
        assert_eq!(get(port).await, "two");
        let row = stat(&mut api).await.into_iter().find(|r| r.name == "s").unwrap();
        assert_eq!((row.weight, row.addr), (Some(200), other.to_string()));

        match api.del_server(server("s")).await.unwrap() {
            DelOutcome::Refused(refusal) => assert_eq!(refusal.kind, RefusalKind::NotInMaintenance),
            other => panic!("{other:?}"),
        }
        api.run(Op::Maint(server("s"))).await.unwrap();
        if Capabilities::of(&lab.version).del_server {
            let mut outcome = DelOutcome::Busy;
            eventually("the server is deleted", async || {
                outcome = api.del_server(server("s")).await.unwrap();
                outcome != DelOutcome::Busy
            })
            .await;
            assert_eq!(outcome, DelOutcome::Deleted, "{}", lab.version);
            assert_eq!(api.del_server(server("s")).await.unwrap(), DelOutcome::NotFound);
        }
        lab.stop().await;
    }
}

#[tokio::test]
async fn refusals_carry_haproxys_words_and_their_meaning() {
    for program in programs() {
        let lab =
            Lab::start(&program, &format!("{EMPTY}    server s1 127.0.0.1:1\nbackend fixed\n    balance source\n"))
                .await;
        let mut api = lab.runtime();
        let fixed = ServerRef::new("fixed", "x").unwrap();
        let results = api
            .apply(&[
                Op::AddServer(server("s1"), somewhere(), params("")),
                Op::AddServer(fixed, somewhere(), params("")),
                Op::AddServer(server("x"), somewhere(), params("no-such-keyword 1")),
                Op::Ready(server("nobody")),
                Op::SetWeight(server("s1"), 257),
                Op::EnableHealth(server("s1")),
                Op::SetWeight(server("s1"), 9),
            ])
            .await;
        let kinds: Vec<_> = results.iter().map(|r| r.as_ref().err().and_then(|e| e.refusal())).collect();
        use RefusalKind::*;
        assert_eq!(
            kinds,
            [Some(Exists), Some(StaticAlgorithm), Some(Other), Some(NotFound), Some(Other), Some(Other), None]
        );
        assert!(results[2].as_ref().unwrap_err().to_string().contains("no-such-keyword"), "{:?}", results[2]);
        assert!(results[6].is_ok(), "the failed ones keep nothing back");
        assert!(api.servers_state(Some("nowhere")).await.is_err());
        lab.stop().await;
    }
}

/// Trap: 2.6 refuses `cookie` in `add server`, 3.0 takes it; the capability table says so.
#[tokio::test]
async fn the_capability_table_agrees_with_the_running_haproxy() {
    for program in programs().into_iter().chain(making()) {
        let lab = Lab::start(&program, &format!("{EMPTY}\ndefaults base\n    mode http\n")).await;
        let (mut api, can) = (lab.runtime(), Capabilities::of(&lab.version));
        let cookie = api.run(add("c", somewhere(), "cookie x")).await;
        assert_eq!(cookie.is_ok(), can.cookie_in_add_server, "{}: {cookie:?}", lab.version);
        let slow = api.run(add("i", somewhere(), "check init-state down")).await;
        assert_eq!(slow.is_ok(), lab.version.branch() >= (3, 1), "{}: {slow:?}", lab.version);
        let pool = api.run(add("p", somewhere(), "pool-purge-delay 5s pool-max-conn 100 id 77")).await;
        assert!(pool.is_ok(), "{}: {pool:?}", lab.version);
        assert_eq!(named(&api.servers_state(None).await.unwrap(), "p").id, 77);
        let [name, defaults] = ["made", "base"].map(|name| SectionName::new(name).unwrap());
        let made = api.run(Op::AddSection { name: name.clone(), defaults }).await;
        assert_eq!(made.is_ok(), can.add_backend, "{}: {made:?}", lab.version);
        if can.add_backend {
            assert!(!api.published().await.unwrap().contains("made"), "it takes no traffic yet");
            assert_eq!(api.del_section(&name).await.unwrap(), DelOutcome::Deleted);
        }
        lab.stop().await;
    }
}

/// Trap: `add server` inherits nothing from `default-server`.
#[tokio::test]
async fn default_server_is_not_inherited_by_servers_added_at_run_time() {
    for program in programs() {
        let body = "backend b\n    balance roundrobin\n    default-server check inter 1s weight 33\n    server file 127.0.0.1:1\n";
        let lab = Lab::start(&program, body).await;
        let mut api = lab.runtime();
        api.run(add("dynamic", somewhere(), "")).await.unwrap();
        let states = api.servers_state(None).await.unwrap();
        assert_eq!((named(&states, "file").weight, named(&states, "dynamic").weight), (33, 1), "{}", lab.version);
        let has_check = |name: &str| named(&states, name).check.0 & 0x02 != 0;
        assert!(has_check("file") && !has_check("dynamic"));
        lab.stop().await;
    }
}

/// `;` in a name once executed a second command; no such name can be made into one now, and a raw one proves that the danger is real.
#[tokio::test]
async fn nothing_can_be_injected_into_the_socket() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for program in programs() {
        let lab = Lab::start(&program, &format!("{EMPTY}    server s1 127.0.0.1:1\n")).await;
        let mut api = lab.runtime();
        for evil in ["x;disable server b/s1", "x\ndisable server b/s1", "x disable", "x\\", "<<"] {
            assert!(ServerRef::new("b", evil).is_err() && Command::new(["show", evil]).is_err(), "{evil:?}");
        }
        assert!(!named(&api.servers_state(None).await.unwrap(), "s1").admin.in_maintenance());
        let mut raw = tokio::net::UnixStream::connect(lab.dir.path().join("admin.sock")).await.unwrap();
        raw.write_all(b"show info;disable server b/s1\n").await.unwrap();
        raw.shutdown().await.unwrap();
        raw.read_to_string(&mut String::new()).await.unwrap();
        assert!(named(&api.servers_state(None).await.unwrap(), "s1").admin.in_maintenance(), "what the types keep out");
        lab.stop().await;
    }
}

#[tokio::test]
async fn thousands_of_operations_are_pipelined_in_order() {
    for program in programs() {
        let lab = Lab::start(&program, EMPTY).await;
        let mut api = lab.runtime();
        let names: Vec<String> = (0..500).map(|n| format!("server_{n}")).collect();
        let add = |n: &String| {
            Op::AddServer(server(n), somewhere(), params("weight 5 pool-purge-delay 5s pool-max-conn 100"))
        };
        let ops: Vec<Op> =
            names.iter().flat_map(|n| [add(n), Op::Ready(server(n)), Op::SetWeight(server(n), 6)]).collect();
        let start = std::time::Instant::now();
        let results = api.apply(&ops).await;
        eprintln!("{}: {} operations in {:?}", lab.version, ops.len(), start.elapsed());
        assert!(results.len() == 1500 && results.iter().all(Result::is_ok));
        let states = api.servers_state(Some("b")).await.unwrap();
        assert!(states.len() == 500 && states.iter().all(|s| s.weight == 6 && !s.admin.in_maintenance()));
        lab.stop().await;
    }
}

/// Trap: a server with requests in flight is not deleted; the request ends well, and then it can go.
#[tokio::test]
async fn a_busy_server_is_not_deleted_and_its_request_is_finished() {
    for program in programs() {
        let (port, backend) = (free_port(), http_server("slow", Duration::from_millis(700)).await);
        let lab =
            Lab::start(&program, &format!("frontend f\n    bind 127.0.0.1:{port}\n    default_backend b\n{EMPTY}"))
                .await;
        let mut api = lab.runtime();
        api.run(add("s", backend, "")).await.unwrap();
        api.run(Op::Ready(server("s"))).await.unwrap();
        let request = tokio::spawn(get(port));
        eventually("the request is in flight", async || {
            stat(&mut api).await.iter().any(|r| r.name == "s" && r.counts.sessions == 1)
        })
        .await;
        api.run(Op::Maint(server("s"))).await.unwrap();
        assert_eq!(api.del_server(server("s")).await.unwrap(), DelOutcome::Busy, "{}", lab.version);
        assert_eq!(request.await.unwrap(), "slow", "{}", lab.version);
        if Capabilities::of(&lab.version).del_server {
            eventually("it is deleted", async || api.del_server(server("s")).await.unwrap() == DelOutcome::Deleted)
                .await;
        }
        lab.stop().await;
    }
}

#[tokio::test]
async fn a_map_is_replaced_at_once_and_a_bad_entry_changes_nothing() {
    for program in programs() {
        let body = format!(
            "frontend f\n    bind 127.0.0.1:{}\n    use_backend %[path,map_str(DIR/hosts.map,b)]\n{EMPTY}",
            free_port()
        );
        let mut lab = Lab::new(&program, &body);
        let map = lab.dir.path().join("hosts.map").display().to_string();
        std::fs::write(&map, "a.example b\n").unwrap();
        lab.running = Some(lab.launch.spawn().await.unwrap());
        let mut api = lab.runtime();
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let add = |k: &str| Op::MapAdd { map: map.clone(), key: k.into(), value: "b".into() };
        let set = |k: &str, v: &str| Op::MapSet { map: map.clone(), key: k.into(), value: v.into() };
        let results = api.apply(&[add("b.example"), set("b.example", "c"), set("nope", "c")]).await;
        assert!(results[0].is_ok() && results[1].is_ok());
        assert_eq!(results[2].as_ref().unwrap_err().refusal(), Some(RefusalKind::NotFound));
        assert_eq!(api.map_show(&map).await.unwrap(), [pair("a.example", "b"), pair("b.example", "c")]);
        let del = || Op::MapDel { map: map.clone(), key: "a.example".into() };
        api.run(del()).await.unwrap();
        assert_eq!(api.run(del()).await.unwrap_err().refusal(), Some(RefusalKind::NotFound));

        let many: Vec<_> = (0..5000).map(|n| pair(&format!("host{n}.example"), "b")).collect();
        api.map_swap(&map, &many).await.unwrap();
        assert_eq!(api.map_show(&map).await.unwrap(), many, "{}", lab.version);
        for bad in [pair("x y", "b"), pair("x", "b;c"), pair("#x", "b"), pair("x", "")] {
            assert!(api.map_swap(&map, &[pair("first", "b"), bad]).await.is_err());
        }
        assert_eq!(api.map_show(&map).await.unwrap().len(), 5000, "unchanged");
        api.map_swap(&map, &[]).await.unwrap();
        assert!(api.map_show(&map).await.unwrap().is_empty());
        assert!(api.map_swap("/no/such.map", &many).await.is_err());
        lab.stop().await;
    }
}
