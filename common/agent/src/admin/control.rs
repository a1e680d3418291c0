//! A Unix socket of mode 0600 for what changes something: one JSON request a line, one JSON answer a line.
//!
//! An answer is `{"ok": …}` or `{"error": "…"}`. Who may use it is decided by the file's mode alone.

use std::{
    fs,
    future::Future,
    io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as Probe,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixSocket, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Callers at once; more wait.
const MAX_CALLERS: usize = 16;
/// Bytes of a line.
const MAX_LINE: u64 = 1 << 20;
/// For a caller to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For an answer under way at the end of the run.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What failed on which socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another process answers on it.
    #[error("listening on {}: another process already does; is the agent running twice?", path.display())]
    Live { path: PathBuf },
    /// There is something else under this name; it is left alone.
    #[error("listening on {}: it exists and is no socket", path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// Any other failure of the server.
    #[error("listening on {}", path.display())]
    Bind { path: PathBuf, source: io::Error },
    /// Nobody listens.
    #[error("connecting to {}: is the agent running, and may you use its socket?", path.display())]
    Connect { path: PathBuf, source: io::Error },
    /// The exchange broke off.
    #[error("calling {}", path.display())]
    Call { path: PathBuf, source: io::Error },
    /// The agent's own answer.
    #[error("{message}")]
    Refused {
        /// Says what is wrong with the request.
        message: String,
    },
}

/// Answers requests with one handler.
pub struct ControlServer<H> {
    path: PathBuf,
    handler: Arc<H>,
}

/// A control server whose socket is there. Its file goes when this is dropped.
pub struct Bound<H> {
    listener: UnixListener,
    handler: Arc<H>,
    file: SocketFile,
}

impl<H, F> ControlServer<H>
where
    H: Fn(Value) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Value, String>> + Send + 'static,
{
    /// `handler` gets each request; what it returns is sent back. It may run several times at once.
    pub fn new(path: impl Into<PathBuf>, handler: H) -> Self {
        Self { path: path.into(), handler: Arc::new(handler) }
    }

    /// Makes the socket, and its directory if need be. One that a dead process left is replaced.
    ///
    /// # Errors
    /// A live one, something that is no socket, or the system's answer.
    pub fn bind(self) -> Result<Bound<H>, ControlError> {
        let failed = |source| ControlError::Bind { path: self.path.clone(), source };
        clear(&self.path)?;
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        let socket = UnixSocket::new_stream().map_err(failed)?;
        socket.bind(&self.path).map_err(failed)?;
        let meta = fs::symlink_metadata(&self.path).map_err(failed)?;
        let file = SocketFile { path: self.path.clone(), id: (meta.dev(), meta.ino()) };
        // Before listening: until then nobody can connect, so there is no moment with a looser mode.
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let listener = socket.listen(128).map_err(failed)?;
        Ok(Bound { listener, handler: self.handler, file })
    }
}

impl<H, F> Bound<H>
where
    H: Fn(Value) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Value, String>> + Send + 'static,
{
    /// Answers until cancelled. No caller can make it fail.
    ///
    /// # Errors
    /// None so far; the form fits `Lifecycle::spawn`.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), ControlError> {
        let room = Arc::new(Semaphore::new(MAX_CALLERS));
        let mut callers = JoinSet::new();
        loop {
            let next = async {
                let permit = room.clone().acquire_owned().await;
                (permit, self.listener.accept().await)
            };
            let Some((permit, accepted)) = cancel.run_until_cancelled(next).await else { break };
            while callers.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let handler = self.handler.clone();
                    callers.spawn(async move {
                        let _ = serve(stream, handler.as_ref()).await; // broke off: the caller knows
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(path = %self.file.path.display(), %error, "Accepting on the control socket failed.");
                    cancel.run_until_cancelled(sleep(Duration::from_millis(200))).await;
                }
            }
        }
        let last = async { while callers.join_next().await.is_some() {} };
        let _ = timeout(LAST_ANSWERS, last).await; // idle callers are cut off
        Ok(())
    }
}

async fn serve<H, F>(stream: UnixStream, handler: &H) -> io::Result<()>
where
    H: Fn(Value) -> F,
    F: Future<Output = Result<Value, String>>,
{
    let mut stream = BufReader::new(stream);
    while let Some(line) = timeout(REQUEST_TIMEOUT, read_line(&mut stream)).await?? {
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => handler(request).await,
            Err(e) => Err(format!("the request is no JSON: {e}")),
        };
        let answer = answer.map_or_else(|message| json!({ "error": message }), |value| json!({ "ok": value }));
        write_line(&mut stream, &answer).await?;
    }
    Ok(())
}

/// Sends one request and waits for its answer: for ever, since a drain may take its time; the end of the agent ends it.
///
/// # Errors
/// Nobody listens, the exchange broke off, or the agent refused.
pub async fn call(path: &Path, request: &Value) -> Result<Value, ControlError> {
    let stream =
        UnixStream::connect(path).await.map_err(|source| ControlError::Connect { path: path.to_owned(), source })?;
    let failed = |source| ControlError::Call { path: path.to_owned(), source };
    let mut stream = BufReader::new(stream);
    write_line(&mut stream, request).await.map_err(failed)?;
    let line =
        read_line(&mut stream).await.map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
    let mut answer: Value = serde_json::from_slice(&line).map_err(|e| failed(e.into()))?;
    match answer.get("error").and_then(Value::as_str) {
        Some(message) => Err(ControlError::Refused { message: message.to_owned() }),
        None => answer.get_mut("ok").map(Value::take).ok_or_else(|| failed(io::ErrorKind::InvalidData.into())),
    }
}

/// `None` at the end of the stream.
async fn read_line(stream: &mut BufReader<UnixStream>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = stream.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if u64::try_from(read).is_ok_and(|n| n >= MAX_LINE) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 1 MiB"))
        }
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn write_line(stream: &mut BufReader<UnixStream>, value: &Value) -> io::Result<()> {
    let mut line = value.to_string(); // JSON text holds no raw newline
    line.push('\n');
    stream.write_all(line.as_bytes()).await?;
    stream.flush().await
}

/// Removes what a dead process left under `path`.
fn clear(path: &Path) -> Result<(), ControlError> {
    let failed = |source| ControlError::Bind { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(ControlError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match Probe::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(e)),
        Ok(_) => Err(ControlError::Live { path: path.to_owned() }),
    }
}

/// Removes the socket at the end, unless a successor's is there by now.
struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.id);
        if ours {
            let _ = fs::remove_file(&self.path); // best effort: a stale one is replaced at the next start
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::task::JoinHandle;

    use super::*;

    async fn echo(request: Value) -> Result<Value, String> {
        match request.get("drain").and_then(Value::as_str) {
            Some("nothing") => Err("no container \"nothing\"".to_owned()),
            _ => Ok(json!({ "asked": request })),
        }
    }

    fn start(path: &Path) -> (CancellationToken, JoinHandle<Result<(), ControlError>>) {
        let cancel = CancellationToken::new();
        let bound = ControlServer::new(path, echo).bind().unwrap();
        (cancel.clone(), tokio::spawn(bound.run(cancel)))
    }

    fn place() -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        (dir, path)
    }

    #[tokio::test]
    async fn a_call_is_answered_and_a_refusal_is_an_error() {
        let (_dir, path) = place();
        let (cancel, server) = start(&path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let request = json!({"drain": "a\nb"});
        assert_eq!(call(&path, &request).await.unwrap(), json!({ "asked": request }));
        let err = call(&path, &json!({"drain": "nothing"})).await.unwrap_err();
        assert_eq!(err.to_string(), "no container \"nothing\"");
        cancel.cancel();
        server.await.unwrap().unwrap();
        assert!(!path.exists());
        assert!(matches!(call(&path, &request).await, Err(ControlError::Connect { .. })));
    }

    #[tokio::test]
    async fn one_connection_carries_several_requests_and_bad_ones_harm_no_other() {
        let (_dir, path) = place();
        let (cancel, server) = start(&path);
        let mut stream = BufReader::new(UnixStream::connect(&path).await.unwrap());
        stream.write_all(b"nonsense\n1\n").await.unwrap();
        let first = String::from_utf8(read_line(&mut stream).await.unwrap().unwrap()).unwrap();
        assert!(first.starts_with(r#"{"error":"the request is no JSON: "#), "{first}");
        assert_eq!(read_line(&mut stream).await.unwrap().unwrap(), br#"{"ok":{"asked":1}}"#);
        let mut endless = UnixStream::connect(&path).await.unwrap();
        let sent = endless.write_all(&vec![b' '; 2 << 20]).await;
        let read = endless.read(&mut [0; 8]).await;
        assert!(sent.is_err() || !matches!(read, Ok(1..)), "the server hangs up on an endless line");
        assert_eq!(call(&path, &json!(2)).await.unwrap(), json!({"asked": 2}));
        drop(stream);
        cancel.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_an_error() {
        let (_dir, path) = place();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // as a killed process leaves it
        let (cancel, server) = start(&path);
        assert!(matches!(ControlServer::new(&path, echo).bind(), Err(ControlError::Live { .. })));
        assert_eq!(call(&path, &json!(1)).await.unwrap(), json!({"asked": 1}));
        cancel.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let (dir, _) = place();
        let path = dir.path().join("file");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ControlServer::new(&path, echo).bind(), Err(ControlError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
