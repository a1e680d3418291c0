//! Redis: PING is answered with PONG.
//!
//! Source: the RESP protocol; a server that wants a password answers `-NOAUTH …`, a loading one `-LOADING …`.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::CheckError;
use super::error::excerpt;
use super::tcp::connect;
use model::desired::Secret;

/// No line that is waited for is longer.
const LINE: usize = 512;

/// Says PING, after AUTH where there is a password. Without one, NOAUTH passes too: somebody answers, and not for us.
#[derive(Debug, Clone)]
pub struct RedisProbe {
    address: SocketAddr,
    password: Option<Secret>,
}

impl RedisProbe {
    /// Asks at `address`.
    pub fn new(address: SocketAddr, password: Option<&Secret>) -> Self {
        Self { address, password: password.cloned() }
    }

    /// Tries once.
    ///
    /// # Errors
    /// Why it did not pass.
    pub async fn attempt(&self) -> Result<(), CheckError> {
        let mut stream = connect(self.address).await?;
        if let Some(Secret(password)) = &self.password {
            let auth = format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{password}\r\n", password.len());
            let answer = self.ask(&mut stream, &auth).await?;
            if answer != b"+OK" {
                return Err(CheckError::Unexpected(format!("AUTH was answered {:?}", excerpt(&answer))));
            }
        }
        let answer = self.ask(&mut stream, "*1\r\n$4\r\nPING\r\n").await?;
        match answer.as_slice() {
            b"+PONG" => Ok(()),
            refused if self.password.is_none() && refused.starts_with(b"-NOAUTH") => Ok(()),
            other => Err(CheckError::Unexpected(format!("PING was answered {:?}", excerpt(other)))),
        }
    }

    /// Sends, and reads a line.
    async fn ask(&self, stream: &mut TcpStream, command: &str) -> Result<Vec<u8>, CheckError> {
        stream.write_all(command.as_bytes()).await.map_err(CheckError::talk(self.address))?;
        let mut line = Vec::new();
        while line.len() < LINE && !line.ends_with(b"\r\n") {
            // Byte by byte: an answer has seven of them.
            line.push(stream.read_u8().await.map_err(CheckError::talk(self.address))?);
        }
        line.truncate(line.len().saturating_sub(2));
        Ok(line)
    }
}
