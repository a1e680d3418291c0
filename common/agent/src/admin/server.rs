//! Listens, and keeps strangers from using the agent up: connections are few, short of memory, cannot idle, and end when their client does
//! not read. When they are as many as may be, the oldest makes room for a new one: so nobody can keep a HEALTHCHECK out.

use std::{collections::VecDeque, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Extension, Router, middleware::from_fn_with_state};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    StatusSource,
    access::{self, Access, AccessError, ServerTls},
    deadline::Deadlined,
    hosts::AcceptedAt,
    routes::{AdminState, router},
};
use crate::telemetry::Chain;

/// Connections at once; for one more the oldest ends.
const MAX_CONNECTIONS: usize = 64;
/// For a request's head, and for the next request of an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;
/// What an answer under way gets at the end of the run.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Pause after a failed accept: with no file descriptors left it fails at once, again and again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why there is no admin server.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken, not ours, or not allowed.
    #[error("listening on {address} for the admin server (choose another address with {flag}, or {flag} off)")]
    Bind {
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        source: io::Error,
    },
    /// Its certificate or key cannot be used.
    #[error("starting the admin server")]
    Access(#[source] AccessError),
}

/// The admin server of one agent, GET only.
pub struct AdminServer {
    title: &'static str,
    source: Arc<dyn StatusSource>,
    registry: Arc<Registry>,
    changes: watch::Receiver<u64>,
    extra: Router,
    access: Access,
}

/// An admin server whose address is taken.
pub struct Bound {
    server: AdminServer,
    listener: TcpListener,
    address: SocketAddr,
}

impl AdminServer {
    /// `title` heads the page ("register"); each new value in `changes` sends the status to whoever watches `/events`.
    pub fn new(
        title: &'static str,
        source: Arc<dyn StatusSource>,
        registry: Arc<Registry>,
        changes: watch::Receiver<u64>,
    ) -> Self {
        Self { title, source, registry, changes, extra: Router::new(), access: Access::default() }
    }

    /// Adds routes of the agent's own; GET only and the limits hold for them too. They must not repeat a path of ours.
    #[must_use]
    pub fn with_routes(mut self, extra: Router) -> Self {
        self.extra = self.extra.merge(extra);
        self
    }

    /// Says who may read; the routes of the agent's own are no exception.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Takes the address, and says so when strangers may read there; `flag` is named in the error.
    pub async fn bind(self, address: SocketAddr, flag: &'static str) -> Result<Bound, AdminError> {
        let failed = |source| AdminError::Bind { address, flag, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if let Some(tls) = &self.access.tls {
            tls.acceptor().await.map_err(AdminError::Access)?;
        }
        self.access.warn_of_strangers(address);
        Ok(Bound { server: self, listener, address })
    }
}

impl Bound {
    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until cancelled. No request can make it fail.
    ///
    /// # Errors
    /// None so far; the form fits `Lifecycle::spawn`.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), AdminError> {
        let Self { server, listener, address } = self;
        let AdminServer { title, source, registry, changes, extra, access } = server;
        let tls = access.tls.clone();
        let app = router(Arc::new(AdminState::new(title, source, registry, changes, cancel.clone())), extra)
            .layer(from_fn_with_state(access, access::check));
        let mut open = JoinSet::new();
        let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
        info!(%address, "Admin server listens.");
        while let Some(accepted) = cancel.run_until_cancelled(listener.accept()).await {
            while open.try_join_next().is_some() {}
            by_age.retain(|connection| !connection.is_finished());
            match accepted {
                Ok((stream, _)) => {
                    if by_age.len() >= MAX_CONNECTIONS
                        && let Some(oldest) = by_age.pop_front()
                    {
                        debug!("The oldest connection to the admin server makes room for a new one.");
                        oldest.abort();
                    }
                    // A connection that is gone already is loopback's, whose rules are the strictest.
                    let at = AcceptedAt(stream.local_addr().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))));
                    by_age.push_back(open.spawn(accept(
                        stream,
                        tls.clone(),
                        app.clone().layer(Extension(at)),
                        cancel.clone(),
                    )));
                }
                Err(error) => {
                    warn!(%error, "Accepting a connection to the admin server failed.");
                    cancel.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
                }
            }
        }
        drop(listener);
        while open.join_next().await.is_some() {}
        Ok(())
    }
}

/// Serves a connection, after its handshake where there is one.
async fn accept(stream: TcpStream, tls: Option<Arc<ServerTls>>, app: Router, cancel: CancellationToken) {
    let Some(tls) = tls else { return serve(stream, app, cancel).await };
    let acceptor = match tls.acceptor().await {
        Ok(acceptor) => acceptor,
        Err(error) => return warn!(error = %Chain(&error), "A connection to the admin server was not served."),
    };
    let handshake = timeout(HEAD_TIMEOUT, acceptor.accept(stream));
    match cancel.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => serve(stream, app, cancel.clone()).await,
        Some(Ok(Err(error))) => debug!(%error, "A handshake with the admin server failed."),
        Some(Err(_)) | None => {}
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, app: Router, cancel: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Deadlined::new(stream)), TowerToHyperService::new(app));
    let mut connection = pin!(connection);
    let end = tokio::select! {
        end = connection.as_mut() => end,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_ANSWERS, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = end {
        debug!(%error, "A connection to the admin server broke off."); // its client's affair
    }
}
