//! Checks against scripted servers on loopback, which say what real ones will not.

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use agent::telemetry::Chain;
use model::desired::{HttpCheck, PeerTls, Secret, StatusSet};
use testing::certs::Certs;

const WAIT: Duration = Duration::from_secs(5);

/// Answers every connection with `answer` after it has said something; tells what was said.
async fn server(answer: impl Into<Vec<u8>>) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (said, heard) = tokio::sync::mpsc::channel(64);
    let answer: Vec<u8> = answer.into();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 4096];
            let read = stream.read(&mut buffer).await.unwrap_or(0);
            let _ = said.try_send(String::from_utf8_lossy(&buffer[..read]).into_owned());
            let _ = stream.write_all(&answer).await;
            // Until the other side has enough: an early end could cut the answer short.
            let _ = stream.read(&mut buffer).await;
        }
    });
    (address, heard)
}

async fn verdict(check: AnyCheck) -> Result<(), String> {
    match check.attempt(WAIT).await {
        Outcome::Pass => Ok(()),
        Outcome::Fail(e) => Err(Chain(&e).to_string()),
        Outcome::Unreachable(e) => Err(format!("unreachable: {}", Chain(&e))),
    }
}

async fn http(answer: &str, spec: HttpCheck) -> (Result<(), String>, String) {
    let (address, mut heard) = server(answer).await;
    let verdict = verdict(AnyCheck::Http(Box::new(HttpProbe::new(address, &spec)))).await;
    (verdict, heard.recv().await.unwrap_or_default())
}

#[tokio::test]
async fn http_asks_as_told_and_judges_status_and_body() {
    let spec = |status: &str, body: Option<&str>| HttpCheck {
        method: "HEAD".to_owned(),
        path: "/health?deep=1".to_owned(),
        host: Some("web.example".to_owned()),
        headers: vec![("X-Token".to_owned(), Secret("abc".to_owned()))],
        status: StatusSet::parse(status).unwrap(),
        body: body.map(str::to_owned),
        ..HttpCheck::default()
    };
    let (ok, asked) = http("HTTP/1.1 204 None\r\n\r\n", spec("2xx", None)).await;
    assert_eq!(ok, Ok(()));
    assert!(asked.starts_with("HEAD /health?deep=1 HTTP/1.1\r\n"), "{asked}");
    for header in ["x-token: abc", "host: web.example", "connection: close", "user-agent: register/"] {
        assert!(asked.to_lowercase().contains(header), "{header} in {asked}");
    }
    let (refused, _) = http("HTTP/1.1 503 No\r\n\r\n", spec("200-399", None)).await;
    assert_eq!(refused.unwrap_err(), "HEAD /health?deep=1 answered 503");
    let get = |body: &str| HttpCheck { body: Some(body.to_owned()), ..HttpCheck::default() };
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nstate: well";
    assert_eq!(http(answer, get("state: well")).await.0, Ok(()));
    let (without, _) = http(answer, get("ill")).await;
    assert_eq!(without.unwrap_err(), r#"GET / answered 200 without "ill" in its body, which begins "state: well""#);
    let (cut, _) = http("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nshort", get("never")).await;
    assert!(cut.is_err(), "cut short");
    let (rubbish, _) = http("220 mail.example ESMTP\r\n", HttpCheck::default()).await;
    assert_eq!(rubbish.unwrap_err(), r#"GET / was answered "220 mail.example ESMTP", which is no HTTP"#.to_owned());
}

#[tokio::test]
async fn http_follows_nothing_and_reads_no_more_than_it_must() {
    let (elsewhere, mut asked) = server("HTTP/1.1 200 OK\r\n\r\n").await;
    let moved = format!("HTTP/1.1 302 Found\r\nlocation: http://{elsewhere}/\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(http(&moved, HttpCheck::default()).await.0, Ok(()), "a redirect is an answer");
    assert!(asked.try_recv().is_err(), "and nobody went there");
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}needle", "x".repeat(80_000));
    let find = HttpCheck { body: Some("needle".to_owned()), ..HttpCheck::default() };
    assert!(http(&endless, find).await.0.is_err(), "beyond the first 64 kB");
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(80_000));
    let find = HttpCheck { body: Some("needle".to_owned()), ..HttpCheck::default() };
    assert!(http(&head, find).await.0.is_err(), "endless headers");
    let endless = format!("HTTP/1.1 100 Continue\r\nx: {}", "x".repeat(80_000));
    assert!(http(&endless, HttpCheck::default()).await.0.is_err(), "endless interim headers");
}

#[tokio::test]
async fn a_server_that_says_nothing_fails_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (secret, short) = (Secret("s".into()), Duration::from_millis(30));
    for check in [
        AnyCheck::Http(Box::new(HttpProbe::new(address, &HttpCheck::default()))),
        AnyCheck::Http(Box::new(HttpProbe::new(
            address,
            &HttpCheck { tls: Some(PeerTls { insecure: true, ..PeerTls::default() }), ..HttpCheck::default() },
        ))),
        AnyCheck::Grpc(Box::new(GrpcProbe::new(address, "", None))),
        AnyCheck::Redis(RedisProbe::new(address, Some(&secret))),
        AnyCheck::Amqp(AmqpProbe::new(address, None, None, "/")),
    ] {
        let outcome = tokio::time::timeout(WAIT, check.attempt(short)).await.unwrap();
        let Outcome::Fail(error) = outcome else { panic!("{check:?}: {outcome:?}") };
        assert_eq!(error.to_string(), "no answer within 30ms", "{check:?}");
    }
}

/// An HTTPS server; tells the names it was asked for.
async fn https(certs: &Certs) -> (SocketAddr, tokio::sync::mpsc::Receiver<Option<String>>) {
    let acceptor = certs.acceptor(b"http/1.1", false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (names, asked) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let name = stream.get_ref().1.server_name().map(str::to_owned);
            let _ = names.try_send(name);
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    (address, asked)
}

#[tokio::test]
async fn https_verifies_unless_told_not_to() {
    let directory = tempfile::tempdir().unwrap();
    let certs = Certs::make(directory.path());
    let (address, mut asked) = https(&certs).await;
    let https = |peer| HttpCheck { tls: Some(peer), ..HttpCheck::default() };
    let trusting = |ca: &str| PeerTls { ca: Some(certs.path(ca)), ..PeerTls::default() };
    let ask = async |spec: &HttpCheck| verdict(AnyCheck::Http(Box::new(HttpProbe::new(address, spec)))).await;

    let stranger = ask(&https(PeerTls::default())).await.unwrap_err();
    assert!(stranger.starts_with("TLS with 127.0.0.1") && stranger.contains("UnknownIssuer"), "{stranger}");
    assert_eq!(ask(&https(PeerTls { insecure: true, ..PeerTls::default() })).await, Ok(()));
    assert_eq!(ask(&https(trusting("ca.pem"))).await, Ok(()), "the certificate holds the address");
    assert_eq!(ask(&HttpCheck { host: Some("localhost".to_owned()), ..https(trusting("ca.pem")) }).await, Ok(()));
    let names: Vec<_> = std::iter::from_fn(|| asked.try_recv().ok()).collect();
    assert_eq!(names, [None, None, Some("localhost".to_owned())]);
    let other = ask(&https(PeerTls { sni: Some("other.example".to_owned()), ..trusting("ca.pem") })).await.unwrap_err();
    assert!(other.contains("other.example"), "{other}");
    for (file, why) in [("server.key", "no certificate in it"), ("none.pem", "No such file"), (".", "not a file")] {
        let error = ask(&https(trusting(file))).await.unwrap_err();
        assert!(error.contains(why), "{file}: {error}");
    }
}

#[tokio::test]
async fn redis_answers_in_its_own_words() {
    let secret = Secret("s3cret".to_owned());
    for (answer, password, passes) in [
        ("+PONG\r\n", None, true),
        ("-NOAUTH Authentication required.\r\n", None, true),
        ("-LOADING Redis is loading the dataset in memory\r\n", None, false),
        ("HTTP/1.1 400 Bad Request\r\n", None, false),
        ("-WRONGPASS invalid username-password pair\r\n", Some(&secret), false),
    ] {
        let (address, mut heard) = server(answer).await;
        let verdict = verdict(AnyCheck::Redis(RedisProbe::new(address, password))).await;
        assert_eq!(verdict.is_ok(), passes, "{answer}: {verdict:?}");
        if let Err(error) = verdict {
            assert!(error.contains(answer.trim()) && !error.contains("s3cret"), "{error}");
        }
        let first = heard.recv().await.unwrap();
        assert_eq!(first.starts_with("*2\r\n$4\r\nAUTH\r\n$6\r\ns3cret\r\n"), password.is_some(), "{first}");
    }
}

#[tokio::test]
async fn rabbitmq_must_greet_as_the_protocol_has_it() {
    // connection.start, version 0.9, no properties, "PLAIN", "en_US".
    let start = b"\x01\0\0\0\0\0\x1c\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US\xce";
    let (address, mut heard) = server(&start[..]).await;
    assert_eq!(verdict(AnyCheck::Amqp(AmqpProbe::new(address, None, None, "/"))).await, Ok(()));
    assert_eq!(heard.recv().await.unwrap(), "AMQP\0\0\x09\x01");
    // Another version's server answers with its header; others say whatever they say.
    for answer in ["AMQP\0\x01\0\0", "HTTP/1.1 400 Bad Request\r\n\r\n", "-ERR unknown command\r\n"] {
        let (address, _heard) = server(answer).await;
        let error = verdict(AnyCheck::Amqp(AmqpProbe::new(address, None, None, "/"))).await.unwrap_err();
        assert!(error.starts_with("no AMQP 0-9-1 server"), "{error}");
    }
    let close = b"\x01\0\0\0\0\0\x13\0\x0a\0\x32\x01\x93\x08REFUSED.\0\0\0\0\xce";
    let (address, _heard) = server(&close[..]).await;
    let error = verdict(AnyCheck::Amqp(AmqpProbe::new(address, None, None, "/"))).await.unwrap_err();
    assert_eq!(error, "it closed the connection: REFUSED.");
}

/// A gRPC server that answers `message` with `status` in its trailers, over TLS or in the clear.
async fn grpc(message: &'static [u8], status: &'static str, tls: Option<TlsAcceptor>) -> SocketAddr {
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Bytes;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let trailers = async move {
                    let status = hyper::header::HeaderValue::from_static(status);
                    Some(Ok(hyper::HeaderMap::from_iter([("grpc-status".parse().unwrap(), status)])))
                };
                let body = Full::new(Bytes::from_static(message)).with_trailers(trailers);
                Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
            });
            let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            match &tls {
                None => drop(tokio::spawn(builder.serve_connection(TokioIo::new(stream), answer))),
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => drop(tokio::spawn(builder.serve_connection(TokioIo::new(stream), answer))),
                    Err(_) => continue,
                },
            }
        }
    });
    address
}

#[tokio::test]
async fn grpc_must_serve() {
    for (message, status, expected) in [
        (&b"\0\0\0\0\x02\x08\x01"[..], "0", Ok(())),
        (&b"\0\0\0\0\x02\x08\x02"[..], "0", Err("its health is NOT_SERVING")),
        (&b"\0\0\0\0\0"[..], "0", Err("its health is unknown (Some(0))")),
        (&b""[..], "12", Err("it has no health service (grpc-status 12)")),
        (&b""[..], "5", Err("grpc-status 5")),
    ] {
        let address = grpc(message, status, None).await;
        let verdict = verdict(AnyCheck::Grpc(Box::new(GrpcProbe::new(address, "web", None)))).await;
        assert_eq!(verdict.as_ref().map_err(String::as_str), expected.as_ref().map(|()| &()).map_err(|e| *e));
    }
    let (address, _heard) = server("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(verdict(AnyCheck::Grpc(Box::new(GrpcProbe::new(address, "", None)))).await.is_err());
}

#[tokio::test]
async fn grpc_verifies_unless_told_not_to() {
    let directory = tempfile::tempdir().unwrap();
    let certs = Certs::make(directory.path());
    let address = grpc(b"\0\0\0\0\x02\x08\x01", "0", Some(certs.acceptor(b"h2", false))).await;
    let ask = async |peer| verdict(AnyCheck::Grpc(Box::new(GrpcProbe::new(address, "", Some(&peer))))).await;
    let stranger = ask(PeerTls::default()).await.unwrap_err();
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
    assert_eq!(ask(PeerTls { insecure: true, ..PeerTls::default() }).await, Ok(()));
    let trusting = PeerTls { ca: Some(certs.path("ca.pem")), ..PeerTls::default() };
    assert_eq!(ask(trusting.clone()).await, Ok(()), "the certificate holds the address");
    let other = ask(PeerTls { sni: Some("other.example".to_owned()), ..trusting }).await.unwrap_err();
    assert!(other.contains("other.example"), "{other}");
}

#[tokio::test]
async fn what_cannot_be_dialled_fails_rather_than_passes() {
    let container = "ab".repeat(32).parse().unwrap();
    for kind in [CheckKind::Tcp, CheckKind::Exec { command: vec!["true".into()] }] {
        let check = AnyCheck::new(&kind, None, &container, None).unwrap();
        assert!(verdict(check).await.unwrap_err().contains("no "), "{kind:?}");
    }
    assert!(AnyCheck::new(&CheckKind::Docker, None, &container, None).is_none());
    assert_eq!(verdict(AnyCheck::new(&CheckKind::Noop, None, &container, None).unwrap()).await, Ok(()));
}
