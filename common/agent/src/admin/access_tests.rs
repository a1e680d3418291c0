//! Who may read the admin server, over real connections.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::access::{AccessArgs, Token};
use super::client::{AgentArgs, StatusError, fetch};
use super::server_tests::Lab;
use crate::telemetry::Chain;
use testing::certs::Certs;

const TOKEN: &str = "0123456789abcdef";

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn without_its_token_only_the_health_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let args = AccessArgs {
        admin_token_file: Some(file(dir.path(), "token", &format!("{TOKEN}\n"))),
        ..AccessArgs::default()
    };
    let lab = Lab::with("127.0.0.1:0", args.access().unwrap()).await;
    *lab.agent.unready.lock().unwrap() = Some("etcd at e1 has not answered yet".to_owned());
    let basic = |text: &str| format!("authorization: Basic {}", STANDARD.encode(text));
    let wrong = [
        "x: y".to_owned(),
        "authorization: Bearer".to_owned(),
        "authorization: Bearer 0123456789abcdeX".to_owned(),
        format!("authorization: Bearer {TOKEN}0"),
        format!("authorization: Token {TOKEN}"),
        "authorization: Basic !!".to_owned(),
        basic(TOKEN),
        basic("admin:"),
    ];
    for header in &wrong {
        for path in ["/", "/page.js", "/metrics", "/status", "/events", "/sd", "/nothing"] {
            let (code, head, body) = lab.ask_as("GET", path, header).await;
            assert_eq!((code, body.as_str()), (401, "a token is needed\n"), "{header} {path}");
            assert!(head.contains("www-authenticate: basic"), "{head}");
        }
        let (code, _, body) = lab.ask_as("GET", "/ready", header).await;
        assert_eq!((code, body.as_str()), (503, "no\n"), "the state, and not the reason");
        assert_eq!(lab.ask_as("GET", "/live", header).await.0, 200);
    }
    for header in [format!("Authorization: bearer {TOKEN}"), basic(&format!("anybody:{TOKEN}"))] {
        assert_eq!(lab.ask_as("GET", "/status", &header).await.2, r#"{"n":1}"#, "{header}");
        assert!(lab.ask_as("GET", "/ready", &header).await.2.contains("etcd at e1 has not answered yet"));
        assert_eq!(lab.ask_as("POST", "/status", &header).await.0, 405);
    }

    let mut status = AgentArgs::default();
    let error = fetch(&status, lab.at, "register").await.unwrap_err();
    assert!(
        matches!(error, StatusError::Unauthorized { .. }) && error.to_string().contains("--admin-token-file"),
        "{error}"
    );
    status.admin_token_file = args.admin_token_file;
    assert_eq!(fetch(&status, lab.at, "register").await.unwrap()["n"], 1);
    lab.stop().await;
}

#[test]
fn a_token_is_long_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    for (text, why) in
        [("short", "at least 16"), ("0123456789 abcdef0", "without a blank"), ("0123456789abcdé0", "printable")]
    {
        let path = file(dir.path(), "token", text);
        let error = Token::read(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains(why) && !error.contains(text), "{error}");
    }
    let token = Token::read(&file(dir.path(), "token", TOKEN)).unwrap();
    assert_eq!(format!("{token:?}"), "***");
    assert!(Token::read(Path::new("/none/token")).unwrap_err().to_string().contains("/none/token"));
}

#[tokio::test]
async fn over_tls_the_status_command_trusts_the_authority_or_exactly_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::make(dir.path());
    let args = AccessArgs {
        admin_cert: Some(certs.path("server.pem")),
        admin_key: Some(certs.path("server.key")),
        admin_token_file: None,
        admin_hosts: Vec::new(),
    };
    let lab = Lab::with("127.0.0.1:0", args.access().unwrap()).await;
    let exactly = |path: PathBuf| AgentArgs { admin_cert: Some(path), ..AgentArgs::default() };
    let by = |path: PathBuf| AgentArgs { admin_ca: Some(path), ..AgentArgs::default() };
    for good in [exactly(certs.path("server.pem")), by(certs.path("ca.pem"))] {
        assert_eq!(fetch(&good, lab.at, "register").await.unwrap()["n"], 1);
    }
    let other = tempfile::tempdir().unwrap();
    let others = Certs::make(other.path());
    for bad in [exactly(certs.path("client.pem")), by(others.path("ca.pem")), exactly("/none/x.pem".into())] {
        let error = fetch(&bad, lab.at, "register").await.unwrap_err();
        assert!(matches!(error, StatusError::Tls { .. }), "{}", Chain(&error));
    }
    let plain = fetch(&AgentArgs::default(), lab.at, "register").await.unwrap_err();
    assert!(matches!(plain, StatusError::Http { .. }), "{}", Chain(&plain));

    // Renewed while it runs; first by what cannot be used: the last good one goes on.
    fs::write(certs.path("server.pem"), "rubbish").unwrap();
    assert_eq!(fetch(&by(certs.path("ca.pem")), lab.at, "register").await.unwrap()["n"], 1);
    for name in ["server.pem", "server.key"] {
        fs::copy(others.path(name), certs.path(name)).unwrap();
    }
    assert_eq!(fetch(&by(others.path("ca.pem")), lab.at, "register").await.unwrap()["n"], 1);
    lab.stop().await;

    let unfit = AccessArgs { admin_key: Some(certs.path("client.key")), ..args.clone() };
    let missing = AccessArgs { admin_cert: Some("/none/c.pem".into()), ..args };
    for (args, why) in [(unfit, "server.pem"), (missing, "/none/c.pem")] {
        let (_, changes) = tokio::sync::watch::channel(0);
        let agent = std::sync::Arc::new(super::server_tests::Agent::default());
        let server = super::AdminServer::new("discover", agent, Default::default(), changes);
        let bound = server.with_access(args.access().unwrap()).bind("127.0.0.1:0".parse().unwrap(), "--admin").await;
        let error = Chain(&bound.err().unwrap()).to_string();
        assert!(error.contains(why), "{error}");
    }
}
