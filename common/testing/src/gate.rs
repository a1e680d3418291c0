//! A way to a server that a test can break: a forwarder on loopback or on a socket file.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// What a [`Gate`] does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Forwards them.
    Open,
    /// Hangs up, on old ones and new ones.
    Closed,
    /// Keeps them and forwards nothing, until it opens or closes.
    Silent,
}

/// A forwarder. Dropping it ends it with all its connections.
#[derive(Debug)]
pub struct Gate {
    way: watch::Sender<Way>,
    _task: AbortOnDropHandle<()>,
}

impl Gate {
    /// A gate on a port of its own, open, and its address.
    pub async fn tcp(target: SocketAddr) -> (Self, SocketAddr) {
        Self::tcp_at(SocketAddr::from(([127, 0, 0, 1], 0)), target).await
    }

    /// The same at this address; port 0 takes a free one.
    pub async fn tcp_at(at: SocketAddr, target: SocketAddr) -> (Self, SocketAddr) {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        (Self::start(Listener::Tcp(listener), Target::Tcp(target)), address)
    }

    /// A gate at the socket file `path`, open, to the socket file `target`.
    pub fn unix(path: &Path, target: &Path) -> Self {
        Self::start(Listener::Unix(UnixListener::bind(path).unwrap()), Target::Unix(target.to_owned()))
    }

    /// Changes what it does, with the connections that it has, too.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    fn start(listener: Listener, target: Target) -> Self {
        let (way, seen) = watch::channel(Way::Open);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let near = listener.accept().await.unwrap();
                let (target, seen) = (target.clone(), seen.clone());
                connections.spawn(async move { forward(near, &target, seen).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { way, _task: AbortOnDropHandle::new(task) }
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Duplex>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(prompt(listener.accept().await?.0)?),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

#[derive(Clone)]
enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Target {
    async fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        Ok(match self {
            Self::Tcp(address) => Box::new(prompt(TcpStream::connect(address).await?)?),
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

fn prompt(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Ends when either side does, or with the gate.
async fn forward(mut near: Box<dyn Duplex>, target: &Target, mut way: watch::Receiver<Way>) {
    let mut carry = std::pin::pin!(async move {
        let mut far = target.connect().await?;
        copy_bidirectional(&mut near, &mut far).await
    });
    loop {
        let now = *way.borrow_and_update();
        let changed = match now {
            Way::Closed => return,
            Way::Silent => way.changed().await,
            Way::Open => tokio::select! {
                _ = &mut carry => return, // a server that is not there is a hang-up, too
                changed = way.changed() => changed,
            },
        };
        if changed.is_err() {
            return;
        }
    }
}
