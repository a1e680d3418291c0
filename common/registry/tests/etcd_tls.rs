//! The etcd store over TLS, with everything that can be wrong about it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use registry::store::etcd::{Endpoint, EtcdConfig, EtcdStore, Tls};
use registry::store::{Fault, Op, Store, StoreError, WatchStream};
use testing::certs::Certs;
use testing::etcd::Etcd;

fn full(certs: &Certs) -> Tls {
    let file = |name| Some(certs.path(name));
    Tls { ca: file("ca.pem"), cert: file("client.pem"), key: file("client.key"), server_name: None }
}

fn with(endpoint: Endpoint, tls: Tls) -> EtcdStore {
    EtcdStore::new(EtcdConfig { tls, ..EtcdConfig::new(vec![endpoint]) })
}

/// The error, and all that its chain says.
async fn fails(endpoint: Endpoint, tls: Tls) -> (StoreError, String) {
    let error = with(endpoint, tls).list("/").await.unwrap_err();
    let said = format!("{error}: {}", error.fault);
    (error, said)
}

#[tokio::test]
async fn tls_with_client_certificates_works_and_its_errors_are_clear() {
    agent::tls::install_provider();
    agent::tls::install_provider(); // as often as one likes
    let etcd = Etcd::start_tls();
    let store = with(etcd.endpoint(), full(etcd.certs()));
    let mut watch = store.watch("/", store.list("/").await.unwrap().at).await.unwrap();
    store.put_all(vec![Op::put("/k", *b"1", None)]).await.unwrap();
    while watch.next().await.unwrap().changes.is_empty() {}

    let by_name = Endpoint { host: "localhost".into(), ..etcd.endpoint() };
    with(by_name, full(etcd.certs())).list("/").await.expect("localhost is in the certificate");

    let anonymous = Tls { cert: None, key: None, ..full(etcd.certs()) };
    let (error, said) = fails(etcd.endpoint(), anonymous).await;
    assert!(error.is_retryable(), "{said}");
    let (_, said) = fails(etcd.endpoint(), Tls { server_name: Some("other".into()), ..full(etcd.certs()) }).await;
    assert!(said.contains("certificate"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    let (_, said) = fails(etcd.endpoint(), Tls { ca: full(&Certs::make(dir.path())).ca, ..full(etcd.certs()) }).await;
    assert!(said.contains("certificate"), "{said}");
    let (error, said) = fails(etcd.endpoint(), Tls { ca: Some("/none/ca.pem".into()), ..Tls::default() }).await;
    assert!(error.is_fatal() && said.contains("/none/ca.pem"), "{said}");
    let (error, said) = fails(etcd.endpoint(), Tls { key: None, ..full(etcd.certs()) }).await;
    assert!(error.is_fatal() && said.contains("key"), "{said}");

    let plain = Endpoint { https: false, ..etcd.endpoint() };
    let (error, said) = fails(plain, Tls::default()).await;
    assert!(matches!(error.fault, Fault::Unavailable { .. }) && said.contains("expects https"), "{said}");
    let other = Etcd::start();
    let (error, said) = fails(Endpoint { https: true, ..other.endpoint() }, full(etcd.certs())).await;
    assert!(error.is_retryable() && said.contains("tls"), "{said}");
}
