//! A child program that stands in for its parent: signals go through to it, and its end is the parent's.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

const PASSED: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// The signals that come for the program. From the moment this exists they no longer end the parent.
pub struct Signals {
    inbox: mpsc::Receiver<Signal>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system's answer.
    pub fn listen() -> io::Result<Self> {
        let (out, inbox) = mpsc::channel(8);
        let mut tasks = Vec::new();
        for kind in PASSED {
            let (mut stream, out) = (signal(SignalKind::from_raw(kind as i32))?, out.clone());
            tasks.push(AbortOnDropHandle::new(tokio::spawn(async move {
                while stream.recv().await.is_some() && out.send(kind).await.is_ok() {}
            })));
        }
        Ok(Self { inbox, _tasks: tasks })
    }

    /// The next one. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        match self.inbox.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

/// Gives a signal to the program.
pub fn pass(child: &Child, signal: Signal) {
    let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) else { return };
    let _ = kill(Pid::from_raw(pid), signal); // it has ended, and that is seen next
}

/// Whether a signal asks a program to end.
pub fn is_end(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT)
}

/// The status with which to end in the program's place: its own, or 128 and the signal that ended it, as shells have it.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
