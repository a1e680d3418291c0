//! A server in etcd's place that sends without end: every answer is bounded, and its error names the server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::watch::{Watcher, channel};
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::Prefix;
use registry::RegistryWatcher;
use registry::store::etcd::{Endpoint, EtcdConfig, EtcdStore, Timeouts};
use registry::store::{Fault, Store, WatchStream};
use testing::process::peak_memory;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

const DEADLINE: Duration = Duration::from_secs(60);
const MB: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Habit {
    /// One registration, and a watch that has nothing to say.
    Good,
    /// An answer to a listing that is to be of 1 GB, and goes on.
    LongAnswer,
    /// Pages without end.
    Pages,
    /// Watch messages that are to be of 1 GB.
    LongEvent,
}

struct Server {
    habit: Arc<Mutex<Habit>>,
    store: EtcdStore,
    endpoint: String,
    _task: AbortOnDropHandle<()>,
}

type Pieces = BoxStream<'static, Bytes>;

fn number(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push((n as u8 & 0x7f) | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

/// A field of protobuf: a number, or bytes.
fn int(field: u8, n: u64) -> Vec<u8> {
    [vec![field << 3], number(n)].concat()
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    [vec![field << 3 | 2], number(value.len() as u64), value.to_vec()].concat()
}

/// `ResponseHeader` of cluster 1 at revision 5, as the first field.
fn header() -> Vec<u8> {
    bytes(1, &[int(1, 1), int(3, 5)].concat())
}

/// A `KeyValue` as field 2 of a `RangeResponse`.
fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    bytes(2, &[bytes(1, key.as_bytes()), int(2, 2), int(3, 2), int(4, 1), bytes(5, value)].concat())
}

/// A message of gRPC with its prefix.
fn message(body: &[u8]) -> Bytes {
    [&[0][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat().into()
}

/// A prefix that tells of 1 GB, and what never ends after it.
fn endless() -> Pieces {
    let begin = Bytes::from([&[0][..], &(1_u32 << 30).to_be_bytes()].concat());
    stream::once(async { begin }).chain(stream::repeat(Bytes::from(vec![0; MB]))).boxed()
}

fn answer(path: &str, habit: Habit) -> Pieces {
    let one = |body: Vec<u8>| stream::iter([message(&body)]).boxed();
    let created = || one([header(), int(3, 1)].concat());
    match (path, habit) {
        ("/etcdserverpb.KV/Range", Habit::LongAnswer) => endless(),
        ("/etcdserverpb.KV/Range", Habit::Pages) => {
            let page = [header(), entry("/backends/web/a", &vec![b'x'; 4 * MB]), int(3, 1), int(4, 9)].concat();
            one(page)
        }
        ("/etcdserverpb.KV/Range", _) => one([header(), entry("/backends/web/a", b"10.0.0.1:80"), int(4, 1)].concat()),
        ("/etcdserverpb.Watch/Watch", Habit::LongEvent) => created().chain(endless()).boxed(),
        ("/etcdserverpb.Watch/Watch", _) => created().chain(stream::pending()).boxed(),
        other => panic!("{other:?} was not expected"),
    }
}

impl Server {
    async fn start(limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let habit = Arc::new(Mutex::new(Habit::Good));
        let shared = habit.clone();
        let serve = async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let habit = shared.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let pieces = answer(request.uri().path(), *habit.lock().unwrap());
                    let ok =
                        hyper::header::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
                    let frames = pieces.map(Frame::data).chain(stream::iter([Frame::trailers(ok)]));
                    let body = StreamBody::new(frames.map(Ok::<_, Infallible>));
                    let response = Response::builder().header("content-type", "application/grpc").body(body);
                    async { Ok::<_, Infallible>(response.unwrap()) }
                });
                let connection =
                    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { drop(connection.await) }); // ends with its client
            }
        };
        let endpoint = Endpoint { https: false, host: "127.0.0.1".into(), port };
        let timeouts = Timeouts { call: Duration::from_secs(20), ..Timeouts::default() };
        let config = EtcdConfig { listing_limit: limit, timeouts, ..EtcdConfig::new(vec![endpoint.clone()]) };
        Self {
            habit,
            store: EtcdStore::new(config),
            endpoint: endpoint.to_string(),
            _task: AbortOnDropHandle::new(tokio::spawn(serve)),
        }
    }

    fn be(&self, habit: Habit) {
        *self.habit.lock().unwrap() = habit;
    }
}

#[tokio::test]
async fn an_answer_of_a_gigabyte_costs_no_memory_and_names_its_server() {
    let server = Server::start(64 * MB).await;
    let before = peak_memory();
    for (habit, words) in [(Habit::LongAnswer, "length too large"), (Habit::Pages, "more than 67108864 bytes")] {
        server.be(habit);
        let error = timeout(DEADLINE, server.store.list("/backends/")).await.unwrap().unwrap_err();
        assert!(matches!(error.fault, Fault::TooLarge { .. }), "{habit:?}: {error:?}");
        let said = error.fault.to_string();
        assert!(said.contains(words) && said.contains(&server.endpoint), "{habit:?}: {said}");
    }
    server.be(Habit::Good);
    let listing = server.store.list("/backends/").await.unwrap();
    server.be(Habit::LongEvent);
    let mut watch = server.store.watch("/backends/", listing.at).await.unwrap();
    let error = timeout(DEADLINE, async {
        loop {
            if let Err(error) = watch.next().await {
                return error;
            }
        }
    });
    let error = error.await.unwrap();
    assert!(error.is_too_large() && error.fault.to_string().contains(&server.endpoint), "{error:?}");
    let grown = peak_memory().saturating_sub(before);
    assert!(grown < 400 * MB, "{grown} bytes more at the most");
}

#[tokio::test]
async fn what_was_known_stays_while_a_server_sends_too_much() {
    let server = Server::start(64 * MB).await;
    server.be(Habit::LongEvent);
    let (out, mut inlet) = channel();
    let cancel = CancellationToken::new();
    let watcher = RegistryWatcher::new(server.store.clone(), Prefix::default());
    let task = tokio::spawn(watcher.run(out, cancel.clone()));
    let told = inlet.wait_for(|seen| seen.error().is_some_and(|error| error.contains("sends too much")));
    timeout(DEADLINE, told).await.unwrap().unwrap();
    let known = inlet.borrow().snapshot().map(|snapshot| snapshot.services["web"].backends().len());
    assert_eq!(known, Some(1));
    server.be(Habit::Good);
    timeout(DEADLINE, inlet.wait_for(|seen| seen.standing() == "synced")).await.unwrap().unwrap();
    cancel.cancel();
    task.await.unwrap().unwrap();
}
