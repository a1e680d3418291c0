//! What tests need: real daemons on loopback and in directories of their own, ways to them that break, and the suite that
//! every watcher passes. Whatever goes wrong in here is a panic: only tests use it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod again;
pub mod aws;
pub mod certs;
pub mod containers;
pub mod dns;
pub mod docker_api;
mod docs;
pub mod etcd;
pub mod fake;
pub mod gate;
pub mod keys;
pub mod marathon;
pub mod process;
pub mod served;
mod skip;
pub mod watch_contract;
pub mod zookeeper;

pub use again::in_own_mounts;
pub use docs::is_current;
pub use skip::skipped;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// Sends a whole HTTP request to 127.0.0.1 and gives the whole answer; the request must ask for `Connection: close`.
pub fn http_once(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A port on 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
