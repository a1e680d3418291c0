//! What goes wrong around a real HAProxy, and the traps of its own: each test's name says which.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod disk;
mod hung;
mod loops;
mod processes;
mod refused;
mod reloads;
mod servers;
#[path = "../support/mod.rs"]
mod support;
mod traffic;
mod turns;
mod unproved;
mod words;

use support::traffic::HttpBackend;
use support::world::{World, backend};
use support::{free_port, get};

const HEADER: &str = include_str!("../../src/generators/haproxy/file/templates/header.tera");
const SECTION: &str = include_str!("../../src/generators/haproxy/file/templates/section.tera");

/// One service with one backend, running.
async fn one_service(mut world: World) -> (World, u16, HttpBackend) {
    let (port, http) = (free_port(), HttpBackend::start("b0").await);
    world.want("web", vec![backend("b0", http.address, port)]);
    world.settle().await;
    assert_eq!(get(port).await, "b0");
    (world, port, http)
}
