//! The edge on a real HAProxy: hosts, paths and names of TLS come and go without a reload, and nobody gets what is not theirs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod echo;
mod forged;
mod grpc;
mod hostile;
mod life;
mod made;
mod pools;
mod requests;
mod sections;
mod sni;
mod stats;
mod sticky;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use discover::edge::EdgeSettings;
use model::{Backend, Route, Routes};
use support::free_port;
use support::world::{World, backend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A generator with an edge, and the edge's port.
fn world(program: &Path, change: impl FnOnce(&mut EdgeSettings)) -> (World, u16) {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}").parse().unwrap();
    let mut edge = EdgeSettings { listen, spare_sections: 3, ..EdgeSettings::default() };
    change(&mut edge);
    (World::with(program, |settings| settings.edge = Some(Arc::new(edge))), port)
}

/// Every HAProxy of this machine, the one that makes sections among them.
fn each() -> Vec<PathBuf> {
    let mut programs = support::world::each();
    programs.extend(support::making());
    programs.sort();
    programs.dedup();
    programs
}

/// `shop.example/api`, and words for what is done there: `strip`, `sticky`, `https`, `priority=N`.
fn route(text: &str) -> Route {
    let mut words = text.split(' ');
    let place = words.next().unwrap();
    let at = place.find('/').unwrap_or(place.len());
    let path = if place[at..].is_empty() { "/" } else { &place[at..] };
    let mut route = Route::new(place[..at].parse().unwrap(), path.parse().unwrap());
    for word in words {
        match word {
            "strip" => route.strip_prefix = true,
            "sticky" => route.sticky = true,
            "https" => route.redirect_https = true,
            priority => route.priority = priority.strip_prefix("priority=").map(|p| p.parse().unwrap()),
        }
    }
    route
}

/// A backend that is reached through the edge alone.
fn routed(id: &str, at: SocketAddr, routes: &[&str]) -> Backend {
    let mut backend = backend(id, at, 1);
    backend.service_port = None;
    backend.routes = Routes::new(routes.iter().map(|r| route(r))).0;
    backend
}

/// An answer, whole.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// A header's value.
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Sends these bytes over a connection of their own and reads all of the answer.
async fn raw(port: u16, bytes: &[u8]) -> Answer {
    let talk = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await; // a reset after the answer is no matter
        String::from_utf8_lossy(&all).into_owned()
    };
    let all = tokio::time::timeout(std::time::Duration::from_secs(20), talk).await.unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// A GET with further header lines.
async fn get(port: u16, host: &str, path: &str, headers: &str) -> Answer {
    raw(port, format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n").as_bytes()).await
}

/// Who answers, or the status of whoever does not.
async fn who(port: u16, host: &str, path: &str) -> String {
    let answer = get(port, host, path, "").await;
    match answer.status {
        200 => answer.body.lines().next().unwrap_or_default().to_owned(),
        status => status.to_string(),
    }
}
