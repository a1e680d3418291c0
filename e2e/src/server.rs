//! A small HTTP server in this process: a backend without Docker's proxy before it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::{Context, Result};

/// A server that answers every request with its name, until it is dropped, which ends its connections, too.
#[derive(Debug)]
pub struct Server {
    /// What it answers.
    pub name: Arc<str>,
    /// Where it listens, on loopback.
    pub address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Server {
    /// Starts one on 127.0.0.1.
    ///
    /// # Errors
    /// When there is no port left.
    pub async fn start(name: &str) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, name).await
    }

    /// The same on another address of this machine.
    ///
    /// # Errors
    /// When there is no such address, or no port left.
    pub async fn start_at(address: Ipv4Addr, name: &str) -> Result<Self> {
        Self::start_on((address, 0).into(), name).await
    }

    /// The same on this port.
    ///
    /// # Errors
    /// When somebody else has it.
    pub async fn start_on(address: SocketAddr, name: &str) -> Result<Self> {
        let listener = TcpListener::bind(address).await.during(format!("listening on {address}"))?;
        let address = listener.local_addr().during("listening on loopback")?;
        let name: Arc<str> = name.into();
        let own = name.clone();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new(); // which end with it
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, own.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { name, address, _serving: AbortOnDropHandle::new(serving) })
    }
}

/// Answers on one connection. HAProxy sends each request, which has no body, in one piece.
async fn answer(mut stream: TcpStream, name: Arc<str>) {
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}\n", name.len() + 1);
    let mut request = Vec::new();
    while stream.read_buf(&mut request).await.is_ok_and(|n| n > 0) {
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            if stream.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
