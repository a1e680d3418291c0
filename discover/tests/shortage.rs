//! A process without a free file descriptor knows nothing against HAProxy. A program of its own: the limit is the whole process's.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy excuses only functions marked as tests"
)]

mod support;

use std::fs::File;
use std::net::SocketAddr;
use std::process::Command;

use discover::haproxy::process::launch::{adopt, is_same};
use discover::haproxy::process::ports::{BindReason, bindable};
use support::{Lab, programs};

/// Takes every file descriptor that is left, of a few.
fn take_all() -> Vec<File> {
    let limited = Command::new("prlimit").args([&format!("--pid={}", std::process::id()), "--nofile=128:"]).status();
    assert!(limited.unwrap().success());
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[tokio::test]
async fn without_a_file_descriptor_haproxy_runs_on_and_its_ports_are_not_called_taken() {
    let program = programs().remove(0);
    let lab = Lab::start(&program, "backend b\n").await;
    let (running, master) = (lab.running.as_ref().unwrap().master, lab.launch.master());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = taken.local_addr().unwrap();

    let all = take_all();
    bindable(address).unwrap();
    adopt(&master).await.unwrap_err();
    assert!(is_same(running, None), "it cannot be looked at, and is there");
    assert!(!is_same(i32::MAX, None), "there is none of this id");

    drop(all);
    assert_eq!(bindable(address).unwrap_err().reason, BindReason::InUse);
    assert_eq!(adopt(&master).await.unwrap().unwrap().master, running);
}
