//! Maps over HAProxy's runtime socket: shown, and replaced as a whole.

use super::command::{Command, CommandError, MAX_COMMAND};
use super::ops::{map_key, map_name};
use super::runtime::{Runtime, RuntimeError};
use super::socket::Reply;
use super::tables;

impl Runtime {
    /// The entries of a map, in HAProxy's order.
    pub async fn map_show(&mut self, map: &str) -> Result<Vec<(String, String)>, RuntimeError> {
        let map =
            map_name(map).map_err(|source| RuntimeError::Command { operation: format!("show map {map:?}"), source })?;
        self.show(["show", "map", map], tables::map_entries).await
    }

    /// Puts `entries` in the place of all that is in the map, at once: requests see the old map or the new one, never a part.
    ///
    /// # Errors
    /// [`RuntimeError`]; the map is then unchanged, unless the session [broke](super::socket::SocketError::Broken).
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
