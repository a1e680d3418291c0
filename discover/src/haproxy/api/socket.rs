//! HAProxy's runtime API over a Unix or TCP socket.
//!
//! [`RuntimeSocket`] keeps one interactive session (`prompt`): each reply ends with the prompt `\n> `, so replies and commands are matched
//! one to one, and many commands can be on the way at once. [`one_shot`] opens a connection for one command; the master CLI is used that way.
//!
//! **The trap of the session**: it belongs to the worker that accepted it. After a reload it stays with the *old* worker, which goes on
//! answering "done" while nothing changes in the new one, and which cannot end while the session is open. Call
//! [`RuntimeSocket::reopen`] after each reload.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_util::either::Either;

use super::command::Command;
use super::endpoint::Stream;
pub use super::endpoint::{Endpoint, EndpointError};

/// What ends each reply of an interactive session.
const PROMPT: &[u8] = b"\n> ";
/// Commands written before their replies are read, in bytes. HAProxy stops reading while we do not take its answers; a chunk of this size
/// fits into the kernel's buffers, so writing it cannot block for ever.
const CHUNK: usize = 8192;
/// The answer to what the socket's level does not allow.
///
/// Source: HAProxy's src/cli.c, `cli_has_level`.
pub const DENIED: &str = "Permission denied";
/// No reply is longer: 64 MiB is some 400,000 servers' state.
const MAX_REPLY: usize = 64 << 20;
/// HAProxy closes an idle session after `stats timeout` (10 s unless configured); ours asks for a day, in seconds.
const IDLE_SECONDS: &str = "86400";

/// How long to wait at most; nothing here waits without one of these.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For the connection and HAProxy's first prompt.
    pub connect: Duration,
    /// For each reply.
    pub reply: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), reply: Duration::from_secs(5) }
    }
}

/// What HAProxy said to one command, without the end mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply(String);

impl Reply {
    /// The text without the white space around it.
    pub fn text(&self) -> &str {
        self.0.trim()
    }

    /// Whether HAProxy said nothing, which for most commands means that it did what it was told.
    pub fn is_empty(&self) -> bool {
        self.text().is_empty()
    }

    #[cfg(test)]
    pub(super) fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Why a command has no reply.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Nobody listens, or not in time; nothing was sent.
    #[error("connecting to HAProxy's socket {endpoint}")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// Why; `TimedOut` after the deadline.
        source: io::Error,
    },
    /// The session ended or failed before the reply was complete: whether the command was executed is unknown.
    #[error("the session with HAProxy on {endpoint} broke at {command:?}; whether it was done is unknown")]
    Broken {
        /// Where.
        endpoint: Endpoint,
        /// The command.
        command: String,
        /// Why; `UnexpectedEof` when HAProxy closed the session, `TimedOut` after the deadline.
        source: io::Error,
    },
    /// An earlier command of the same batch broke the session; this one was never sent.
    #[error("{command:?} was not sent to {endpoint}: an earlier command broke the session")]
    NotSent {
        /// Where.
        endpoint: Endpoint,
        /// The command.
        command: String,
    },
}

/// An interactive session with one worker, opened when it is first needed.
#[derive(Debug)]
pub struct RuntimeSocket {
    endpoint: Endpoint,
    deadlines: Deadlines,
    session: Option<Session>,
    /// The master CLI, asked where no session can be opened.
    master: Option<Endpoint>,
    /// It was said that the master is asked.
    said: bool,
    /// The same, because the socket allows less.
    denied: bool,
}

#[derive(Debug)]
struct Session {
    stream: Stream,
    /// Read but not yet part of a reply.
    buffer: Vec<u8>,
}

impl RuntimeSocket {
    /// A socket at `endpoint`; does no I/O.
    pub fn new(endpoint: Endpoint, deadlines: Deadlines) -> Self {
        Self { endpoint, deadlines, session: None, master: None, said: false, denied: false }
    }

    /// While no session can be opened (the socket's file was removed, and no reload brings it back), each command goes to the current worker
    /// through this master CLI, over a connection of its own.
    #[must_use]
    pub fn with_master(mut self, master: Endpoint) -> Self {
        self.master = Some(master);
        self
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Drops the session, so that the next command goes to the worker that listens now. To be called after every reload.
    pub fn reopen(&mut self) {
        self.session = None;
    }

    /// Whether a session is open and HAProxy has not ended it.
    pub fn is_open(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_quiet)
    }

    /// Sends one command and reads its reply.
    ///
    /// # Errors
    /// [`SocketError`]; the session is then dropped, and the next command opens another.
    pub async fn run(&mut self, command: &Command) -> Result<Reply, SocketError> {
        let replies = self.run_all(std::slice::from_ref(command)).await;
        replies.into_iter().next().unwrap_or_else(|| Err(self.not_sent(command)))
    }

    /// Sends many commands and reads their replies, in order: exactly one result for each command.
    ///
    /// They are pipelined in chunks. When the session breaks, the commands of that chunk without a reply are [`SocketError::Broken`] and the later
    /// ones [`SocketError::NotSent`]; nothing is sent twice.
    ///
    /// What the socket's level does not allow, the master is asked for.
    pub async fn run_all(&mut self, commands: &[Command]) -> Vec<Result<Reply, SocketError>> {
        let mut results = self.run_here(commands).await;
        let Some(master) = self.master.clone() else { return results };
        for (command, result) in commands.iter().zip(&mut results) {
            if !result.as_ref().is_ok_and(|reply| reply.text() == DENIED) {
                continue;
            }
            match one_shot(&master, Prefix::CurrentWorker, command, self.deadlines).await {
                Err(SocketError::Connect { .. }) => return results,
                reply => *result = reply,
            }
            if !std::mem::replace(&mut self.denied, true) {
                let socket = &self.endpoint;
                tracing::warn!(%socket, %master, "HAProxy's runtime socket lacks `level admin` and allows no changes; going through its master.");
            }
        }
        results
    }

    async fn run_here(&mut self, commands: &[Command]) -> Vec<Result<Reply, SocketError>> {
        let mut results = Vec::with_capacity(commands.len());
        let mut rest = commands;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(chunk_len(rest));
            rest = later;
            if let Err(error) = self.run_chunk(now, &mut results).await {
                let error = match self.master.clone().filter(|_| matches!(error, SocketError::Connect { .. })) {
                    None => error,
                    Some(master) => match self.run_through(&master, &commands[results.len()..], &error).await {
                        None => error,
                        Some(replies) => {
                            results.extend(replies);
                            return results;
                        }
                    },
                };
                results.push(Err(error));
                let sent_but_unknown = commands.len() - later.len();
                while results.len() < sent_but_unknown {
                    let why = io::Error::from(io::ErrorKind::UnexpectedEof);
                    let lost = &commands[results.len()];
                    let never_written =
                        matches!(results.last(), Some(Err(SocketError::Connect { .. } | SocketError::NotSent { .. })));
                    results.push(Err(if never_written { self.not_sent(lost) } else { self.broken(lost, why) }));
                }
                results.extend(later.iter().map(|c| Err(self.not_sent(c))));
                break;
            }
        }
        results
    }

    /// `None` when the master does not answer either.
    async fn run_through(
        &mut self,
        master: &Endpoint,
        commands: &[Command],
        error: &SocketError,
    ) -> Option<Vec<Result<Reply, SocketError>>> {
        let mut results = Vec::with_capacity(commands.len());
        for command in commands {
            if results.last().is_some_and(Result::is_err) {
                results.push(Err(self.not_sent(command)));
                continue;
            }
            match one_shot(master, Prefix::CurrentWorker, command, self.deadlines).await {
                Err(SocketError::Connect { .. }) if results.is_empty() => return None,
                reply => results.push(reply),
            }
        }
        if results.iter().any(Result::is_ok) && !std::mem::replace(&mut self.said, true) {
            tracing::warn!(%error, %master, "No session with HAProxy's runtime socket; going through its master.");
        }
        Some(results)
    }

    async fn run_chunk(
        &mut self,
        chunk: &[Command],
        out: &mut Vec<Result<Reply, SocketError>>,
    ) -> Result<(), SocketError> {
        let mut session = self.take_or_open().await?;
        let bytes: String = chunk.iter().map(|c| c.wire("")).collect();
        let mut deadline = Instant::now() + self.deadlines.reply;
        if let Err(e) = within(deadline, session.stream.write_all(bytes.as_bytes())).await {
            return Err(self.broken(&chunk[0], e));
        }
        for command in chunk {
            let raw = within(deadline, session.read_reply()).await.map_err(|e| self.broken(command, e))?;
            out.push(Ok(Reply(without_payload_prompts(command, raw))));
            deadline = Instant::now() + self.deadlines.reply;
        }
        self.said = false;
        self.session = Some(session); // only a session whose every reply was read is used again
        Ok(())
    }

    /// The session, unless HAProxy closed it while it was idle; else a new one.
    async fn take_or_open(&mut self) -> Result<Session, SocketError> {
        if let Some(session) = self.session.take().filter(Session::is_quiet) {
            return Ok(session);
        }
        let failed = |source| SocketError::Connect { endpoint: self.endpoint.clone(), source };
        let deadline = Instant::now() + self.deadlines.connect;
        let stream = within(deadline, self.endpoint.connect()).await.map_err(failed)?;
        let mut session = Session { stream, buffer: Vec::new() };
        let greeting = async {
            session.stream.write_all(format!("prompt\nset timeout cli {IDLE_SECONDS}\n").as_bytes()).await?;
            session.read_reply().await?;
            session.read_reply().await // a refusal only means that the session is closed sooner
        };
        within(deadline, greeting).await.map_err(failed)?;
        Ok(session)
    }

    fn broken(&self, command: &Command, source: io::Error) -> SocketError {
        SocketError::Broken { endpoint: self.endpoint.clone(), command: command.to_string(), source }
    }

    pub(super) fn not_sent(&self, command: &Command) -> SocketError {
        SocketError::NotSent { endpoint: self.endpoint.clone(), command: command.to_string() }
    }
}

impl Session {
    /// Nothing is waiting to be read: neither an end of file nor words that nobody asked for.
    fn is_quiet(&self) -> bool {
        let mut probe = [0_u8; 1];
        let read = match &self.stream {
            Either::Left(unix) => unix.try_read(&mut probe),
            Either::Right(tcp) => tcp.try_read(&mut probe),
        };
        self.buffer.is_empty() && matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads up to the next prompt. Not cancel-safe: a session whose reading was cut off is dropped.
    async fn read_reply(&mut self) -> io::Result<String> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.buffer[searched..], PROMPT).map(|at| at + searched) {
                let rest = self.buffer.split_off(at + PROMPT.len());
                let mut reply = std::mem::replace(&mut self.buffer, rest);
                reply.truncate(at);
                return Ok(String::from_utf8_lossy(&reply).into_owned());
            }
            searched = self.buffer.len().saturating_sub(PROMPT.len() - 1);
            if self.buffer.len() > MAX_REPLY {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply above 64 MiB"));
            }
            self.buffer.reserve(16 * 1024);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Sends one command over a connection of its own and reads until HAProxy closes it. `prefix` is put before it: `@1 ` on a master socket.
///
/// Our side is half-closed after the command: from 3.0 on the master keeps the connection open until then.
pub async fn one_shot(
    endpoint: &Endpoint,
    prefix: Prefix,
    command: &Command,
    deadlines: Deadlines,
) -> Result<Reply, SocketError> {
    let start = Instant::now();
    let connecting = within(start + deadlines.connect, endpoint.connect()).await;
    let mut stream = connecting.map_err(|source| SocketError::Connect { endpoint: endpoint.clone(), source })?;
    let talk = async {
        stream.write_all(command.wire(&prefix.text()).as_bytes()).await?;
        stream.shutdown().await?;
        let mut all = Vec::new();
        (&mut stream).take(MAX_REPLY as u64).read_to_end(&mut all).await?;
        Ok(String::from_utf8_lossy(&all).into_owned())
    };
    let text = within(Instant::now() + deadlines.reply, talk).await;
    text.map(Reply).map_err(|source| SocketError::Broken {
        endpoint: endpoint.clone(),
        command: command.to_string(),
        source,
    })
}

/// Which process a one-shot command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// The listener.
    None,
    /// The current worker, through the master (`@1`).
    CurrentWorker,
    /// The worker with this process id, through the master (`@!PID`): also one that is being replaced.
    Worker(i32),
}

impl Prefix {
    fn text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::CurrentWorker => "@1 ".to_owned(),
            Self::Worker(pid) => format!("@!{pid} "),
        }
    }
}

async fn within<T>(deadline: Instant, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout_at(deadline, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// How many of the first commands fit a chunk; at least one.
fn chunk_len(commands: &[Command]) -> usize {
    let mut bytes = 0;
    let fit = commands.iter().take_while(|c| {
        bytes += c.wire("").len();
        bytes <= CHUNK
    });
    fit.count().max(1)
}

/// HAProxy prints `+ ` for each payload line it takes; that is no part of its answer.
fn without_payload_prompts(command: &Command, reply: String) -> String {
    if !command.has_payload() {
        return reply;
    }
    let mut rest = reply.as_str();
    while let Some(next) = rest.strip_prefix("+ ") {
        rest = next;
    }
    rest.strip_prefix('+').filter(|r| r.is_empty()).unwrap_or(rest).to_owned()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
