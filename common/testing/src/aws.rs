//! A scripted EC2 and S3, for what moto does not do: thousands of instances at once, refusals, a server that goes away, and
//! who was asked as whom. Signatures are not checked; tests against moto show that they are right.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::served::Served;

/// One request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// When.
    pub at: Instant,
    /// Path and query.
    pub uri: String,
    /// Its headers.
    pub headers: HeaderMap,
}

impl Asked {
    /// The id of the access key that signed it.
    pub fn key(&self) -> &str {
        let authorization = self.headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let scope = authorization.split("Credential=").nth(1).unwrap_or_default();
        scope.split('/').next().unwrap_or_default()
    }
}

#[derive(Default)]
struct World {
    /// S3: by `bucket/key`.
    objects: BTreeMap<String, String>,
    /// EC2: the answers to come, each with its status; the last one stays.
    answers: Vec<(StatusCode, String)>,
    asked: Vec<Asked>,
}

/// The server; it ends when it is dropped.
pub struct AwsApi {
    world: Arc<Mutex<World>>,
    served: Served,
}

impl AwsApi {
    /// It has no object and no instance.
    pub async fn start() -> Self {
        let world: Arc<Mutex<World>> = Arc::default();
        let served = Served::start(Router::new().fallback(answer).with_state(world.clone())).await;
        let api = Self { world, served };
        api.run(&[]);
        api
    }

    /// Where it is, for `aws_endpoint_url`.
    pub fn url(&self) -> String {
        self.served.url()
    }

    /// Writes an object: `bucket/key`.
    pub fn put(&self, path: &str, text: &str) {
        self.lock().objects.insert(path.to_owned(), text.to_owned());
    }

    /// These instances run, by their private addresses; each request gets all of them in one page.
    pub fn run(&self, addresses: &[String]) {
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        self.answer(vec![page(&addresses, "")]);
    }

    /// EC2 says this, one after the other; the last one for ever.
    pub fn answer(&self, answers: Vec<(u16, String)>) {
        let mut answers: Vec<_> =
            answers.into_iter().map(|(status, text)| (StatusCode::from_u16(status).unwrap(), text)).collect();
        answers.reverse();
        self.lock().answers = answers;
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

/// A page of `DescribeInstances`, with the token of the next one if it is not empty. An instance without an address has none.
pub fn page(addresses: &[&str], next: &str) -> (u16, String) {
    let instance = |address: &&str| {
        format!(
            "<item><instancesSet><item><instanceId>i-{address}</instanceId><privateDnsName>ip-{address}</privateDnsName>\
             <privateIpAddress>{address}</privateIpAddress></item></instancesSet></item>"
        )
    };
    let all: String = addresses.iter().map(instance).collect();
    let text = format!(
        "<DescribeInstancesResponse><reservationSet>{all}</reservationSet><nextToken>{next}</nextToken></DescribeInstancesResponse>"
    );
    (200, text)
}

async fn answer(State(world): State<Arc<Mutex<World>>>, request: Request) -> Response {
    let mut world = world.lock().unwrap();
    let (uri, headers) = (request.uri().to_string(), request.headers().clone());
    world.asked.push(Asked { at: Instant::now(), uri, headers });
    let path = request.uri().path().trim_start_matches('/');
    if path.is_empty() {
        let last = world.answers.len() == 1;
        let (status, text) = if last { world.answers[0].clone() } else { world.answers.pop().unwrap() };
        return (status, text).into_response();
    }
    match world.objects.get(path) {
        Some(text) => text.clone().into_response(),
        None => {
            (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code><Message>None.</Message></Error>").into_response()
        }
    }
}
