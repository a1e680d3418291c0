//! A runtime socket with bad habits, in front of a real one.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// What the socket does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Passes everything on.
    Forward,
    /// Passes the greeting on and the beginning of a reply, then closes.
    CloseMidReply,
    /// Passes everything on, but sections cannot be made.
    NoSections,
    /// Takes connections and closes them.
    Close,
    /// Its file is not there.
    Missing,
    /// Its file is there and nobody listens.
    Stale,
}

/// The socket; connections that are open when its habit changes are cut.
pub struct SocketProxy {
    path: PathBuf,
    to: PathBuf,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl SocketProxy {
    pub fn start(path: &Path, to: &Path) -> Self {
        let proxy = Self { path: path.to_owned(), to: to.to_owned(), tasks: Mutex::default() };
        proxy.be(Habit::Forward);
        proxy
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn be(&self, habit: Habit) {
        let mut tasks = self.tasks.lock().unwrap();
        for task in tasks.drain(..) {
            task.abort();
        }
        let _ = std::fs::remove_file(&self.path);
        match habit {
            Habit::Missing => {}
            Habit::Stale => drop(std::os::unix::net::UnixListener::bind(&self.path).unwrap()),
            _ => {
                let (listener, to) = (UnixListener::bind(&self.path).unwrap(), self.to.clone());
                tasks.push(tokio::spawn(serve(listener, to, habit)));
            }
        }
    }
}

impl Drop for SocketProxy {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
    }
}

async fn serve(listener: UnixListener, to: PathBuf, habit: Habit) {
    // Dropped with this task, and its connections with it.
    let mut sessions = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if habit == Habit::Close {
            continue;
        }
        let to = to.clone();
        sessions.spawn(async move {
            let Ok(server) = UnixStream::connect(to).await else { return };
            let (mut client_read, mut client_write) = client.into_split();
            let (mut server_read, mut server_write) = server.into_split();
            let up = async {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = client_read.read(&mut buffer).await {
                    if habit == Habit::NoSections {
                        spoil(&mut buffer[..n]);
                    }
                    if server_write.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
            };
            let down = async {
                let mut buffer = [0; 4096];
                // The greeting's two prompts pass, so that a command is sent at all.
                let mut room = if habit == Habit::CloseMidReply { 16 } else { usize::MAX };
                while let Ok(n) = server_read.read(&mut buffer).await {
                    let n = n.min(room);
                    room -= n;
                    if client_write.write_all(&buffer[..n]).await.is_err() || n == 0 || room == 0 {
                        break;
                    }
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            };
            tokio::select! {
                () = up => {}
                () = down => {}
            }
        });
    }
}

/// Makes `add backend` a command that HAProxy does not know.
fn spoil(bytes: &mut [u8]) {
    let word = b"add backend";
    while let Some(at) = bytes.windows(word.len()).position(|w| w == word) {
        bytes[at] = b'x';
    }
}
