//! Typed operations over HAProxy's runtime socket.

use std::collections::BTreeSet;

use super::command::{Command, CommandError};
use super::ops::{Op, Refusal, RefusalKind, SectionName, ServerRef};
use super::socket::{DENIED, Endpoint, Reply, RuntimeSocket, SocketError};
use super::stats::{StatRow, stat};
use super::tables::{self, Info, ServerState, TableError};

/// Why an operation did not happen, or is not known to have happened.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// It cannot be sent at all; only a reload can do it.
    #[error("making the command of {operation}")]
    Command { operation: String, source: CommandError },
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// HAProxy said no, or something that is not known to mean yes.
    #[error("HAProxy refused {operation:?}: {:?}", refusal.text)]
    Refused {
        operation: String,
        /// Its words, and what they mean.
        refusal: Refusal,
    },
    /// HAProxy answered, but not with what this command shows.
    #[error("reading the answer to {operation:?}")]
    Unreadable { operation: String, source: TableError },
}

impl RuntimeError {
    /// What HAProxy's refusal means, if it is one.
    pub fn refusal(&self) -> Option<RefusalKind> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.kind),
            _ => None,
        }
    }

    /// Whether the socket's level does not allow it.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { refusal, .. } if refusal.text == DENIED)
    }

    pub(super) fn refused(operation: &impl ToString, reply: &Reply) -> Self {
        let refusal = Refusal { kind: RefusalKind::Other, text: reply.text().to_owned() };
        Self::Refused { operation: operation.to_string(), refusal }
    }
}

/// What became of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DelOutcome {
    /// It is gone.
    Deleted,
    /// It still has streams or connections: try again later.
    Busy,
    NotFound,
    /// HAProxy will not, for a reason that waiting does not change.
    Refused(Refusal),
}

/// The runtime API of one HAProxy.
#[derive(Debug)]
pub struct Runtime {
    pub(super) socket: RuntimeSocket,
}

impl Runtime {
    /// Over this socket; does no I/O.
    pub fn new(socket: RuntimeSocket) -> Self {
        Self { socket }
    }

    /// Drops the session: to be called after every reload, see [`super::socket`].
    pub fn reopen(&mut self) {
        self.socket.reopen();
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        self.socket.endpoint()
    }

    /// Whether the session is open: false before the first command, and once its worker has ended.
    pub fn is_open(&self) -> bool {
        self.socket.is_open()
    }

    /// Does many operations, pipelined; exactly one result for each, in order. An operation that fails does not keep the later ones back,
    /// but a session that breaks does.
    pub async fn apply(&mut self, ops: &[Op]) -> Vec<Result<(), RuntimeError>> {
        let built: Vec<Result<Command, CommandError>> = ops.iter().map(Op::command).collect();
        let commands: Vec<Command> = built.iter().filter_map(|c| c.as_ref().ok().cloned()).collect();
        let mut replies = self.socket.run_all(&commands).await.into_iter();
        let judged = ops.iter().zip(built).map(|(op, built)| {
            let command = built.map_err(|source| RuntimeError::Command { operation: format!("{op:?}"), source })?;
            // `run_all` gives one result for each command, so the iterator cannot end early.
            let reply = replies.next().unwrap_or_else(|| Err(self.socket.not_sent(&command)))?;
            op.judge(&reply).map_err(|refusal| RuntimeError::Refused { operation: command.to_string(), refusal })
        });
        judged.collect()
    }

    /// Does one operation.
    pub async fn run(&mut self, op: Op) -> Result<(), RuntimeError> {
        self.apply(&[op]).await.into_iter().collect()
    }

    /// Deletes a server.
    ///
    /// # Errors
    /// [`RuntimeError`] when the socket failed; HAProxy's own answers are all [`DelOutcome`]s.
    pub async fn del_server(&mut self, server: ServerRef) -> Result<DelOutcome, RuntimeError> {
        match self.run(Op::DelServer(server)).await {
            Ok(()) => Ok(DelOutcome::Deleted),
            Err(RuntimeError::Refused { refusal, .. }) => Ok(match refusal.kind {
                RefusalKind::Busy => DelOutcome::Busy,
                RefusalKind::NotFound => DelOutcome::NotFound,
                _ => DelOutcome::Refused(refusal),
            }),
            Err(other) => Err(other),
        }
    }

    /// `show servers state`, of all sections or one.
    pub async fn servers_state(&mut self, section: Option<&str>) -> Result<Vec<ServerState>, RuntimeError> {
        self.show(["show", "servers", "state"].into_iter().chain(section), tables::servers_state).await
    }

    /// `show info`.
    pub async fn info(&mut self) -> Result<Info, RuntimeError> {
        self.show(["show", "info"], tables::info).await
    }

    /// The sections that can hold servers, as a whole: few bytes even where there are many servers.
    pub async fn sections(&mut self) -> Result<Vec<StatRow>, RuntimeError> {
        self.show(["show", "stat", "-1", "2", "-1"], stat).await
    }

    /// The same, and each server.
    pub async fn servers(&mut self) -> Result<Vec<StatRow>, RuntimeError> {
        self.show(["show", "stat", "-1", "6", "-1"], stat).await
    }

    /// The sections that can hold servers and take traffic: those that were published (3.4 and later).
    pub async fn published(&mut self) -> Result<BTreeSet<String>, RuntimeError> {
        let rows = self.sections().await?;
        Ok(rows.into_iter().filter(|row| !row.status.contains("(UNPUB)")).map(|row| row.section).collect())
    }

    /// Deletes a section without servers (3.4 and later). One that stays takes traffic as before.
    ///
    /// # Errors
    /// [`RuntimeError`] when the socket failed; HAProxy's own answers are all [`DelOutcome`]s.
    pub async fn del_section(&mut self, section: &SectionName) -> Result<DelOutcome, RuntimeError> {
        let (unpublish, del) = (Op::UnpublishSection(section.clone()), Op::DelSection(section.clone()));
        let refusal = match self.apply(&[unpublish, del]).await.pop() {
            None | Some(Ok(())) => return Ok(DelOutcome::Deleted),
            Some(Err(RuntimeError::Refused { refusal, .. })) => refusal,
            Some(Err(other)) => return Err(other),
        };
        if refusal.kind == RefusalKind::NotFound {
            return Ok(DelOutcome::NotFound);
        }
        self.run(Op::PublishSection(section.clone())).await?;
        Ok(if refusal.kind == RefusalKind::Busy { DelOutcome::Busy } else { DelOutcome::Refused(refusal) })
    }

    pub(super) async fn ask<'a>(
        &mut self,
        words: impl IntoIterator<Item = &'a str>,
    ) -> Result<(Command, Reply), RuntimeError> {
        let command = Command::new(words)
            .map_err(|source| RuntimeError::Command { operation: "a question".to_owned(), source })?;
        let reply = self.socket.run(&command).await?;
        Ok((command, reply))
    }

    /// Sends a command that only shows something, and has the answer read.
    pub async fn show<'a, T>(
        &mut self,
        words: impl IntoIterator<Item = &'a str>,
        read: fn(&str) -> Result<T, TableError>,
    ) -> Result<T, RuntimeError> {
        let (command, reply) = self.ask(words).await?;
        read(reply.text()).map_err(|source| RuntimeError::Unreadable { operation: command.to_string(), source })
    }
}

#[cfg(test)]
#[path = "runtime_tests.rs"]
mod tests;
