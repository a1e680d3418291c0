//! An HTTP server of a test's own.

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// A router on a free port of 127.0.0.1; it ends when it is dropped.
#[derive(Debug)]
pub struct Served {
    port: u16,
    _server: AbortOnDropHandle<()>,
}

impl Served {
    /// Serves it from now on.
    pub async fn start(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { port, _server: AbortOnDropHandle::new(server) }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
