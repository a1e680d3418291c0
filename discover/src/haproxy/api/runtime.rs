//! Typed operations over HAProxy's runtime socket.

use std::collections::BTreeSet;

use super::command::{Command, CommandError, MAX_COMMAND};
use super::ops::{Op, Refusal, RefusalKind, SectionName, ServerRef, map_key, map_name};
use super::socket::{Endpoint, Reply, RuntimeSocket, SocketError};
use super::stats::{StatRow, stat};
use super::tables::{self, Info, ServerState, TableError};

/// Why an operation did not happen, or is not known to have happened.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// It cannot be sent at all; only a reload can do it.
    #[error("making the command of {operation}")]
    Command {
        /// The operation.
        operation: String,
        /// Why.
        source: CommandError,
    },
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// HAProxy said no, or something that is not known to mean yes.
    #[error("HAProxy refused {operation:?}: {:?}", refusal.text)]
    Refused {
        /// The command.
        operation: String,
        /// Its words, and what they mean.
        refusal: Refusal,
    },
    /// HAProxy answered, but not with what this command shows.
    #[error("reading the answer to {operation:?}")]
    Unreadable {
        /// The command.
        operation: String,
        /// Where it is wrong.
        source: TableError,
    },
}

impl RuntimeError {
    /// What HAProxy's refusal means, if it is one.
    pub fn refusal(&self) -> Option<RefusalKind> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.kind),
            _ => None,
        }
    }

    /// Whether HAProxy may have done it all the same: read its state before going on.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Socket(e) if e.outcome_unknown())
    }

    fn refused(operation: &impl ToString, reply: &Reply) -> Self {
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
    /// It was not there.
    NotFound,
    /// HAProxy will not, for a reason that waiting does not change.
    Refused(Refusal),
}

/// The runtime API of one HAProxy.
#[derive(Debug)]
pub struct Runtime {
    socket: RuntimeSocket,
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
    ///
    /// # Errors
    /// [`RuntimeError`].
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
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub async fn servers_state(&mut self, section: Option<&str>) -> Result<Vec<ServerState>, RuntimeError> {
        self.show(["show", "servers", "state"].into_iter().chain(section), tables::servers_state).await
    }

    /// `show info`.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub async fn info(&mut self) -> Result<Info, RuntimeError> {
        self.show(["show", "info"], tables::info).await
    }

    /// The sections that can hold servers, as a whole: few bytes even where there are many servers.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub async fn sections(&mut self) -> Result<Vec<StatRow>, RuntimeError> {
        self.show(["show", "stat", "-1", "2", "-1"], stat).await
    }

    /// The same, and each server.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub async fn servers(&mut self) -> Result<Vec<StatRow>, RuntimeError> {
        self.show(["show", "stat", "-1", "6", "-1"], stat).await
    }

    /// The sections that can hold servers and take traffic: those that were published (3.4 and later).
    ///
    /// # Errors
    /// [`RuntimeError`].
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

    /// The entries of a map, in HAProxy's order.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub async fn map_show(&mut self, map: &str) -> Result<Vec<(String, String)>, RuntimeError> {
        let map =
            map_name(map).map_err(|source| RuntimeError::Command { operation: format!("show map {map:?}"), source })?;
        self.show(["show", "map", map], tables::map_entries).await
    }

    /// Puts `entries` in the place of all that is in the map, at once: requests see the old map or the new one, never a part.
    ///
    /// # Errors
    /// [`RuntimeError`]; the map is then unchanged, unless [`outcome_unknown`](RuntimeError::outcome_unknown).
    pub async fn map_swap(&mut self, map: &str, entries: &[(String, String)]) -> Result<(), RuntimeError> {
        let cannot = |source| RuntimeError::Command { operation: format!("replacing the map {map:?}"), source };
        // Everything is checked before the first word is sent.
        map_name(map).map_err(cannot)?;
        let batches = payloads(map, entries).map_err(cannot)?;
        let (command, reply) = self.ask(["prepare", "map", map]).await?;
        let version: u32 = match reply.text().strip_prefix("New version created: ").map(str::parse) {
            Some(Ok(version)) => version,
            _ => return Err(RuntimeError::refused(&command, &reply)),
        };
        let at = format!("@{version}");
        let filled = self.map_fill(&at, map, &batches).await;
        if filled.is_err() && self.ask(["clear", "map", &at, map]).await.is_err() {
            // Only memory is lost: a version that is never committed is seen by nobody.
            tracing::warn!(map, version, "Could not clear an unfinished map version.");
        }
        filled
    }

    async fn map_fill(&mut self, at: &str, map: &str, batches: &[Vec<[&str; 2]>]) -> Result<(), RuntimeError> {
        let cannot = |source| RuntimeError::Command { operation: format!("replacing the map {map:?}"), source };
        let add = |batch: &Vec<[&str; 2]>| Command::new(["add", "map", at, map])?.with_payload(batch.iter());
        let mut commands = batches.iter().map(add).collect::<Result<Vec<_>, _>>().map_err(cannot)?;
        let commit = Command::new(["commit", "map", at, map]).map_err(cannot)?;
        let replies = self.socket.run_all(&commands).await;
        commands.push(commit.clone());
        for (command, reply) in commands.iter().zip(replies) {
            expect_silence(command, &reply?)?;
        }
        let reply = self.socket.run(&commit).await?;
        expect_silence(&commit, &reply)
    }

    async fn ask<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) -> Result<(Command, Reply), RuntimeError> {
        let command = Command::new(words)
            .map_err(|source| RuntimeError::Command { operation: "a question".to_owned(), source })?;
        let reply = self.socket.run(&command).await?;
        Ok((command, reply))
    }

    /// Sends a command that only shows something, and has the answer read.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub async fn show<'a, T>(
        &mut self,
        words: impl IntoIterator<Item = &'a str>,
        read: fn(&str) -> Result<T, TableError>,
    ) -> Result<T, RuntimeError> {
        let (command, reply) = self.ask(words).await?;
        read(reply.text()).map_err(|source| RuntimeError::Unreadable { operation: command.to_string(), source })
    }
}

fn expect_silence(command: &Command, reply: &Reply) -> Result<(), RuntimeError> {
    if reply.is_empty() { Ok(()) } else { Err(RuntimeError::refused(command, reply)) }
}

/// Cuts the entries into payloads that fit a command.
fn payloads<'a>(map: &str, entries: &'a [(String, String)]) -> Result<Vec<Vec<[&'a str; 2]>>, CommandError> {
    // "add map @4294967295 MAP <<", two newlines and some air.
    let room = MAX_COMMAND.saturating_sub(map.len() + 64);
    let (mut batches, mut used): (Vec<Vec<[&str; 2]>>, usize) = (Vec::new(), usize::MAX);
    for (key, value) in entries {
        let line = [map_key(key)?, value.as_str()];
        // Checked alone first, so that a bad entry is found before anything is sent.
        Command::new(["add", "map", map])?.with_payload([line])?;
        let bytes = key.len() + value.len() + 2;
        match batches.last_mut() {
            Some(batch) if used + bytes <= room => {
                batch.push(line);
                used += bytes;
            }
            _ => {
                batches.push(vec![line]);
                used = bytes;
            }
        }
    }
    Ok(batches)
}

#[cfg(test)]
#[path = "runtime_tests.rs"]
mod tests;
