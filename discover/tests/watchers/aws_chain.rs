//! Credentials by AWS' standard chain. The environment is the process', so each case is a `discover ls` of its own.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use testing::aws::{Asked, AwsApi};

use super::*;

/// The metadata service of an EC2 instance (IMDSv2), and of a container of ECS. Gives its base, and what it was asked.
async fn metadata() -> (String, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let seen = asked.clone();
    let app = Router::new().fallback(move |request: Request| {
        seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
        let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let credentials = |key: &str| {
            json!({"Code": "Success", "AccessKeyId": key, "SecretAccessKey": "secret", "Token": "session",
                "Expiration": "2100-01-01T00:00:00Z"})
            .to_string()
        };
        let answer = match (request.method(), request.uri().path()) {
            (&Method::PUT, "/latest/api/token") if header("x-aws-ec2-metadata-token-ttl-seconds").is_some() => {
                (StatusCode::OK, "imds-token".to_owned())
            }
            (_, "/ecs") => (StatusCode::OK, credentials("FROMECS")),
            // Version 1, without a token, is refused, as it is where only version 2 is allowed.
            (&Method::GET, _) if header("x-aws-ec2-metadata-token").as_deref() != Some("imds-token") => {
                (StatusCode::UNAUTHORIZED, String::new())
            }
            (_, "/latest/meta-data/iam/security-credentials/") => (StatusCode::OK, "web-role".to_owned()),
            (_, "/latest/meta-data/iam/security-credentials/web-role") => (StatusCode::OK, credentials("FROMIMDS")),
            _ => (StatusCode::NOT_FOUND, String::new()),
        };
        async move { answer }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (base, asked)
}

/// What `discover ls` says with no other environment than this.
async fn ls(dir: &Path, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_discover"));
    command.args(["ls", "--timeout", "5s", "-c", "synapse.json"]).current_dir(dir);
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("HOME", dir);
    command.envs(environment.iter().copied());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn credentials_come_from_the_first_link_of_awss_chain_that_has_some() {
    let (api, (metadata, met), dir) = (AwsApi::start().await, metadata().await, tempfile::tempdir().unwrap());
    api.run(&["10.0.0.1".to_owned()]);
    let discovery = json!({"method": "ec2tag", "tag_name": "role", "tag_value": "web", "aws_region": "eu-west-1", "aws_endpoint_url": api.url()});
    let config = json!({"services": {"web": {"discovery": discovery, "backend_port_override": 80}}});
    std::fs::write(dir.path().join("synapse.json"), config.to_string()).unwrap();
    let (ecs, profile) = (format!("{metadata}/ecs"), ("AWS_PROFILE", "other"));
    let keys =
        [("AWS_ACCESS_KEY_ID", "FROMENV"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_SESSION_TOKEN", "session")];
    let container = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", ecs.as_str());
    let instance = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.as_str());

    // From the last link to the first: each that is added wins over all that were there before.
    let mut environment = vec![instance];
    let mut expected = Vec::new();
    let mut turn = async |environment: &[(&str, &str)], key: &str| {
        let output = ls(dir.path(), environment).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("10.0.0.1"), "{key}: {said}");
        expected.push(key.to_owned());
        let asked: Vec<String> = api.asked().iter().map(|asked| asked.key().to_owned()).collect();
        assert_eq!(asked, expected);
    };
    turn(&environment, "FROMIMDS").await;
    assert_eq!(met.lock().unwrap()[0], "PUT /latest/api/token", "version 2");
    environment.push(container);
    turn(&environment, "FROMECS").await;
    let aws = dir.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let file =
        |section: &str, key: &str| format!("[{section}]\naws_access_key_id = {key}\naws_secret_access_key = s\n");
    std::fs::write(aws.join("credentials"), file("default", "FROMFILE") + &file("other", "FROMOTHER")).unwrap();
    turn(&environment, "FROMFILE").await;
    environment.push(profile);
    turn(&environment, "FROMOTHER").await;
    environment.extend(keys);
    let before = met.lock().unwrap().len();
    turn(&environment, "FROMENV").await;
    assert_eq!(met.lock().unwrap().len(), before, "nobody else is asked");
    let token = |asked: &Asked| asked.headers.get("x-amz-security-token").map(|v| v.to_str().unwrap().to_owned());
    assert_eq!(token(api.asked().last().unwrap()).as_deref(), Some("session"));

    // None at all: it says so, and asks nothing of EC2.
    std::fs::remove_dir_all(&aws).unwrap();
    let output = ls(dir.path(), &[("AWS_EC2_METADATA_DISABLED", "true")]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("web") && said.contains("signing a request to ec2"), "{said}");
    assert_eq!(api.asked().len(), expected.len());
}
