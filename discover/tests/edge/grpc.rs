//! gRPC through the edge, from end to end: etcd is the server, and its own client (tonic) the client.

use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, EventType, Identity, TlsOptions};
use model::Backend;
use testing::etcd::Etcd;
use tokio::time::timeout;

use super::sni::{passing, shared};
use super::{each, routed, world};

const PATIENCE: Duration = Duration::from_secs(20);

/// A backend that speaks HTTP/2.
fn speaking(etcd: &Etcd, routes: &[&str]) -> Backend {
    let at = etcd.endpoint().to_string();
    let at = at.rsplit("//").next().unwrap().parse().unwrap();
    Backend { haproxy_server_options: Some("proto h2".into()), ..routed("e", at, routes) }
}

/// Calls of each kind: unary, with a status in the trailers, and streams of both directions that stay open while `change` happens.
async fn calls(mut client: Client, change: impl AsyncFnOnce()) {
    client.put("a", "1", None).await.unwrap();
    let got = client.get("a", None).await.unwrap();
    assert_eq!(got.kvs()[0].value_str().unwrap(), "1");
    match client.lease_revoke(7).await {
        Err(Error::GRpcStatus(status)) => {
            assert_eq!(status.code() as i32, 5, "NOT_FOUND, which comes in the trailers: {status}");
            assert!(status.message().contains("lease not found"), "{status}");
        }
        other => panic!("{other:?}"),
    }
    let large = "x".repeat(1_000_000);
    client.put("large", large.clone(), None).await.unwrap();
    assert_eq!(client.get("large", None).await.unwrap().kvs()[0].value().len(), large.len());

    let lease = client.lease_grant(60, None).await.unwrap().id();
    let (mut keeper, mut kept) = client.lease_keep_alive(lease).await.unwrap();
    let mut events = client.watch("w", None).await.unwrap();
    let mut seen = async |value: &str| {
        let next = async {
            loop {
                let news = events.message().await.unwrap().unwrap();
                // The first answer says that it watches.
                if let Some(event) = news.events().first() {
                    return event.clone();
                }
            }
        };
        let event = timeout(PATIENCE, next).await.unwrap();
        assert_eq!((event.event_type(), event.kv().unwrap().value_str().unwrap()), (EventType::Put, value));
    };
    client.put("w", "before", None).await.unwrap();
    seen("before").await;
    change().await;
    client.put("w", "after", None).await.unwrap();
    seen("after").await;
    for _ in 0..3 {
        keeper.keep_alive().await.unwrap();
        let answer = timeout(PATIENCE, kept.message()).await.unwrap().unwrap().unwrap();
        assert!(answer.ttl() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_passes_with_its_trailers_and_its_streams_outlast_changes() {
    let etcd = Etcd::start();
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        world.settle().await;
        world.want("etcd", vec![speaking(&etcd, &["127.0.0.1"])]);
        world.settle().await;
        let client = Client::connect([format!("http://127.0.0.1:{port}")], None).await.unwrap();
        calls(client, async || {
            world.want("other", vec![routed("o", "127.0.0.1:9".parse().unwrap(), &["other.example"])]);
            world.settle().await;
        })
        .await;
        assert_eq!(world.reloads(), ["start"], "HAProxy {}", world.version());
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_comes_by_tls_that_ends_here_and_by_tls_that_passes() {
    let (plain, own) = (Etcd::start(), Etcd::start_tls());
    let certs = own.certs();
    certs.issue("web", &["grpc.web.example"]);
    for program in each() {
        let (mut world, port) = shared(&program, certs, |_| {});
        world.want("grpc", vec![speaking(&plain, &["grpc.web.example", "127.0.0.1"])]);
        let at = own.endpoint().to_string().rsplit("//").next().unwrap().parse().unwrap();
        world.want("own", vec![passing("o", at, &["localhost"])]);
        world.settle().await;
        let read = |name: &str| std::fs::read(certs.path(name)).unwrap();
        // The one behind TLS that passes wants to see the client's certificate, too.
        let identity = Identity::from_pem(read("client.pem"), read("client.key"));
        let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read("ca.pem"))).identity(identity);
        for name in ["grpc.web.example", "localhost"] {
            let tls = tls.clone().domain_name(name);
            let options = ConnectOptions::new().with_tls(tls);
            let client = Client::connect([format!("https://127.0.0.1:{port}")], Some(options)).await.unwrap();
            calls(client, async || {}).await;
        }
    }
}
