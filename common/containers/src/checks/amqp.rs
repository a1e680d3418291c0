//! RabbitMQ: a server of AMQP 0-9-1 greets and, where a user is given, opens a connection to a virtual host.
//!
//! Source: AMQP 0-9-1 specification, sections 1.4 (connection), 2.2 (handshake) and 4.2 (frames).

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::CheckError;
use super::error::excerpt;
use super::tcp::connect;
use model::desired::Secret;

/// What the smallest frame limit allows; no frame of the handshake is longer.
const LONGEST: usize = 8192;
const FRAME_END: u8 = 0xce;
/// Class 10, `connection`, and its methods.
const START: u16 = 10;
const START_OK: u16 = 11;
const TUNE: u16 = 30;
const TUNE_OK: u16 = 31;
const OPEN: u16 = 40;
const OPEN_OK: u16 = 41;
const CLOSE: u16 = 50;

/// Shakes hands.
#[derive(Debug, Clone)]
pub struct AmqpProbe {
    address: SocketAddr,
    login: Option<(String, Secret)>,
    vhost: String,
}

impl AmqpProbe {
    /// Asks at `address`; logs in as `user`, if one is given, and opens `vhost`.
    pub fn new(address: SocketAddr, user: Option<&str>, password: Option<&Secret>, vhost: &str) -> Self {
        let password = || password.cloned().unwrap_or_else(|| Secret(String::new()));
        Self { address, login: user.map(|user| (user.to_owned(), password())), vhost: vhost.to_owned() }
    }

    /// Tries once.
    ///
    /// # Errors
    /// Why it did not pass.
    pub async fn attempt(&self) -> Result<(), CheckError> {
        let mut stream = connect(self.address).await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await.map_err(CheckError::talk(self.address))?;
        self.expect(&mut stream, START).await?;
        let Some((user, Secret(password))) = &self.login else { return Ok(()) };

        // With this capability the server answers a refused login; without it, it only closes the connection.
        let mut capability = Vec::new();
        short(&mut capability, "authentication_failure_close");
        capability.extend_from_slice(b"t\x01");
        let mut properties = Vec::new();
        short(&mut properties, "capabilities");
        properties.push(b'F');
        long(&mut properties, &capability);
        let mut start_ok = Vec::new();
        long(&mut start_ok, &properties);
        short(&mut start_ok, "PLAIN");
        long(&mut start_ok, format!("\0{user}\0{password}").as_bytes());
        short(&mut start_ok, "en_US");
        self.send(&mut stream, START_OK, &start_ok).await?;

        let tune = self.expect(&mut stream, TUNE).await?;
        // The server's own limits (channels, frame size), and no heartbeat.
        let mut tune_ok = tune.get(..6).unwrap_or_default().to_vec();
        tune_ok.extend_from_slice(&[0, 0]);
        self.send(&mut stream, TUNE_OK, &tune_ok).await?;
        let mut open = Vec::new();
        short(&mut open, &self.vhost);
        open.extend_from_slice(&[0, 0]);
        self.send(&mut stream, OPEN, &open).await?;
        self.expect(&mut stream, OPEN_OK).await?;
        let mut close = 200_u16.to_be_bytes().to_vec();
        short(&mut close, "checked");
        close.extend_from_slice(&[0; 4]);
        // Else the server logs an abrupt end; whether it hears this does not matter.
        let _ = self.send(&mut stream, CLOSE, &close).await;
        Ok(())
    }

    async fn send(&self, stream: &mut TcpStream, method: u16, arguments: &[u8]) -> Result<(), CheckError> {
        let mut frame = vec![1, 0, 0]; // a method frame, on channel 0
        frame.extend_from_slice(&u32::try_from(arguments.len() + 4).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend_from_slice(&[0, 10]);
        frame.extend_from_slice(&method.to_be_bytes());
        frame.extend_from_slice(arguments);
        frame.push(FRAME_END);
        stream.write_all(&frame).await.map_err(CheckError::talk(self.address))
    }

    /// Reads one frame and returns the arguments of its method, which must be `wanted`.
    async fn expect(&self, stream: &mut TcpStream, wanted: u16) -> Result<Vec<u8>, CheckError> {
        let talk = || CheckError::talk(self.address);
        let mut head = [0; 7];
        stream.read_exact(&mut head).await.map_err(talk())?;
        let [kind, _, _, size @ ..] = head;
        let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
        if kind != 1 || !(4..=LONGEST).contains(&size) {
            // A server that speaks another version answers with its own protocol header, "AMQP" first.
            return Err(CheckError::Unexpected(format!("no AMQP 0-9-1 server: it answered {:?}", excerpt(&head))));
        }
        let mut payload = vec![0; size + 1];
        stream.read_exact(&mut payload).await.map_err(talk())?;
        match payload.as_slice() {
            [0, 10, high, low, arguments @ .., FRAME_END] => match u16::from_be_bytes([*high, *low]) {
                method if method == wanted => Ok(arguments.to_vec()),
                CLOSE => {
                    let text = arguments.get(3..).unwrap_or_default();
                    let length = arguments.get(2).copied().map_or(0, usize::from).min(text.len());
                    Err(CheckError::Unexpected(format!("it closed the connection: {}", excerpt(&text[..length]))))
                }
                method => Err(CheckError::Unexpected(format!("connection method {method} came, not {wanted}"))),
            },
            _ => Err(CheckError::Unexpected("it answered with a broken frame".to_owned())),
        }
    }
}

/// A text of at most 255 bytes, with its length in front.
fn short(to: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(255)];
    to.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    to.extend_from_slice(bytes);
}

/// Bytes with their length in front.
fn long(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend_from_slice(bytes);
}
