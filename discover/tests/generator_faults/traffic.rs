//! What HAProxy itself says of the backends: told, and never repaired.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use discover::generators::haproxy::file::places::EdgePlaces;
use discover::generators::haproxy::traffic::asking::Answer;
use model::Status;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::support::traffic::HttpBackend;
use super::support::world::{World, backend, being, each, weighing};
use super::support::{drain, free_port, get};

/// The states of a service's backends, as HAProxy says.
async fn states(world: &World, service: &str) -> Vec<&'static str> {
    let (traffic, service) = (world.haproxy.traffic(), service.parse().unwrap());
    traffic.look().await;
    let Answer::Seen(seen) = traffic.answer() else { return Vec::new() };
    let pool = &world.desired.services[&service];
    let seen = seen.service(&service, pool, traffic.places(), &EdgePlaces::default()).unwrap();
    seen.states.iter().map(|state| state.as_str()).collect()
}

fn out_of_service(world: &World) -> Vec<String> {
    world.haproxy.status().lock().unwrap().out_of_service.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_is_up_where_haproxy_sends_it_requests_and_a_pool_without_one_is_told() {
    for program in each() {
        let mut world = World::new(&program);
        let (port, http) = (free_port(), HttpBackend::start("b0").await);
        let nobody = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let all = vec![
            backend("alive", http.address, port),
            backend("dead", nobody(), port),
            weighing(backend("heavy", http.address, port), 0),
            being(backend("draining", http.address, port), Status::Draining),
            being(backend("down", http.address, port), Status::Down),
            backend("by-hand", http.address, port),
        ];
        world.want("web", all.clone());
        world.settle().await;
        drain(&mut world.api(), "web/by-hand").await;
        let wanted = ["up", "down", "draining", "draining", "down", "draining"];
        let is = async |world: &mut World| {
            let mut is = states(world, "web").await;
            // discover itself ends a drain by hand, with its next look.
            is.get_mut(5).into_iter().filter(|state| **state == "up").for_each(|state| *state = "draining");
            is == wanted
        };
        world.turns_until("each state is told", is).await;
        assert!(out_of_service(&world).is_empty() && get(port).await == "b0");
        world.want("web", vec![backend("dead", nobody(), port), all[4].clone()]);
        world.turns_until("the loss is told", async |world| out_of_service(world) == ["web"]).await;
        assert_eq!(states(&world, "web").await, ["down", "down"], "HAProxy {}", world.version());
        world.want("web", vec![all[0].clone()]);
        world.turns_until("the end of the loss is told", async |world| out_of_service(world).is_empty()).await;
    }
}

/// An agent of a server, which answers what it is told to.
async fn agent(says: &'static str) -> (SocketAddr, Arc<Mutex<&'static str>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, word) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(says)));
    let told = word.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = format!("{}\n", told.lock().unwrap());
            let _ = stream.write_all(answer.as_bytes()).await; // one that is not heard is asked for again
        }
    });
    (address, word)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_says_stays_and_servers_added_at_run_time_have_their_agent() {
    for program in each() {
        let (at, word) = agent("50%").await;
        let check =
            format!("check inter 200ms agent-check agent-inter 100ms agent-addr 127.0.0.1 agent-port {}", at.port());
        let mut world = World::with(&program, |settings| settings.check = check);
        let (port, http) = (free_port(), HttpBackend::start("b0").await);
        let b = |id: &str| weighing(backend(id, http.address, port), 8);
        world.want("web", vec![b("first")]);
        world.settle().await;
        world.want("web", vec![b("first"), b("later")]);
        let both = async |world: &World, wanted: &[&str], weight: Option<u16>| {
            let seen = world.states().await;
            let weights = seen.iter().filter(|s| s.section == "web").all(|s| weight.is_none_or(|w| s.weight == w));
            weights && states(world, "web").await == wanted
        };
        world.turns_until("half of their weights", async |world| both(world, &["up", "up"], Some(4)).await).await;
        assert_eq!(world.reloads(), ["start"], "HAProxy {}: the later one was added at run time", world.version());
        *word.lock().unwrap() = "drain";
        let drained = ["draining", "draining"];
        world.turns_until("both drained by their agents", async |world| both(world, &drained, None).await).await;
        world.turns_until("and told", async |world| out_of_service(world) == ["web"]).await;
        // As discover looks after every time: nothing of that is a difference.
        world.restart();
        world.settle().await;
        assert!(both(&world, &drained, None).await, "HAProxy {}", world.version());
        let mut metrics = String::new();
        prometheus_client::encoding::text::encode(&mut metrics, &world.registry).unwrap();
        assert!(!metrics.contains("discover_runtime_operations_total{"), "{metrics}");
        // What discover takes out of service stays so, whatever the agent says.
        *word.lock().unwrap() = "ready 100%";
        world.want("web", vec![b("first"), being(b("later"), Status::Down)]);
        world.turns_until("one is down", async |world| both(world, &["up", "down"], None).await).await;
        world.want("web", vec![being(b("first"), Status::Draining), b("later")]);
        world.turns_until("one is drained", async |world| both(world, &["draining", "up"], None).await).await;
        world.want("web", vec![b("first")]);
        world.turns_until("one is gone", async |world| both(world, &["up"], None).await).await;
        let later = world.state("later").await;
        assert!(later.is_none_or(|s| s.admin.in_maintenance()), "HAProxy {}", world.version());
    }
}
