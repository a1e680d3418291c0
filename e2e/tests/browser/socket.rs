//! A backend that speaks WebSocket and says back whatever it hears; any other request is answered with its name.

use std::net::SocketAddr;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use e2e::{Context, LabError, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

/// What a key is answered with is made of it and this. Source: RFC 6455, section 1.3.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Starts one; it ends with the test's runtime.
pub async fn echo(name: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await.during("listening on loopback")?;
    let address = listener.local_addr().during("listening on loopback")?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Err(error) = converse(stream, name).await {
                    println!("{name}: {error:?}"); // a client that went, mostly
                }
            });
        }
    });
    Ok(address)
}

async fn converse(mut stream: TcpStream, name: &str) -> Result<()> {
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.during("reading a request")? == 0 {
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        head.clear();
        let key = text.lines().filter_map(|line| line.split_once(": "));
        let key =
            key.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).map(|(_, key)| key.trim()).next();
        let Some(key) = key else {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
            stream.write_all(answer.as_bytes()).await.during("answering")?;
            continue;
        };
        let accept = BASE64.encode(sha1(&format!("{key}{MAGIC}")).await?);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.during("answering")?;
        return frames(stream).await;
    }
}

/// Sends each frame back, unmasked as a server's must be; the one that closes, too.
async fn frames(mut stream: TcpStream) -> Result<()> {
    loop {
        let kind = stream.read_u8().await.during("reading a frame")?;
        let length = stream.read_u8().await.during("reading a frame")? & 0x7f;
        let size = match length {
            126 => stream.read_u16().await.during("reading a frame")?,
            127 => return Err(LabError::new("a frame that the test does not send")),
            short => short.into(),
        };
        let (mut mask, mut data) = ([0; 4], vec![0; size.into()]);
        stream.read_exact(&mut mask).await.during("reading a frame")?;
        stream.read_exact(&mut data).await.during("reading a frame")?;
        data.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        let mut frame = vec![kind, length];
        if length == 126 {
            frame.extend(size.to_be_bytes());
        }
        frame.extend(data);
        stream.write_all(&frame).await.during("answering a frame")?;
        if kind & 0x0f == 8 {
            return Ok(());
        }
    }
}

async fn sha1(text: &str) -> Result<Vec<u8>> {
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha1", "-binary"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = openssl.spawn().during("running openssl")?;
    let mut input = running.stdin.take().during("openssl's input")?;
    input.write_all(text.as_bytes()).await.during("writing to openssl")?;
    drop(input);
    Ok(running.wait_with_output().await.during("running openssl")?.stdout)
}
