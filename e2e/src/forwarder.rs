//! A TCP forwarder with bad habits: it delays, cuts, hangs, and passes one direction only.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::{Context, Result};

/// Pieces that may be under way in one direction of one connection; then the sender is held up.
const UNDER_WAY: usize = 1024;
/// Bytes of one piece.
const PIECE: usize = 16 * 1024;

/// What a forwarder does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Whether there are connections at all; otherwise those that were open are closed, and new ones too.
    pub open: bool,
    /// Whether bytes get to the server; otherwise they wait.
    pub to_server: bool,
    /// Whether bytes get back to the client; otherwise they wait.
    pub to_client: bool,
    /// How long each byte takes, in each direction.
    pub latency: Duration,
}

impl Way {
    /// Passes everything at once.
    pub const CLEAR: Self = Self { open: true, to_server: true, to_client: true, latency: Duration::ZERO };
    /// Takes connections and closes them at once, as those that were open.
    pub const CUT: Self = Self { open: false, ..Self::CLEAR };
    /// Keeps connections open, and takes new ones, and nothing passes.
    pub const HANGING: Self = Self { to_server: false, to_client: false, ..Self::CLEAR };
    /// Requests arrive, answers do not.
    pub const DEAF: Self = Self { to_client: false, ..Self::CLEAR };
    /// Answers and news arrive, requests do not.
    pub const MUTE: Self = Self { to_server: false, ..Self::CLEAR };

    /// Passes everything, so much later.
    pub const fn slow(latency: Duration) -> Self {
        Self { latency, ..Self::CLEAR }
    }
}

/// The forwarder. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    way: watch::Sender<Way>,
    _serving: AbortOnDropHandle<()>,
}

impl Forwarder {
    /// One on loopback towards `to`, passing everything.
    ///
    /// # Errors
    /// When there is no port left.
    pub async fn start(to: SocketAddr) -> Result<Self> {
        Self::start_at(([127, 0, 0, 1], 0).into(), to).await
    }

    /// One that listens at `at`.
    ///
    /// # Errors
    /// When that address cannot be had.
    pub async fn start_at(at: SocketAddr, to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(at).await.during(format!("listening at {at}"))?;
        let address = listener.local_addr().during("asking for our own address")?;
        let (way, ways) = watch::channel(Way::CLEAR);
        let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, to, ways)));
        Ok(Self { address, way, _serving: serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Behaves so from now on, towards open connections too.
    pub fn be(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, ways: watch::Receiver<Way>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(connect(client, to, ways.clone()));
    }
}

/// Carries one connection until either side, or the way, closes it.
async fn connect(client: TcpStream, to: SocketAddr, mut ways: watch::Receiver<Way>) {
    if !ways.borrow_and_update().open {
        return;
    }
    let Ok(server) = TcpStream::connect(to).await else { return };
    for stream in [&client, &server] {
        if stream.set_nodelay(true).is_err() {
            return;
        }
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let there = carry(from_client, to_server, ways.clone(), |way| way.to_server);
    let back = carry(from_server, to_client, ways.clone(), |way| way.to_client);
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        _ = ways.wait_for(|way| !way.open) => {}
    }
}

/// Carries bytes in one direction, each piece after the latency that held when it came, and only while it `passes`.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut ways: watch::Receiver<Way>,
    passes: fn(&Way) -> bool,
) {
    let (queue, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let latency = ways.clone();
    let read = async move {
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            let due = Instant::now() + latency.borrow().latency;
            if queue.send((due, piece[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            if ways.wait_for(passes).await.is_err() || to.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await; // its other end may be gone already
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::http::Client;
    use crate::server::Server;

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(20);

    async fn asked(client: &mut Client) -> bool {
        client.get("/").await.is_ok_and(|reply| reply.name() == "behind")
    }

    #[tokio::test]
    async fn it_delays_hangs_cuts_and_clears_again() {
        let server = Server::start("behind").await.unwrap();
        let forwarder = Forwarder::start(server.address).await.unwrap();
        let mut client = Client::new(forwarder.address(), true, LONG);
        assert!(asked(&mut client).await);
        forwarder.be(Way::slow(SHORT));
        let begun = Instant::now();
        assert!(asked(&mut client).await);
        assert!(begun.elapsed() >= SHORT * 2, "there and back");
        for silent in [Way::HANGING, Way::DEAF, Way::MUTE] {
            forwarder.be(silent);
            let mut client = Client::new(forwarder.address(), true, LONG);
            let waiting = asked(&mut client);
            tokio::pin!(waiting);
            assert!(timeout(SHORT, &mut waiting).await.is_err(), "{silent:?}");
            forwarder.be(Way::CLEAR);
            assert!(waiting.await, "what waited arrives");
        }
        forwarder.be(Way::CUT);
        assert!(!asked(&mut client).await);
        forwarder.be(Way::CLEAR);
        assert!(asked(&mut client).await);
        drop(server);
        assert!(!asked(&mut client).await, "a server that is gone is gone here too");
    }
}
